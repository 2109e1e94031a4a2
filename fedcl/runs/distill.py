"""`fedcl distill`: one summary of a whole training set, evaluated beside its controls."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fedcl.core.compute import keep_large_blocks, pick_device
from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import check_parts
from fedcl.core.paths import typed_path
from fedcl.core.progress import SILENT, Progress
from fedcl.core.record import open_folder
from fedcl.core.rules import whole
from fedcl.core.seeding import derive
from fedcl.core.tensor_files import as_data_error
from fedcl.core.types import Summary
from fedcl.data.base import Dataset, hold_out
from fedcl.distill.blobs import encode
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.files import save_summary
from fedcl.distill.published import with_protocol_at
from fedcl.models.base import Model
from fedcl.protocol.cache import EvaluationCache, digest_of
from fedcl.protocol.controls import make_control
from fedcl.protocol.evaluation import Evaluation, Evaluator
from fedcl.protocol.scores import evaluate_summary
from fedcl.runs.distill_checkpoint import FileKeeper
from fedcl.runs.estimate import Estimate, estimate
from fedcl.runs.job import Job, RunRecord
from fedcl.runs.losses import LossListener, draw_losses
from fedcl.runs.pictures import draw_summaries

KEEP_SECONDS = 30.0  # about so much work is lost by a crash, unless checkpoint_every says otherwise


@dataclass(frozen=True, kw_only=True)
class DistillJob(Job):
    """Everything that decides one distillation and its evaluation."""

    distiller: Distiller = field(default_factory=Distiller)
    evaluation: Evaluation
    architectures: Mapping[str, Model] = field(default_factory=dict)  # what evaluation.architectures may name
    checkpoint_every: Annotated[int | None, whole(1, example=100)] = None  # steps; None: about half a minute's worth

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.evaluation.architectures:
            if name not in self.architectures:
                choices = ", ".join(self.architectures) or "none"
                raise ConfigError(f"evaluation.architectures: there is no '{name}'; choose among {choices}")

    @property
    def unused(self) -> set[str]:
        """Dotted names of the configuration that decide nothing in this job."""
        named = self.evaluation.architectures
        others = {f"architectures.{name}" for name in self.architectures if name not in named}
        return {f"distiller.{name}" for name in self.distiller.idle} | (others if named else {"architectures"})

    @property
    def decisive(self) -> dict[str, Any]:
        """The part of the configuration that decides the summary: a checkpoint of another is refused."""
        config = settings_of(self)
        dataset = {k: v for k, v in config.get("dataset", {}).items() if k not in ("root", "download")}
        own = {"seed": self.seed, "dataset": dataset, "evaluation": {"held_out": self.evaluation.held_out}}
        return own | {key: config.get(key) for key in ("model", "distiller")}


def run_distill(job: DistillJob, progress: Progress = SILENT) -> dict[str, Any]:
    """Run the job and return its record, which also lies in `job.out` with the summary and pictures.

    Raises:
        FedclError: the job cannot be done, or the distillation lost its way; the last good state is kept.
    """
    start = time.perf_counter()
    keep_large_blocks()
    run = _Run(job, progress, start)
    with open_folder(job.out):
        run.open()
        with run.failure_noted():
            run.estimate()
            run.evaluate(run.distill())
        run.close()
        return run.record


class _Run(RunRecord):
    """The record of one run as it grows."""

    job: DistillJob

    def __init__(self, job: DistillJob, progress: Progress, start: float) -> None:
        self.losses = LossListener(progress)
        super().__init__(job, self.losses, start)
        folder = job.evaluation.cache
        self.cache = None if folder is None else EvaluationCache(folder=typed_path("evaluation.cache", folder))
        data = load(job)
        self.ctx = Context(
            model=job.model,
            inputs=data.inputs,
            num_classes=data.num_classes,
            device=pick_device(job.device),
            progress=self.losses,
        )
        for model in (job.model, *(job.architectures[name] for name in job.evaluation.architectures)):
            replace(self.ctx, model=model).new_model(0)  # what cannot take these images says so now
        self.data = data.to(self.ctx.device)
        self.key = derive(job.seed, "distill")
        self.earlier = 0.0  # seconds of distillation in sessions that were interrupted
        self.begun = start
        self.store = FileKeeper(
            out=job.out,
            settings=job.decisive | {"data": digest_of(self.data.train.inputs, self.data.train.labels_N)},
            notes=lambda: {"losses": self.losses.points, "seconds": self.spent()},
        )

    def spent(self) -> float:
        """Seconds of distillation so far, in all sessions."""
        return self.earlier + time.perf_counter() - self.begun

    def open(self) -> None:
        """Check that the folder's checkpoint, if any, is of this job, and write the first record."""
        distiller, state = self.job.distiller, self.store.read()
        if state is not None:
            with as_data_error(self.store.damaged):
                self.earlier = float(self.store.found.get("seconds", 0))
                self.losses.points = [(int(step), float(loss)) for step, loss in self.store.found["losses"]]
                if not all(map(math.isfinite, (self.earlier, *(loss for _, loss in self.losses.points)))):
                    raise DataError("its seconds or its losses are not finite")
                if state.done > distiller.steps:
                    raise DataError(f"it says {state.done} of {distiller.steps} steps")
            self.progress.say(f"going on from step {state.done} of {distiller.steps}")
        self.record = self.first("distill") | {"distillation": {"method": distiller.name, "ipc": distiller.ipc}}
        self.record["config"] = with_protocol_at(self.record["config"], self.data.name, distiller.ipc)
        self.save()

    def estimate(self) -> None:
        """Say what the run will cost, and set how often its state is kept."""
        job, distiller = self.job, self.job.distiller
        found = estimate(distiller, self.data.train, self.key, self.ctx, job.evaluation)
        if job.checkpoint_every is not None:
            self.store.every = job.checkpoint_every
        elif found.step_seconds:
            self.store.every = max(1, round(KEEP_SECONDS / found.step_seconds))
        self.progress.say(describe(found, job))
        self.record["distillation"]["estimate"] = {
            "before_seconds": round(found.before_seconds, 3),
            "distill_seconds": round(found.step_seconds * distiller.steps, 3),
            "step_seconds": found.step_seconds,
            "peak_bytes": found.peak_bytes,
        }

    def distill(self) -> Summary:
        """Make the summary and write it, with its pictures."""
        out, points = self.job.out, self.losses.points
        self.begun = time.perf_counter()
        [summary] = self.job.distiller.distill([self.data.train], self.key, self.ctx, store=self.store)
        (out / "summaries").mkdir(exist_ok=True)
        training = self.record["config"].get("evaluation", {}).get("training")
        save_summary(summary, out / "summaries/summary.safetensors", training)
        draw_summaries([summary], out / "summaries.png", self.data.class_names)
        if points:
            draw_losses(points, out / "loss.png")
        blob = encode(summary)
        self.record["distillation"] |= {
            "bytes": blob.num_bytes,
            "payload_bytes": blob.parts,
            "decoded_images": summary.num_images,
            "seconds": round(self.spent(), 3),
            "sha256": summary.sha256(),
            "loss": [list(point) for point in points],
        }
        self.save()
        return summary

    def evaluate(self, summary: Summary) -> None:
        """Train networks on the summary and on its controls."""
        job, train, evaluation = self.job, self.data.train, self.job.evaluation
        evaluator = Evaluator(ctx=self.ctx, test=self.data.test, seed=derive(job.seed, "evaluation"), cache=self.cache)
        options = {"seed": derive(job.seed, "controls"), "nets": evaluation.nets, "pixels": evaluation.control_pixels}
        controls = [make_control(kind, summary, train, self.data.inputs, **options) for kind in evaluation.controls]
        models = {name: job.architectures[name] for name in evaluation.architectures}
        full = train if evaluation.full else None
        for part in evaluate_summary(summary, controls, evaluator, evaluation, models, full):
            self.record["distillation"] |= part
            self.save()

    def close(self) -> None:
        super().close()
        self.store.path.unlink(missing_ok=True)  # the state to go on from is not needed any more


