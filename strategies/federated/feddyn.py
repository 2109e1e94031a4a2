"""FedDyn: Federated Learning Based on Dynamic Regularization.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama, ICLR 2021, arXiv 2111.04263, algorithm 1. Client k minimises
L_k(w) - <g_k, w> + alpha / 2 ||w - w^{t-1}||^2 from the server's w^{t-1}, to w_k, and keeps
g_k <- g_k - alpha (w_k - w^{t-1}), which is the gradient of L_k there. The server keeps
h <- h - alpha / m sum (w_k - w^{t-1}) and takes w^t = 1 / |P| sum w_k - h / alpha, P the clients of the round, m all of
them. g_k and h begin at 0, and nothing but weights travels. Clients count alike, as in the paper; in its public code
alpha is divided by a client's share of the examples.

The minimum is approached by the local training, whose weight decay is part of L_k. Running statistics of batch norm,
which the paper does not have, become the mean of the clients'.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.rules import number
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import fresh_model, mean_weights, train_locally, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.losses import Penalty
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class FedDyn(Strategy):
    training: Training = CLIENT_TRAINING  # of a client, each round
    alpha: Annotated[float, number(above=0, example=0.01)] = 0.01  # of the quadratic penalty
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def init(self, ctx: Context) -> ServerState:
        state = super().init(ctx)
        zeros = {name: torch.zeros_like(p).detach().cpu() for name, p in fresh_model(ctx).named_parameters()}
        return replace(state, tensors=zeros)

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        old, drift = state.weights or {}, {name: h.clone() for name, h in state.tensors.items()}
        anybody = False

        def alike(replies: Iterator[Reply]) -> Iterator[Reply]:
            """Replies that count one each, whose ways are taken off h on the way to their mean."""
            nonlocal anybody
            for reply in replies:
                if reply.num_examples and reply.weights:
                    anybody = True
                    for name, h in drift.items():
                        h -= self.alpha / clients.num_clients * (reply.weights[name] - old[name])
                    yield replace(reply, num_examples=1)

        mean = mean_weights(alike(clients.ask(self.train, Payload(weights=old))), old)
        for name, h in drift.items() if anybody else ():
            mean[name] = mean[name] - h / self.alpha
        return ServerState(weights=mean, tensors=drift)

    @client_work(sends=["weights"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Local training under the client's own penalty; the client keeps the gradient of its loss."""
        if not len(data):
            return Reply(client=ctx.client, num_examples=0)
        start, own = ask.weights or {}, mine.tensors

        def penalty(model: nn.Module) -> Penalty:
            there = {name: start[name].to(ctx.device) for name, _ in model.named_parameters()}
            linear = {name: own[name].to(ctx.device) if own else torch.zeros_like(p) for name, p in there.items()}

            def value(model: nn.Module) -> Tensor:
                terms = [
                    self.alpha / 2 * (p - there[name]).square().sum() - (linear[name] * p).sum()
                    for name, p in model.named_parameters()
                ]
                return torch.stack(terms).sum()

            return value

        model = train_locally(start, data, self.training, ctx, penalty=penalty)
        weights, names = weights_of(model), [name for name, _ in model.named_parameters()]
        kept = {name: (own[name] if own else 0) - self.alpha * (weights[name] - start[name]) for name in names}
        return Reply(client=ctx.client, num_examples=len(data), weights=weights, keep=ClientState(tensors=kept))
