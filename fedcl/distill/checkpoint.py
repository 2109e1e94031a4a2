"""Going on: from the state between two steps, as tensors by name, or from finished summaries.

Everything else (networks, real batches, augmentation) derives from the key and the step, so a run that is
resumed goes on bit for bit. Where the tensors are kept is the caller's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.core.tensor_files import MALFORMED
from fedcl.core.types import Summary
from fedcl.distill.labels import TargetRule
from fedcl.distill.networks.base import NetworkStream


class CheckpointStore(ABC):
    """Keeps the latest state of every run of one `distill` call."""

    @property
    @abstractmethod
    def every(self) -> int:
        """Steps between two states, at least 1; the last step is always kept."""

    @abstractmethod
    def load(self, run: int) -> Mapping[str, Tensor] | None:
        """The state of run number `run` (sets apart: the set's position; together: 0), None to begin."""

    @abstractmethod
    def save(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Replace the state of that run. The tensors are on the CPU and nobody else's."""


@dataclass(frozen=True)
class Slot:
    """One run's place at a store; without a store, nothing is kept."""

    store: CheckpointStore | None
    run: int

    def due(self, network_index: int, reuse: int) -> bool:
        """Whether the state after this network_index, of `reuse` steps, is to be kept."""
        return self.store is not None and (network_index + 1) % max(1, self.store.every // reuse) == 0

    def load(self, learned: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, networks: NetworkStream) -> int:
        """Put the kept state back, if there is one; returns the step to begin at.

        Raises:
            DistillError: the state is damaged, or of another distillation.
        """
        state = None if self.store is None else self.store.load(self.run)
        if state is None:
            return 0
        try:
            return unpack(state, learned, optimizer, networks)
        except MALFORMED as error:
            raise DistillError(
                f"the checkpoint is damaged ({type(error).__name__}: {error}); remove it to begin anew"
            ) from None

    def save(
        self, step: int, learned: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, networks: NetworkStream
    ) -> None:
        """Keep the state before `step`."""
        if self.store is not None:
            self.store.save(self.run, pack(step, learned, optimizer, networks))


def pack(
    step: int, learned: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, networks: NetworkStream
) -> dict[str, Tensor]:
    """The state before `step`: "step", "learned.<name>", "optimizer.<name>.<entry>", "networks.<name>"."""
    state = {"step": torch.tensor(step)}
    for name, tensor in learned.items():
        state[f"learned.{name}"] = tensor
        for entry, value in optimizer.state.get(tensor, {}).items():
            if value is not None:
                state[f"optimizer.{name}.{entry}"] = torch.as_tensor(value)
    state |= {f"networks.{name}": tensor for name, tensor in networks.state().items()}
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def unpack(
    state: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    networks: NetworkStream,
) -> int:
    """Put a packed state back; returns the step to go on from.

    Raises:
        DistillError: the state is of another distillation.
    """
    found = {name: (t.dtype, list(t.shape)) for name, t in state.items() if name.startswith("learned.")}
    wanted = {f"learned.{name}": (tensor.dtype, list(tensor.shape)) for name, tensor in learned.items()}
    if found != wanted or "step" not in state:
        raise DistillError(f"the checkpoint holds {found}, this distillation needs {wanted}; remove it to begin anew")
    for name, tensor in learned.items():
        with torch.no_grad():
            tensor.copy_(state[f"learned.{name}"])
        prefix = f"optimizer.{name}."
        for entry in (key for key in state if key.startswith(prefix)):
            value = state[entry].clone()
            suits = torch.broadcast_shapes(value.shape, tensor.shape) == tensor.shape
            if not suits or (value.ndim and value.dtype != tensor.dtype):
                raise DistillError(f"the checkpoint's '{entry}' is {value.dtype} {list(value.shape)}: it is damaged")
            moved = value.to(tensor.device) if value.shape == tensor.shape and value.ndim else value
            optimizer.state[tensor][entry.removeprefix(prefix)] = moved
    own = {key.removeprefix("networks."): v for key, v in state.items() if key.startswith("networks.")}
    networks.restore(own)
    return int(state["step"])


def go_on(
    start: Sequence[Summary],
    arrays: dict[str, Tensor],
    scalars: dict[str, Tensor],
    targets: Tensor,
    labels: TargetRule,
) -> Tensor:
    """Put the arrays of summaries where fresh ones were; returns the targets to go on from.

    Raises:
        DistillError: the summaries are of another distillation.
    """
    for into in (arrays, scalars):
        for name, fresh in into.items():
            found = [summary.arrays[name] for summary in start if name in summary.arrays]
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
