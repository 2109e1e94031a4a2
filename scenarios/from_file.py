"""A scenario that was dealt before: the same rows, steps and clients, whatever the run's seed.

Every run over a grid leaves such a file (`partition.json`); `fedcl.scenario.files` says what is in it, for those who
write one themselves.
"""

from dataclasses import dataclass
from pathlib import Path

from fedcl.core.errors import ScenarioError
from fedcl.scenario.base import Labels, Recipe, Scenario
from fedcl.scenario.files import PARTITION, read_scenario


@dataclass(frozen=True, kw_only=True)
class FromFile(Recipe):
    """The file says everything; a seed has no part in it."""

    path: str | None = None  # the file

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None:
            raise ScenarioError("scenario.seed deals nothing where the scenario comes from a file; leave it null")

    def build(self, labels: Labels, seed: int) -> Scenario:
        if self.path is None:
            raise ScenarioError(f"scenario=from_file needs the file; type scenario.path=RUN/{PARTITION}")
        return read_scenario(Path(self.path).expanduser(), labels)
