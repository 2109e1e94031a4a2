"""Cost of a distillation, from a few timed steps of a copy. The clock is read here and decides no result."""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from fedcl.core.errors import DistillError
from fedcl.core.progress import SILENT
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.initializers import Noise
from fedcl.distill.labels import Hard
from fedcl.protocol.evaluation import Evaluation
from fedcl.training.loop import train
from fedcl.training.recipe import Training

ENOUGH = 1.0  # seconds of timed steps
MOST = 200  # networks that are timed


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds and bytes, measured."""

    before_seconds: float  # what networks train before the first step, where nothing of it is on disk yet
    step_seconds: float  # one update of the synthetic images
    update_seconds: float  # one update of one network of the evaluation
    peak_bytes: int  # of memory, of the process or on the GPU, during the timed steps


def estimate(distiller: Distiller, train: LabeledSet, key: int, ctx: Context, evaluation: Evaluation) -> Estimate:
    """Time a few steps of a copy that starts from noise; nothing of the copy is kept."""
    quiet = replace(ctx, progress=SILENT)
    pretraining = None if "networks" in distiller.idle else distiller.networks.pretraining()
    before = 0.0
    if pretraining is not None:
        pretraining = replace(pretraining, augmentation=distiller.augmentation)
        seconds = _update_seconds(pretraining, pretraining.batch_size, quiet)
        before = pretraining.num_updates(len(train)) * seconds
    return Estimate(
        before_seconds=before,
        step_seconds=0.0 if distiller.selects else _step_seconds(distiller, train, key, quiet),
        update_seconds=_update_seconds(evaluation.training, distiller.ipc * train.num_classes, quiet),
        peak_bytes=peak_bytes(ctx.device),
    )


def _step_seconds(distiller: Distiller, train: LabeledSet, key: int, ctx: Context) -> float:
    """Of one update, those of the first network left out (the first allocation); 0 where nothing is known."""
    copy = replace(
        distiller,
        initializer=Noise(),
        labels=Hard() if distiller.labels.needs else distiller.labels,
        networks=distiller.networks.estimate_only(),
    )
    marks: list[tuple[int, float]] = []  # (steps done, seconds)
    with suppress(DistillError):  # what is wrong, the run itself will say
        state = copy.begin([train], key, ctx)
        while state.step < min(state.total, MOST * copy.reuse):
            state = copy.step(state)
            if state.step % copy.reuse and state.step < state.total:
                continue
            if ctx.device.type == "cuda":
                torch.cuda.synchronize(ctx.device)
            marks.append((state.step, time.perf_counter()))
            if len(marks) > 2 and marks[-1][1] - marks[0][1] > ENOUGH:
                break
    return 0.0 if len(marks) < 2 else (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])


def _update_seconds(training: Training, num_images: int, ctx: Context) -> float:
    """Of one update of a network on so many images."""
    images = torch.zeros(num_images, *ctx.inputs.shape, device=ctx.device)
    labels = torch.arange(num_images, device=ctx.device) % ctx.num_classes
    few = replace(training, updates=3, epochs=None)
    train(ctx.new_model(0), images, labels, few, seed=0)  # the first pass allocates
    start = time.perf_counter()
    train(ctx.new_model(0), images, labels, few, seed=0)
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
