"""The state of `fedcl distill` in the run's checkpoint file (see `checkpoint.py`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl.core.errors import DataError, DistillError, RunError
from fedcl.core.tensor_files import as_data_error
from fedcl.distill.journal import CheckpointStore
from fedcl.runs.checkpoint import NAME, Checkpoint, differences, read_checkpoint, write_checkpoint


@dataclass(kw_only=True)
class FileKeeper(CheckpointStore):
    """Keeps the one run of a `distill` call in `out`, replacing the state before."""

    out: Path
    settings: Mapping[str, Any]  # plain values that decide the result; a state of others is refused
    notes: Callable[[], dict[str, Any]] = dict  # plain values to keep beside the state
    every: int = 500  # steps between two states
    found: dict[str, Any] = field(default_factory=dict)  # the notes of the state that was read

    @property
    def path(self) -> Path:
        return self.out / NAME

    def read(self) -> Checkpoint | None:
        """The state in the folder, its notes in `found`, or None; RunError where it is damaged or of other settings."""
        if not self.path.exists():
            return None
        checkpoint = read_checkpoint(self.out)
        with as_data_error(self.damaged):
            changed = differences(checkpoint.about["settings"], self.settings)
            self.found = dict(checkpoint.about["notes"])
        if changed:
            raise RunError(
                f"out={self.out} holds a distillation of other settings: {'; '.join(changed)}. "
                "Type the same values to go on with it, or another out=..."
            )
        return checkpoint

    @property
    def damaged(self) -> str:
        """Beginning of a message about the state."""
        return f"{self.path} is damaged; remove it to begin anew"

    def load(self, run: int) -> Mapping[str, Tensor] | None:
        """The state in the folder; FedclError where it is damaged, or none that `save` would write for this run."""
        checkpoint = self.read()
        if checkpoint is None:
            return None
        with as_data_error(self.damaged):
            if int(checkpoint.tensors["step"]) != checkpoint.done:
                raise DataError(f"it says {checkpoint.done} steps and holds {int(checkpoint.tensors['step'])}")
            if bad := not_finite(checkpoint.tensors):
                raise DataError(f"'{bad}' is not finite")
        return checkpoint.tensors

    def save(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Replace the state; DistillError where it is not finite, and the one before stays."""
        step = int(state["step"])
        if bad := not_finite(state):
            kept = f"an earlier state is in {self.path}" if self.path.exists() else "no state was kept"
            raise DistillError(f"'{bad}' is not finite after step {step}; lower distiller.optimizer.lr ({kept})")
        about = {"settings": self.settings, "notes": self.notes()}
        write_checkpoint(self.out, Checkpoint(done=step, record={}, tensors=state, about=about))


def not_finite(state: Mapping[str, Tensor]) -> str:
    """The first tensor that holds NaN or infinity, "" if there is none."""
    bad = (name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all()))
    return next(bad, "")
