"""Trackers: TensorBoard and Weights & Biases show the rows of record.json as they are written.

A tracker is a listener (`fedcl/core/progress.py`), so it cannot change a result, and a run does not know of it.
The record stays the source of truth: a resumed run shows its earlier rounds again, from the record.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar

from fedcl import DISTRIBUTION
from fedcl.core.errors import ConfigError
from fedcl.core.progress import SILENT, Progress
from fedcl.core.rules import Checked, one_of


class Follower(Progress, ABC):
    """Shows every row of the record, once. One that fails is given up; the run goes on."""

    def __init__(self, tracker: Any, module: Any, out: Path, fallback: Progress) -> None:
        self.tracker, self.module, self.out, self.fallback = tracker, module, out, fallback
        self.started = self.given_up = False
        self.done, self.total = 0, 0  # rows so far, and wire bytes of their rounds
        self.last: Mapping[str, Any] = {}

    @abstractmethod
    def start(self, record: Mapping[str, Any]) -> None:
        """Begin to show a run whose folder is there."""

    @abstractmethod
    def put(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one round (federated), step (continual) or update (distill)."""

    @abstractmethod
    def finish(self, record: Mapping[str, Any]) -> None:
        """The run is over: finished, failed or interrupted."""

    def wrote(self, record: Mapping[str, Any]) -> None:
        self.last = dict(record)
        self._try(self._show)

    def close(self) -> None:
        if self.started:
            self._try(lambda: self.finish(self.last))

    def _show(self) -> None:
        if not self.started:
            self.start(self.last)
            self.started = True
        for step, values in rows(self.last, self.done, self.total):
            self.put(step, values)
            self.done, self.total = self.done + 1, int(values.get("total_bytes", 0))

    def _try(self, work: Callable[[], None]) -> None:
        if self.given_up:
            return
        try:
            work()
        except Exception as error:  # a full disk, a lost network: the record has it all
            self.given_up = True
            self.fallback.say(f"the tracker gave up and the run goes on: {type(error).__name__}: {error}")


@dataclass(frozen=True, kw_only=True)
class Tracker(Checked):
    """One option of `tracker=`."""

    config_key = "tracker"

    needs: ClassVar[tuple[str, str]]  # the module that must be there, and the extra of fedcl that brings it
    follower: ClassVar[type[Follower]]

    @contextmanager
    def follow(self, out: Path, fallback: Progress = SILENT) -> Iterator[Progress]:
        """A listener that shows the run in `out` until the block ends; nothing happens before its first record.

        Args:
            fallback: hears why the tracker gave up, if it does; the run goes on.

        Raises:
            ConfigError: the package is not installed.
        """
        name, extra = self.needs
        try:
            module = import_module(name)
        except ImportError:
            raise ConfigError(
                f"tracker={extra} needs a package that is not installed; type pip install '{DISTRIBUTION}[{extra}]', "
                "or leave the tracker out: record.json has all of it"
            ) from None
        follower = self.follower(self, module, out, fallback)
        try:
            yield follower
        finally:
            follower.close()


def rows(record: Mapping[str, Any], start: int = 0, total: int = 0) -> list[tuple[int, dict[str, float]]]:
    """(round, step or update; its numbers) of a record, in order.

    `start` rows were seen before and are left out; `total` are the wire bytes of the rounds among them.
    """
    found: list[tuple[int, dict[str, float]]] = []
    for row in record.get("rounds", [])[start:]:
        up, down = row["up"]["wire_bytes"], row["down"]["wire_bytes"]
        total += up + down
        values: dict[str, float] = {} if row["accuracy"] is None else {"accuracy": row["accuracy"]}
        values |= {"failed_clients": len(row["failed"]), "up_bytes": up, "down_bytes": down, "total_bytes": total}
        found.append((row["round"], values))
    for row in record.get("steps", [])[start:]:
        found.append((row["step"], {key: row[key] for key in ("accuracy", "bytes", "images") if key in row}))
    for step, loss in record.get("distillation", {}).get("loss", [])[start:]:
        found.append((step, {"loss": loss}))
    return found


def results(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that stand for a whole run."""
    found = {f"accuracy/{name}": value for name, value in record.get("accuracy", {}).items()}
    if "communication" in record:
        found["communication/total_wire_bytes"] = record["communication"]["total_wire_bytes"]
    found |= {f"continual/{k}": v for k, v in record.get("continual", {}).items() if isinstance(v, int | float)}
    distilled = record.get("distillation", {})
    if "accuracy" in distilled:
        found |= {"distillation/accuracy": distilled["accuracy"]["mean"], "distillation/bytes": distilled["bytes"]}
    return found


class _Events(Follower):
    def start(self, record: Mapping[str, Any]) -> None:
        folder = self.out / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):  # of the session before: the record has its rounds
            old.unlink()
        self.writer = self.module.SummaryWriter(str(folder))
        self.writer.add_text("config", f"```\n{json.dumps(record['config'], indent=1)}\n```")

    def put(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, record: Mapping[str, Any]) -> None:
        for name, value in results(record).items():
            self.writer.add_scalar(f"result/{name}", value, 0)
        self.writer.close()


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """Event files in `OUT/tensorboard`; look with `tensorboard --logdir runs`."""

    needs = ("torch.utils.tensorboard", "tensorboard")
    follower = _Events


class _Run(Follower):
    def start(self, record: Mapping[str, Any]) -> None:
        of_run = {"name": self.out.name, "dir": str(self.out), "job_type": record["verb"]}
        self.run = self.module.init(**asdict(self.tracker), **of_run, config=dict(record["config"]))

    def put(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, record: Mapping[str, Any]) -> None:
        self.run.summary.update(results(record))
        self.run.finish(exit_code=0 if record.get("finished") else 1)


@dataclass(frozen=True, kw_only=True)
class WandB(Tracker):
    """A run of Weights & Biases; where it is sent, and as whom, is the package's own business."""

    needs = ("wandb", "wandb")
    follower = _Run

    project: str = "fedcl"
    group: str | None = None  # e.g. the name of a sweep
    # online, offline, disabled; None: as the package is set up
    mode: Annotated[str | None, one_of("online", "offline", "disabled")] = None
