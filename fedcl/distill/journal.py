"""Journal of a distillation: where it goes on, what it says while it runs, and which states are kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.distill.state import DistillState

LOOK = 50  # steps between two looks at the loss, each of which waits for the device


class CheckpointStore(ABC):
    """Keeps the latest state of every run of one `distill` call."""

    every: int = 1  # steps between two states; the last step is always kept

    @abstractmethod
    def load(self, run: int) -> Mapping[str, Tensor] | None:
        """The state of run number `run` (sets apart: the set's position; together: 0), None to begin."""

    @abstractmethod
    def save(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Replace the state of that run. The tensors are on the CPU and nobody else's."""


class Journal:
    """Of one run; a selection has nothing to say."""

    def __init__(self, state: DistillState, store: CheckpointStore | None, run: int, name: str, reuse: int) -> None:
        self.state, self.store, self.run, self.name = state, store, run, name
        # states lie between two networks: everything that `reuse` updates have in common is made anew
        self.every = 0 if store is None else reuse * max(1, store.every // reuse)
        if state.total:
            kept = None if store is None else store.load(run)
            if kept is not None:
                state.restore(kept)
            state.ctx.progress.begin("distilling", state.total)
            state.ctx.progress.advance("distilling", state.step)
        self.shown = state.step

    def after_step(self) -> None:
        """Look at the loss now and then, and keep the state where it is due or final.

        Raises:
            DistillError: the loss is not finite.
        """
        state = self.state
        keep = state.step == state.total or (self.every > 0 and state.step % self.every == 0)
        if keep or (state.step - 1) % LOOK == 0:
            loss = float(state.loss)
            if not math.isfinite(loss):
                raise DistillError(
                    f"distiller '{self.name}': the loss is {loss} at step {state.step}; lower distiller.optimizer.lr"
                )
            state.ctx.progress.advance("distilling", state.step - self.shown, loss=loss)
            self.shown = state.step
        if keep and self.store is not None:
            self.store.save(self.run, state.tensors())

    def close(self) -> None:
        """The steps are done."""
        if self.state.total:
            self.state.ctx.progress.end("distilling")
