"""Results of a run as objects: the network that it ended with, and the summaries that it left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fedcl.continual.contract import LearnerContext
from fedcl.core.checks import annotations_of
from fedcl.core.describe import GROUPS
from fedcl.core.errors import RunError
from fedcl.core.plugins import plugins_opened
from fedcl.core.progress import SILENT
from fedcl.core.record import read_record
from fedcl.core.targets import check_value, make
from fedcl.core.types import Summary
from fedcl.data.base import DataSource
from fedcl.distill.context import Context
from fedcl.distill.files import load_summary
from fedcl.memory.buffer import Budget
from fedcl.memory.files import load_buffer
from fedcl.runs.checkpoint import read_checkpoint, unpack_server, unpack_state
from fedcl.runs.continual import MEMORY, ContinualJob
from fedcl.runs.continual_pictures import memory_of
from fedcl.runs.distill import DistillJob
from fedcl.runs.federated import FederatedJob

JOBS = {"federated": FederatedJob, "continual": ContinualJob, "distill": DistillJob}


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One run: its folder and its record."""

    path: Path
    record: Mapping[str, Any]  # as in record.json
    plugins: tuple[str, ...] = ()  # packages whose classes it may name

    def job(self) -> Any:
        """The job that the record describes; `out` is the run's folder. What decided nothing has its default.

        Raises:
            FedclError: the record names a class that no field takes, or one of a plug-in that was not named.
        """
        kind = JOBS[self.record["verb"]]
        hints = annotations_of(kind)
        config = self.record["config"]
        keys = {name: GROUPS.get(name, name) for name in hints if name != "choices"}
        keys = {name: key for name, key in keys.items() if key in config}
        with plugins_opened(self.plugins):
            for name, key in keys.items():
                check_value(config[key], hints[name], key)
            made = {name: make(config, key) for name, key in keys.items()}
        if kind is ContinualJob:
            made.setdefault("budget", Budget(ipc=1))  # of a learner that keeps nothing
        return kind(**made, out=self.path, choices=config.get("choices"))

    def model(self, source: DataSource | None = None) -> nn.Module:
        """The network that the run ended with, on the job's device.

        Args:
            source: the data set, where it does not lie any more where the run had it.

        Raises:
            RunError: the run trained no network, or its checkpoint is gone.
            DataError: the data set is not there, which says what the network's inputs and classes are.
        """
        job = self.job()
        return trained_model(job if source is None else replace(job, source=source))

    def summaries(self) -> list[Summary]:
        """Summaries that the run left: one a client, one of a distillation, or the decoded memory of a learner.

        Raises:
            RunError: the run left none.
            DataError: a file is damaged.
        """
        files = sorted((self.path / "summaries").glob("*.safetensors"))
        if files:
            return [load_summary(file) for file in files]
        if (self.path / MEMORY).is_file():
            return [memory_of(load_buffer(self.path / MEMORY))]
        raise RunError(f"{self.path} has no summaries: its method keeps and sends none")


def trained_model(job: Any) -> nn.Module:
    """The network of the last state in `job.out`, on the job's device.

    Raises:
        RunError: such a run trains no network, or its checkpoint is gone.
        DataError: the data set is not there.
    """
    if isinstance(job, DistillJob):
        raise RunError(f"{job.out} is a distillation: it leaves summaries and no network")
    checkpoint, data = read_checkpoint(job.out), job.source.load()
    if isinstance(job, FederatedJob):
        return job.strategy.model(unpack_server(checkpoint), job.make_context(Context, data, SILENT))
    ctx = job.make_context(LearnerContext, data, SILENT, budget=job.budget)
    return job.strategy.model(unpack_state(checkpoint), ctx)


def load_run(folder: str | Path, plugins: Sequence[str] = ()) -> FinishedRun:
    """A finished run: `load_run("runs/a").model()`, `.summaries()`, `.record`, `.job()`.

    Args:
        plugins: packages of your own that the run used, where no entry point and no FEDCL_PLUGINS names them.

    Raises:
        RunError: there is none in the folder, or it is not finished.
    """
    record = read_record(Path(folder))
    if not record.get("finished"):
        raise RunError(f"{folder} holds an unfinished run; the command that began it goes on with it")
    return FinishedRun(path=Path(folder), record=record, plugins=tuple(plugins))
