"""What a distillation will cost, from a few timed steps of a copy. The clock is read here and decides no result."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.core.progress import SILENT
from fedcl.core.types import LabeledSet
from fedcl.distill.checkpoint import CheckpointStore
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.initializers import Noise
from fedcl.protocol.evaluation import Evaluation
from fedcl.training.loop import Training

ENOUGH = 1.0  # seconds of timed steps


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds and bytes, measured."""

    before_seconds: float  # what networks train before the first step, where nothing of it is on disk yet
    step_seconds: float  # one update of the synthetic images
    update_seconds: float  # one update of one network of the evaluation
    peak_bytes: int  # of memory, of the process or on the GPU, during the timed steps


class _Enough(Exception):
    """The timed steps are over."""


class _Stopwatch(CheckpointStore):
    """Looks at the clock where a state would be kept, and ends the run when it has seen enough."""

    def __init__(self, every: int, device: torch.device) -> None:
        self.interval, self.device = every, device
        self.marks: list[tuple[int, float]] = []  # (steps done, seconds)

    @property
    def every(self) -> int:
        return self.interval

    def load(self, run: int) -> None:
        return None

    def save(self, run: int, state: Mapping[str, Tensor]) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append((int(state["step"]), time.perf_counter()))
        if len(self.marks) > 2 and self.marks[-1][1] - self.marks[0][1] > ENOUGH:
            raise _Enough

    @property
    def step_seconds(self) -> float:
        """Seconds a step, without those before the first mark (the first network, the first allocation)."""
        if len(self.marks) < 2:
            return 0.0
        (first, begin), (last, end) = self.marks[0], self.marks[-1]
        return (end - begin) / (last - first)


def estimate(distiller: Distiller, train: LabeledSet, key: int, ctx: Context, evaluation: Evaluation) -> Estimate:
    """Time a few steps of a copy that starts from noise; nothing of the copy is kept."""
    quiet = replace(ctx, progress=SILENT)
    step_seconds = before_seconds = 0.0
    if not distiller.selects:
        watch = _Stopwatch(distiller.reuse, ctx.device)
        copy = replace(
            distiller,
            initializer=Noise(),
            networks=distiller.networks.estimate_only(),
            steps=min(distiller.steps, 200 * distiller.reuse),
        )
        with suppress(_Enough, DistillError):  # what is wrong, the run itself will say
            copy.distill([train], key, quiet, store=watch)
        step_seconds = watch.step_seconds
        before = distiller.networks.pretraining()
        if before is not None:
            before = replace(before, augmentation=distiller.augmentation)
            before_seconds = before.num_updates(len(train)) * _update_seconds(before, before.batch_size, quiet)
    return Estimate(
        before_seconds=before_seconds,
        step_seconds=step_seconds,
        update_seconds=_update_seconds(evaluation.training, distiller.ipc * train.num_classes, quiet),
        peak_bytes=peak_bytes(ctx.device),
    )


def _update_seconds(training: Training, num_images: int, ctx: Context) -> float:
    """Of one update of a network on so many images."""
    images = torch.zeros(num_images, *ctx.shape_CHW, device=ctx.device)
    labels = torch.arange(num_images, device=ctx.device) % ctx.num_classes
    few = replace(training, updates=3, epochs=None)
    few.fit(ctx.new_model(0), images, labels, seed=0)  # the first pass allocates
    start = time.perf_counter()
    few.fit(ctx.new_model(0), images, labels, seed=0)
    return (time.perf_counter() - start) / 3


def peak_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: on a GPU by tensors, else by the process; 0 where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # no such module on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
