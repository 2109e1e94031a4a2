"""Defaults that most continual strategies share: how they begin, and the network that is evaluated."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fedcl.continual.contract import LearnerContext, State, Strategy
from fedcl.continual.networks import masked_model, new_state
from fedcl.continual.remember import new_buffer


class Learner(Strategy):
    """A strategy that begins with a fresh network and an empty buffer, and answers with the classes seen."""

    balance: ClassVar[str | None] = None  # its own rule for what stays in memory; None: the budget's

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx, new_buffer(ctx, self.balance, type(self).__name__))

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
