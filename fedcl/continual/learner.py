"""What most continual strategies share: how they begin, their networks, and answers restricted to the classes seen.

Legend: N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Strategy
from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec
from fedcl.core.seeding import derive
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer
from fedcl.models.base import Network
from fedcl.training.moments import weights_of
from fedcl.training.recipe import Training

SEEN = "seen"  # name in State.tensors: bool [K], classes that were trained on
# The training of each step where a strategy is given none: sizes for digits
STEP_TRAINING = Training(epochs=20, batch_size=64, optimizer="adam", lr=0.001, weight_decay=0.0, schedule="constant")


@dataclass(frozen=True, kw_only=True)
class Learner(Strategy):
    """A strategy that begins with a fresh network and an empty buffer, and answers with the classes seen."""

    training: Training = STEP_TRAINING  # of each step
    balance: ClassVar[str | None] = None  # its own rule for what stays in memory; None: the budget's
    cross_entropy: ClassVar[str] = ""  # why the loss can be no other; "": it can

    def __post_init__(self) -> None:
        if self.cross_entropy and self.training.loss != "cross_entropy":
            raise ConfigError(
                f"{self.cross_entropy}, so training.loss={self.training.loss} has no meaning in it; "
                "type strategy.training.loss=cross_entropy"
            )

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx, self.balance, type(self).__name__)

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return Masked(network(state, ctx), state.tensors[SEEN])


def new_state(ctx: LearnerContext, balance: str | None, who: str) -> State:
    """A fresh network, no class seen, and an empty buffer under the run's budget.

    Args:
        balance: rule by which the learner itself decides what stays; None: it leaves that to the budget.

    Raises:
        ConfigError: the budget asks for a rule that is neither this one nor the default.
    """
    asked = ctx.budget.balance
    if balance is not None and asked not in (balance, Budget.balance):
        raise ConfigError(
            f"{who} has its own rule for what stays in memory, so buffer.balance={asked} would change nothing; "
            f"type buffer.balance={balance}"
        )
    buffer = Buffer(budget=replace(ctx.budget, balance=balance or asked))
    seen_K = torch.zeros(ctx.num_classes, dtype=torch.bool)
    return State(weights=weights_of(fresh_model(ctx)), buffer=buffer, tensors={SEEN: seen_K})


def fresh_model(ctx: LearnerContext) -> Network:
    """The network as it was before the first step."""
    return ctx.new_model(derive(ctx.seed, "model"))


def network(state: State, ctx: LearnerContext) -> Network:
    """The network with the state's weights, all outputs, on the device."""
    model = fresh_model(ctx)
    model.load_state_dict(dict(state.weights))
    return model


def teacher(state: State, ctx: LearnerContext) -> Network:
    """The state's network as one that is only asked: in eval mode, without gradients."""
    return network(state, ctx).eval().requires_grad_(False)


class Masked(nn.Module):
    """A network whose answers are classes that were seen: other outputs are minus infinity."""

    def __init__(self, network: nn.Module, seen_K: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("offset_K", mask_offset(seen_K).to(next(network.parameters()).device))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.network(images_NCHW) + self.offset_K


def mask_offset(seen_K: Tensor) -> Tensor:
    """float32 [K]: 0 for seen classes, minus infinity for others; all 0 while none is seen."""
    offset = torch.zeros(len(seen_K))
    return offset.masked_fill(~seen_K.cpu(), -torch.inf) if bool(seen_K.any()) else offset


def replayed(buffer: Buffer, ctx: LearnerContext) -> tuple[Tensor, Tensor]:
    """Images and targets of a buffer that is not empty, on the device (see `Buffer.replay`)."""
    images, targets = buffer.replay()
    return images.to(ctx.device), targets.to(ctx.device)


@torch.no_grad()
def outputs(model: Callable[[Tensor], Tensor], images: Tensor, spec: InputSpec, chunk: int = 512) -> Tensor:
    """`model` of all images, in parts; images uint8 or normalised."""
    return torch.cat([model(spec.apply(part)) for part in images.split(chunk)])
