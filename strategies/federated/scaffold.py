"""SCAFFOLD: Stochastic Controlled Averaging for Federated Learning.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, ICML 2020, arXiv 1910.06378, algorithm 1 with option II. Client i takes
K steps y <- y - eta_l (g(y) - c_i + c) (equation 3), then c_i+ = c_i - c + (x - y) / (K eta_l) (equation 4); the
server takes x <- x + eta_g / |S| sum (y_i - x) and c <- c + 1 / N sum (c_i+ - c_i) (equation 5), S the clients of the
round, N all of them. Clients count alike, as in the paper, and not by their examples.

The correction is the gradient of <c - c_i, y>, a penalty of the one training loop. Option II reads the mean gradient
off the way that plain SGD went, so momentum and other optimisers are refused. Running statistics of batch norm, which
the paper does not have, become the mean of the clients'.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.rules import number
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import fit, fresh_model, local_seed, mean_weights, model_of, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.recipe import Training

# NIID-Bench (Li et al., ICDE 2022), without its momentum
PLAIN_SGD = replace(CLIENT_TRAINING, momentum=0.0)


@dataclass(frozen=True, kw_only=True)
class Scaffold(Strategy):
    training: Training = PLAIN_SGD  # of a client, each round
    server_lr: Annotated[float, number(above=0, example=1)] = 1.0  # eta_g
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def __post_init__(self) -> None:
        super().__post_init__()
        recipe = self.training
        if recipe.optimizer != "sgd" or recipe.momentum or recipe.clip or recipe.average:
            raise ConfigError(
                "scaffold reads gradients off the steps of plain SGD; type strategy.training.optimizer=sgd with "
                "momentum=0, and neither clip nor average"
            )

    def init(self, ctx: Context) -> ServerState:
        return replace(super().init(ctx), tensors={"control": torch.zeros_like(_flat(fresh_model(ctx)))})

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        control = state.tensors["control"].clone()

        def alike(replies: Iterator[Reply]) -> Iterator[Reply]:
            """Replies that count one each; what they say of their controls is added to the server's."""
            for reply in replies:
                if reply.num_examples:
                    control.add_(reply.tensors["control"] / clients.num_clients)
                    yield replace(reply, num_examples=1)

        old = state.weights or {}
        mean = mean_weights(alike(clients.ask(self.train, Payload(weights=old, tensors=state.tensors))), old)
        for name, _ in fresh_model(ctx).named_parameters():
            mean[name] = old[name] + self.server_lr * (mean[name] - old[name])
        return ServerState(weights=mean, tensors={"control": control})

    @client_work(sends=["weights", "tensors.control"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Local training with corrected gradients; `control` is the change of the client's control variate."""
        if not self.training.num_updates(len(data)):  # no step is taken, so there is no gradient to tell of
            return Reply(client=ctx.client, num_examples=0)
        model = model_of(ask.weights, ctx)
        start, control = _flat(model), ask.tensors["control"]
        own = mine.tensors.get("control", torch.zeros_like(control))
        correction = (control - own).to(ctx.device)

        def penalty(model: nn.Module) -> Tensor:
            return correction @ nn.utils.parameters_to_vector(model.parameters())

        seed, spec = local_seed(ctx), ctx.inputs
        fit(model, data.inputs, data.labels_N, self.training, ctx, seed=seed, penalty=penalty, spec=spec)
        new = own - control + (start - _flat(model)) / self._way(len(data))
        return Reply(
            client=ctx.client,
            num_examples=len(data),
            weights=weights_of(model),
            tensors={"control": new - own},
            keep=ClientState(tensors={"control": new}),
        )

    def _way(self, num_examples: int) -> float:
        """K eta_l: the sum of the step sizes, which a schedule may change."""
        recipe, total = self.training, self.training.num_updates(num_examples)
        per_epoch = recipe.updates_per_epoch(num_examples)
        return sum(recipe.lr * recipe.factor(update, total, per_epoch) for update in range(total))

    def unusable(self, work: str, reply: Reply, ctx: Context) -> str | None:
        wanted, sent = _flat(fresh_model(ctx)), reply.tensors["control"]
        same = (sent.shape, sent.dtype) == (wanted.shape, wanted.dtype)
        return None if same else f"sent a control of {sent.dtype} {list(sent.shape)}, expected {list(wanted.shape)}"


def _flat(model: nn.Module) -> Tensor:
    """float32 [P]: all parameters as one vector, on the CPU."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().cpu().clone()
