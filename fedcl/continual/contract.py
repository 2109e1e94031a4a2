"""The contract of a continual learner: pure functions of a state that is saved after every step.

A strategy is a frozen dataclass of hyper-parameters on one page, in `strategies/continual/`. What it
remembers of the past is a `State`: weights, a buffer under a budget, and named tensors. Nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from fedcl.core.rules import Checked
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer


@dataclass(frozen=True, kw_only=True)
class State:
    """Memory of a learner between steps; tensors only, so that it can be saved and resumed."""

    weights: Mapping[str, Tensor]  # of the network, on the CPU
    buffer: Buffer
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # optimiser moments, Fisher information, ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """Data of one step, and what the stream has brought so far."""

    data: LabeledSet  # uint8 images and labels of this step, on the device; origin.step is `index`
    index: int  # counted from 0
    num_steps: int
    old_C: Tensor  # bool [C], classes that earlier steps held, on the CPU
    seen_C: Tensor  # bool [C], those and the ones of this step
    history: Callable[[], LabeledSet]  # training data of all steps up to this one: for `joint`, an upper bound

    @property
    def last(self) -> bool:
        """True at the end of the stream."""
        return self.index == self.num_steps - 1


@dataclass(frozen=True, kw_only=True)
class LearnerContext(Context):
    """Context of a learner of a stream."""

    budget: Budget
    watch: Callable[[nn.Module], None] | None = None  # told after an epoch; it looks and changes nothing


class Strategy(Checked, ABC):
    """A continual algorithm. Every method is pure: no hidden state, no clock, no global randomness."""

    config_key = "strategy"

    needs_memory: ClassVar[bool] = False  # True: it cannot work with an empty buffer
    unused: ClassVar[Collection[str]] = ()  # keys of the run that decide nothing: ("distiller",), ("distiller.ipc",)
    every_step: bool = True  # False: the network is trained at the last step alone, and only then looked at

    @abstractmethod
    def init(self, ctx: LearnerContext) -> State:
        """The state before the first step."""

    @abstractmethod
    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        """The state after a step."""

    @abstractmethod
    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        """The network that is evaluated, on the device."""
