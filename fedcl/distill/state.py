"""State of a distillation between two steps, and the same as tensors by name: the checkpoint.

Everything else (networks, real batches, augmentation) derives from the key and the step, so that a run that is resumed
goes on bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.core.tensor_files import MALFORMED
from fedcl.core.types import Summary
from fedcl.distill.batch import MatchBatch, Matched, MatchStep
from fedcl.distill.blobs import below
from fedcl.distill.context import Context
from fedcl.distill.groups import RealBatches, Segments
from fedcl.distill.labels import TargetRule
from fedcl.distill.networks.base import NetworkStream
from fedcl.training.augmentation import Draw


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Network, real batch and draw of the augmentation that `reuse` updates have in common."""

    step: MatchStep
    draw: Draw | None
    real: MatchBatch
    target: Any  # of the objective, for that batch and network


@dataclass(kw_only=True)
class DistillState:
    """Everything that `step` moves and `finish` reads; `tensors` leaves out what follows from the key and the step."""

    key: int
    ctx: Context
    segments: Segments
    batches: RealBatches
    arrays: dict[str, Tensor]  # of the parameterization
    scalars: dict[str, Tensor]  # the objective's own learned numbers
    targets: Tensor  # as the labels' rule has them
    segment_N: Tensor  # int64 [stored entries] on the CPU
    segment_M: Tensor  # int64 [decoded images], on the device
    label_M: Tensor  # int64 [decoded images], on the CPU
    sizes: tuple[int, ...]  # decoded images of each segment
    matched: Matched  # of step 0, where initializer or labels need it
    networks: NetworkStream
    total: int  # steps to do; 0: a selection
    step: int = 0  # steps done
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))  # of the last step
    learned: dict[str, Tensor] = field(default_factory=dict)  # those of the tensors above that move
    optimizer: torch.optim.Optimizer | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)  # of the objective
    comparison: Comparison | None = None

    def descend(self, gradients: Sequence[Tensor | None]) -> None:
        """Move what is learned. Raises DistillError where the loss does not depend on one of them."""
        for (name, tensor), gradient in zip(self.learned.items(), gradients, strict=True):
            if gradient is None:
                raise DistillError(f"the objective cannot learn '{name}': its loss does not see it; type labels=hard")
            tensor.grad = gradient
        if self.optimizer is not None:
            self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Copies on the CPU: step, learned.<name>, optimizer.<name>.<entry>, and of networks, sampler and memory."""
        state = {"step": torch.tensor(self.step)}
        for name, tensor in self.learned.items():
            state[f"learned.{name}"] = tensor
            kept = {} if self.optimizer is None else self.optimizer.state.get(tensor, {})
            state |= {f"optimizer.{name}.{k}": torch.as_tensor(v) for k, v in kept.items() if v is not None}
        rooms = {"networks": self.networks.state(), "sampler": self.batches.state(), "memory": self.memory}
        for room, own in rooms.items():
            state |= {f"{room}.{name}": tensor for name, tensor in own.items()}
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave. Raises DistillError where it is damaged, or of another distillation."""
        learned = below(state, "learned", ".")
        found, wanted = ({n: (t.dtype, list(t.shape)) for n, t in held.items()} for held in (learned, self.learned))
        if found != wanted or "step" not in state:
            raise DistillError(
                f"the checkpoint holds {found}, this distillation needs {wanted}; remove it to begin anew"
            )
        try:
            for name, tensor in self.learned.items():
                tensor.detach().copy_(learned[name])
                if self.optimizer is not None:
                    kept = below(state, f"optimizer.{name}", ".")
                    self.optimizer.state[tensor] |= {k: _suited(v, tensor, f"{name}.{k}") for k, v in kept.items()}
            self.networks.restore(below(state, "networks", "."))
            self.batches.restore(below(state, "sampler", "."))
            memory = below(state, "memory", ".").items()
            self.memory |= {name: value.to(self.ctx.device, copy=True) for name, value in memory}
            self.step = int(state["step"])
        except MALFORMED as error:
            raise DistillError(
                f"the checkpoint is damaged ({type(error).__name__}: {error}); remove it to begin anew"
            ) from None


def _suited(value: Tensor, tensor: Tensor, name: str) -> Tensor:
    """A copy of what the optimiser kept of a tensor, where it belongs."""
    fits = torch.broadcast_shapes(value.shape, tensor.shape) == tensor.shape
    if not fits or (value.ndim and value.dtype != tensor.dtype):
        raise ValueError(f"'optimizer.{name}' is {value.dtype} {list(value.shape)}")
    # PyTorch's optimisers count steps in tensors without axes, which stay on the CPU
    return value.to(tensor.device if value.ndim and value.shape == tensor.shape else value.device, copy=True)


def go_on(
    start: Sequence[Summary], arrays: dict[str, Tensor], scalars: dict[str, Tensor], targets: Tensor, labels: TargetRule
) -> Tensor:
    """Put the arrays of summaries where fresh ones were; returns the targets to go on from.

    Raises DistillError where the summaries are of another distillation.
    """
    for into in (arrays, scalars):
        for name, fresh in into.items():
            found = [summary.arrays[name] for summary in start if name in summary.arrays]
            if any(held.dtype != fresh.dtype for held in found):  # pixels, from which it goes on with numbers
                found = [start[0].inputs.apply(held) for held in found]
            shape = (sum(map(len, found)), *found[0].shape[1:]) if found and fresh.ndim else fresh.shape
            if len(found) != len(start) or shape != fresh.shape:
                raise DistillError(f"start does not fit: array '{name}' should be {tuple(fresh.shape)}, got {shape}")
            into[name] = (torch.cat(found) if fresh.ndim else found[0]).to(fresh.device, copy=True)
    if not labels.learnable:
        return targets
    begun = labels.encode(torch.cat([summary.targets for summary in start]))
    if begun.shape != targets.shape:
        raise DistillError(f"start does not fit: targets should be {tuple(targets.shape)}, got {tuple(begun.shape)}")
    return begun.to(targets, copy=True)
