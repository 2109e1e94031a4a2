"""FedNova: Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization.

Wang, Liu, Liang, Joshi, Poor, NeurIPS 2020, arXiv 2007.07481, algorithm 1. Client i goes eta G_i a_i: its gradients,
each as often as SGD went it. Divided by ||a_i||_1 that is one mean step d_i, whatever the number of its updates; the
server takes x <- x - tau_eff sum p_i eta d_i with tau_eff = sum p_i ||a_i||_1, p_i a client's share of the examples of
the round. ||a_i||_1 is the number of updates of plain SGD; with momentum rho (section 4.1) it is
(tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho); a schedule weighs each update by its step size. Clients of equal
length give FedAvg.

A client's length follows from the recipe and its number of examples, which the server has: only weights travel.
Running statistics of batch norm, which the paper does not have, become the mean of the clients'.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedcl.core.errors import ConfigError
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import fresh_model, mean_weights, train_locally, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class FedNova(Strategy):
    training: Training = CLIENT_TRAINING  # of a client, each round
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training.optimizer != "sgd" or self.training.average:
            raise ConfigError(
                "fednova divides by the length of a client's way, which it knows of SGD, with momentum or without; "
                "type strategy.training.optimizer=sgd, and no average"
            )

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        old = state.weights or {}
        steps = {
            name: torch.zeros_like(old[name], dtype=torch.float64) for name, _ in fresh_model(ctx).named_parameters()
        }
        examples, lengths = 0, 0.0

        def seen(replies: Iterator[Reply]) -> Iterator[Reply]:
            """The replies, whose mean steps are added up on the way to the mean of their buffers."""
            nonlocal examples, lengths
            for reply in replies:
                if reply.num_examples and reply.weights:
                    length = self.length(reply.num_examples)
                    examples, lengths = examples + reply.num_examples, lengths + reply.num_examples * length
                    for name, step in steps.items():
                        step += (reply.weights[name].double() - old[name]) * (reply.num_examples / length)
                yield reply

        mean = mean_weights(seen(clients.ask(self.train, Payload(weights=old))), old)
        for name, step in steps.items() if examples else ():
            mean[name] = (old[name] + lengths / examples**2 * step).to(old[name].dtype)
        return ServerState(weights=mean)

    @client_work(sends=["weights"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        if not self.training.num_updates(len(data)):  # no update, so there is no mean step
            return Reply(client=ctx.client, num_examples=0)
        model = train_locally(ask.weights, data, self.training, ctx)
        return Reply(client=ctx.client, num_examples=len(data), weights=weights_of(model))

    def length(self, num_examples: int) -> float:
        """||a_i||_1: how far a gradient of 1 in every update goes, in learning rates."""
        recipe, total = self.training, self.training.num_updates(num_examples)
        per_epoch, velocity, length = recipe.updates_per_epoch(num_examples), 0.0, 0.0
        for update in range(total):
            velocity = recipe.momentum * velocity + 1
            length += recipe.factor(update, total, per_epoch) * velocity
        return length

    def unusable(self, work: str, reply: Reply, ctx: Context) -> str | None:
        none = not self.training.num_updates(reply.num_examples)
        return f"says {reply.num_examples} examples, which the recipe makes no update of" if none else None
