"""A newly initialised network every step (DM, Zhao & Bilen, WACV 2023, section 3.1)."""

from dataclasses import dataclass

from fedcl.core.seeding import torch_rng
from fedcl.distill.batch import Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Stateless
from fedcl.models.base import reset_parameters


@dataclass(frozen=True, kw_only=True)
class Fresh(Networks):
    """One module, re-initialised in place."""

    shared = True

    def open(self, source: NetworkSource) -> NetworkStream:
        network = source.new_model(source.seed).requires_grad_(False)

        def at(step: int) -> Matched:
            reset_parameters(network, torch_rng(source.seed, "network", round=step))
            return Matched(network=network)

        return Stateless(at)
