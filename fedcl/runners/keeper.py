"""The state of `fedcl distill` in the run's checkpoint file (see `resume.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl.distill.checkpoint import Keeper
from fedcl.errors import DistillError, RunError
from fedcl.runners.resume import NAME, Checkpoint, differences, read_checkpoint, write_checkpoint


@dataclass(kw_only=True)
class FileKeeper(Keeper):
    """Keeps the one run of a `distill` call in `out`, replacing the state before."""

    out: Path
    settings: Mapping[str, Any]  # plain values that decide the result; a state of others is refused
    notes: Callable[[], dict[str, Any]] = dict  # plain values to keep beside the state
    interval: int = 500  # steps between two states
    found: dict[str, Any] = field(default_factory=dict)  # the notes of the state that was read

    @property
    def every(self) -> int:
        return self.interval

    @property
    def path(self) -> Path:
        return self.out / NAME

    def read(self) -> Checkpoint | None:
        """The state in the folder, its notes in `found`; None if there is none.

        Raises:
            RunError: it cannot be read, or is of other settings.
        """
        if not self.path.exists():
            return None
        checkpoint = read_checkpoint(self.out)
        changed = differences(checkpoint.about.get("settings", {}), self.settings)
        if changed:
            raise RunError(
                f"out={self.out} holds a distillation of other settings: {'; '.join(changed)}. "
                "Type the same values to go on with it, or another out=..."
            )
        self.found = dict(checkpoint.about["notes"])
        return checkpoint

    def load(self, run: int) -> Mapping[str, Tensor] | None:
        checkpoint = self.read()
        return None if checkpoint is None else checkpoint.tensors

    def save(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Replace the state.

        Raises:
            DistillError: it is not finite; the one before is left as it was.
        """
        step = int(state["step"])
        bad = [n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
        if bad:
            kept = f"an earlier state is in {self.path}" if self.path.exists() else "no state was kept"
            raise DistillError(f"'{bad[0]}' is not finite after step {step}; lower distiller.optimizer.lr ({kept})")
        about = {"settings": self.settings, "notes": self.notes()}
        write_checkpoint(self.out, Checkpoint(done=step, record={}, tensors=state, about=about))
