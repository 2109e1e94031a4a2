"""MOON: Model-Contrastive Federated Learning.

Li, He, Song, CVPR 2021, arXiv 2103.16257, algorithm 1. A client adds mu times the mean over its images of
-log(e^(s / tau) / (e^(s / tau) + e^(p / tau))) to its loss (equation 3): s is the cosine of the features of its network
and those of the network that came down, p of those and its own network's of the last round that it was in. That one is
its `ClientState`; nothing but weights travels, and the server takes their mean by examples, as FedAvg does.

Features are what the network's classifier sees. The paper puts a projection head of two layers before the classifier,
which the networks here do not have. Both other networks are in eval mode and get no gradient; a client without a last
round has nothing to turn from, and its term is 0.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.rules import number
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.distill.objectives.base import network_of
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import fit, local_seed, mean_weights, model_of, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.losses import Batch
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Moon(Strategy):
    training: Training = CLIENT_TRAINING  # of a client, each round
    mu: Annotated[float, number(least=0, example=5)] = 5.0  # weight of the contrast; 0 is fedavg
    temperature: Annotated[float, number(above=0, example=0.5)] = 0.5  # tau
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        return ServerState(weights=mean_weights(clients.ask(self.train, Payload(weights=state.weights)), state.weights))

    @client_work(sends=["weights"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Local training, near the features of the global network and away from those of the client's last one."""
        if not len(data):
            return Reply(client=ctx.client, num_examples=0)
        others = [model_of(weights, ctx).eval() for weights in (ask.weights, mine.tensors) if weights]

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            network = network_of(model)
            own_ND = network.embed(batch.inputs)
            value = batch.loss(self.training.criterion, network.classifier(own_ND))
            if len(others) < 2 or not self.mu:
                return value
            with torch.no_grad():
                features = [network_of(other).embed(batch.inputs) for other in others]
            cosines_N2 = torch.stack([F.cosine_similarity(own_ND, other_ND) for other_ND in features], dim=1)
            toward_global = torch.zeros(len(cosines_N2), dtype=torch.int64, device=cosines_N2.device)
            return value + self.mu * F.cross_entropy(cosines_N2 / self.temperature, toward_global)

        model, seed = model_of(ask.weights, ctx), local_seed(ctx)
        fit(model, data.inputs, data.labels_N, self.training, ctx, seed=seed, loss=loss, spec=ctx.inputs)
        weights = weights_of(model)
        return Reply(client=ctx.client, num_examples=len(data), weights=weights, keep=ClientState(tensors=weights))
