"""Journal of a distillation: where it goes on, what it says while it runs, and which states are kept."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

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


def steps_left(state: DistillState, store: CheckpointStore | None, run: int, name: str, reuse: int) -> Iterator[None]:
    """One turn for each step that run number `run` has still to do, from the kept state on, if there is one.

    Keeps the state where it is due or final, and now and then looks at the loss: DistillError where it is not finite.
    """
    if not state.total:  # a selection
        return
    kept = None if store is None else store.load(run)
    if kept is not None:
        state.restore(kept)
    # states lie between two networks: everything that `reuse` updates have in common is made anew
    every = state.total if store is None else reuse * max(1, store.every // reuse)
    progress, shown = state.ctx.progress, state.step
    progress.begin("distilling", state.total)
    progress.advance("distilling", shown)
    while state.step < state.total:
        yield
        due = state.step == state.total or state.step % every == 0
        if due or (state.step - 1) % LOOK == 0:
            loss = float(state.loss)
            if not math.isfinite(loss):
                raise DistillError(
                    f"distiller '{name}': the loss is {loss} at step {state.step}; lower distiller.optimizer.lr"
                )
            progress.advance("distilling", state.step - shown, loss=loss)
            shown = state.step
        if due and store is not None:
            store.save(run, state.tensors())
    progress.end("distilling")
