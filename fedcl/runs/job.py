"""What jobs share: their fields, what is made of them before the first step, and the record that they leave."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fedcl.continual.contract import Strategy as ContinualStrategy
from fedcl.core.compute import pick_device, settle_threads
from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, FedclError, RunError
from fedcl.core.inputs import check_parts
from fedcl.core.journal import Journal
from fedcl.core.progress import Progress
from fedcl.core.record import ROWS, head_of, versions, write_record
from fedcl.core.rules import Checked, whole
from fedcl.data.base import Dataset, DataSource
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.contract import Strategy as FederatedStrategy
from fedcl.models.base import Model
from fedcl.runs.checkpoint import Checkpoint, begin, resume_rows, write_checkpoint
from fedcl.runs.matrix import Columns
from fedcl.scenario.base import Recipe, Scenario
from fedcl.scenario.files import PARTITION, write_scenario

AnyContext = TypeVar("AnyContext", bound=Context)


@dataclass(frozen=True, kw_only=True)
class Job(Checked):
    """The fields of every job."""

    seed: Annotated[int, whole(0, example=0)] = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    source: DataSource
    model: Model
    out: Path  # folder of the run
    choices: Mapping[str, str] | None = None  # group -> option as typed, for names; None: those that come nearest
    command: list[str] = field(default_factory=list)  # as typed


@dataclass(frozen=True, kw_only=True)
class GridJob(Job):
    """The fields of a run over a table of steps and clients, whoever learns in it."""

    recipe: Recipe
    strategy: FederatedStrategy | ContinualStrategy
    distiller: Distiller = field(default_factory=Distiller)  # only strategies that make summaries use it

    @property
    def unused(self) -> set[str]:
        """Dotted names of the configuration that decide nothing in this job."""
        own = {*self.strategy.unused, "distiller.published", "distiller.published_protocol"}
        if own.isdisjoint(("distiller.objective", "distiller.steps")):  # else the strategy says what is optimised
            own |= {f"distiller.{name}" for name in self.distiller.idle}
        return own

    def load(self) -> tuple[Dataset, Scenario]:
        """The data, and who holds which part of it at which step; FedclError where one of them cannot be made."""
        data = self.source.load()
        parts = {name: getattr(self, name) for name in ("model", "distiller", "strategy")}
        check_parts(parts, data.inputs, self.unused)
        settle_threads(data.inputs.shape)
        scenario = self.recipe.deal(data.labels, self.seed)
        if not data.inputs.is_image and any((*scenario.transforms, *scenario.group_transforms)):
            raise ConfigError(
                f"scenario '{scenario.name}' changes images, and the data are rows of {data.inputs.shape[0]} numbers; "
                "type scenario=class_incremental, or another that changes nothing"
            )
        return data, scenario

    def make_context(self, kind: type[AnyContext], data: Dataset, progress: Progress, **own: Any) -> AnyContext:
        """Context of a run; `own` are the fields that the other verb does not have."""
        ctx = kind(
            seed=self.seed,
            model=self.model,
            distiller=self.distiller,
            inputs=data.inputs,
            num_classes=data.num_classes,
            device=pick_device(self.device),
            progress=progress,
            **own,
        )
        ctx.new_model(0)  # an architecture that cannot take these images says so now
        return ctx


class RunRecord:
    """The record of one run as it grows."""

    def __init__(self, job: Job, progress: Progress, start: float) -> None:
        self.job, self.progress, self.start = job, progress, start
        self.before = 0.0  # seconds of its earlier sessions
        self.record: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        """Wall time of all sessions of the run."""
        return round(self.before + time.perf_counter() - self.start, 3)

    def first(self, verb: str) -> dict[str, Any]:
        """The parts that every record begins with."""
        config = settings_of(self.job)
        own = {"config": config, "seed": self.job.seed, "versions": versions(config), "seconds": 0.0}
        return {"verb": verb, "finished": False, "command": self.job.command, **own}

    def save(self, *, rows: bool = True, **more: str) -> dict[str, Any]:
        """Write the record and `more` beside it, without its rows while the run goes on; return what was written."""
        self.record["seconds"] = self.seconds
        written = (self.record if rows else head_of(self.record)) | more
        write_record(self.job.out, written)
        self.progress.wrote(self.record)
        return written

    @contextmanager
    def failure_noted(self) -> Iterator[None]:
        """Keep in the record why the block could not be done."""
        try:
            yield
        except FedclError as error:
            self.save(failure=str(error))
            raise

    def close(self) -> None:
        """Write the finished record."""
        self.record["finished"] = True
        self.save()


class GridRecord(RunRecord):
    """The record of a run over steps and clients, whose rows lie in a journal until it is finished."""

    def __init__(self, job: GridJob, data: Dataset, scenario: Scenario, ctx: Context, start: float) -> None:
        super().__init__(job, ctx.progress, start)
        self.data, self.scenario, self.ctx = data, scenario, ctx
        self.columns = Columns(data, data.test.to(ctx.device), scenario)
        self.rows = Journal(job.out / ROWS)

    def begin(self) -> tuple[int, Any]:
        """How many steps (or rounds) are done, and the state after them; RunError where others were begun here."""
        checkpoint = begin(self.job.out, settings_of(self.job))
        return (0, self.open()) if checkpoint is None else (checkpoint.done, self.reopen(checkpoint))

    def open(self) -> Any:
        """Write the first record; the state before the first step."""
        raise NotImplementedError

    def reopen(self, checkpoint: Checkpoint) -> Any:
        """Take up record and rows of a checkpoint, of which subclasses return the state; RunError for other shares."""
        before, now = checkpoint.record["scenario"]["sha256"], self.scenario.sha256
        if before != now:
            raise RunError(
                f"out={self.job.out} holds an unfinished run whose partition has the sha256 {before[:12]}, and now it "
                f"is {now[:12]}: the data or the partition's file changed; choose another out=..."
            )
        self.record = resume_rows(checkpoint, self.rows)
        self.before = self.record["seconds"]

    def first(self, verb: str, **about: Any) -> dict[str, Any]:
        """The record before anything was learned, with the scenario, of which it also says `about`, in a file."""
        write_scenario(self.job.out / PARTITION, self.scenario, self.data.labels)
        grid = {"name": self.scenario.name, "sha256": self.scenario.sha256, "file": PARTITION}
        sizes = {"num_clients": self.scenario.num_clients, "num_steps": self.scenario.num_steps}
        return super().first(verb) | {"scenario": grid | sizes | about}

    def keep(
        self, done: int, packed: tuple[Mapping[str, Any], Mapping[str, Any]], *more: Journal, **about: Any
    ) -> None:
        """Write the checkpoint of a step or round, and the record without its rows: nothing here grows with them."""
        head, marks = self.save(rows=False), {journal.path.name: journal.mark() for journal in (*more, self.rows)}
        tensors, own = packed
        kept = Checkpoint(done=done, record=head, tensors=tensors, about={**own, **about}, marks=marks)
        write_checkpoint(self.job.out, kept)

    def close(self) -> None:
        super().close()
        self.rows.path.unlink(missing_ok=True)  # the record has them now
