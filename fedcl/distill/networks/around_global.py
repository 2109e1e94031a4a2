"""The caller's network, perturbed: what a federated client matches around the global weights."""

from dataclasses import dataclass
from typing import Annotated

import torch

from fedcl.core.errors import DistillError
from fedcl.core.rules import number
from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Stateless


@dataclass(frozen=True, kw_only=True)
class AroundGlobal(Networks):
    """The caller's weights w, perturbed every step: w + radius * g / ||g||, g Gaussian over all parameters.

    FedDM (Xiong et al., CVPR 2023), section 3.3: matching around the global weights. Eval mode.
    """

    shared, needs_weights = True, True

    # Euclidean length of the perturbation; 0 keeps the weights
    radius: Annotated[float, number(least=0, example=5)] = 5.0

    def open(self, source: NetworkSource) -> NetworkStream:
        if source.weights is None:
            raise DistillError(
                "networks=around_global matches around the caller's weights, and there are none; type networks=fresh"
            )
        network = source.new_model(source.seed)
        network.load_state_dict(dict(source.weights))
        network.eval().requires_grad_(False)
        centres = [parameter.clone() for parameter in network.parameters()]

        @torch.no_grad()
        def at(step: int) -> Matched:
            generator = torch_rng(source.seed, "perturbation", round=step)
            noise = [torch.randn(p.shape, generator=generator) for p in centres]
            length = torch.stack([n.square().sum() for n in noise]).sum().sqrt()
            for parameter, centre, n in zip(network.parameters(), centres, noise, strict=True):
                parameter.copy_(centre + (n * (self.radius / length)).to(centre.device))
            return Matched(network=network)

        return Stateless(at)
