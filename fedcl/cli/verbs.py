"""The verbs of the command line as a table that names its modules and imports none of them."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Verb:
    """One command that runs something: its job and runner are in `fedcl/runs/<name>.py`, its keys in `configs/`."""

    name: str
    summary: str  # one line of help

    @property
    def module(self) -> str:
        return f"fedcl.runs.{self.name}"

    @property
    def job(self) -> Any:
        """The frozen dataclass of what to run."""
        return getattr(import_module(self.module), f"{self.name.title()}Job")

    @property
    def run(self) -> Any:
        """The function (job, progress) -> record."""
        return getattr(import_module(self.module), f"run_{self.name}")


_SUMMARIES = {
    "federated": "clients that send summaries (or weights) to a server",
    "continual": "a stream of classes or domains, and a learner with a distilled buffer",
    "distill": "one summary of a training set, judged beside real images of equal bytes",
}
VERBS = {name: Verb(name, summary) for name, summary in _SUMMARIES.items()}