def load(job: DistillJob) -> Dataset:
    """The data, or for choosing hyper-parameters the training set in two parts; ConfigError where it does not suit."""
    data = job.source.load()
    check_parts({"model": job.model, "distiller": job.distiller, "evaluation": job.evaluation}, data.inputs, job.unused)
    if job.evaluation.held_out:
        data = hold_out(data, job.evaluation.held_out, derive(job.seed, "held out"))
    fewest, label = data.train.counts_C.min(0)
    if job.distiller.ipc > int(fewest):
        raise ConfigError(
            f"distiller.ipc={job.distiller.ipc} is more than class '{data.class_names[int(label)]}' has "
            f"({int(fewest)} images); type distiller.ipc={int(fewest)} or less"
        )
    return data


def describe(found: Estimate, job: DistillJob) -> str:
    """One line: time and memory of what is about to happen."""
    evaluation = job.evaluation
    sets = (1 + len(evaluation.controls)) * (len(evaluation.trainings()) + len(evaluation.architectures))
    updates = sets * evaluation.nets * (evaluation.training.updates or 0)
    memory = f", {found.peak_bytes / 1e9:.2g} GB of memory" if found.peak_bytes else ""
    before = f"{_duration(found.before_seconds)} for networks trained beforehand, " if found.before_seconds else ""
    steps = f"{_duration(found.step_seconds * job.distiller.steps)} for {job.distiller.steps} steps"
    networks = f"{_duration(updates * found.update_seconds)} for {sets * evaluation.nets} networks"
    return f"estimate: about {before}{steps} and {networks}{memory}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
