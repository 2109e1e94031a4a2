"""What federated and continual jobs share: their fields, and what is made of them before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fedcl.continual.contract import Strategy as ContinualStrategy
from fedcl.core.compute import pick_device, settle_threads
from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, RunError
from fedcl.core.inputs import check_parts
from fedcl.core.progress import Progress
from fedcl.core.record import versions
from fedcl.data.base import Dataset, DataSource
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.contract import Strategy as FederatedStrategy
from fedcl.models.base import Model
from fedcl.scenario.base import Recipe, Scenario
from fedcl.scenario.files import PARTITION, write_scenario

AnyContext = TypeVar("AnyContext", bound=Context)


@dataclass(frozen=True, kw_only=True)
class GridJob:
    """The fields of a run over a table of steps and clients, whoever learns in it."""

    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    source: DataSource
    model: Model
    recipe: Recipe
    strategy: FederatedStrategy | ContinualStrategy
    distiller: Distiller = field(default_factory=Distiller)  # only strategies that make summaries use it
    out: Path  # folder of the run
    choices: Mapping[str, str] | None = None  # group -> option as typed, for names; None: those that come nearest
    command: list[str] = field(default_factory=list)  # as typed

    @property
    def unused(self) -> set[str]:
        """Dotted names of the configuration that decide nothing in this job."""
        own = {*self.strategy.unused, "distiller.published", "distiller.published_protocol"}
        if own.isdisjoint(("distiller.objective", "distiller.steps")):  # else the strategy says what is optimised
            own |= {f"distiller.{name}" for name in self.distiller.idle}
        return own

    def load(self) -> tuple[Dataset, Scenario]:
        """The data, and who holds which part of it at which step.

        Raises:
            FedclError: one of them cannot be made.
        """
        data = self.source.load()
        check_parts(
            {"model": self.model, "distiller": self.distiller, "strategy": self.strategy}, data.inputs, self.unused
        )
        settle_threads(data.inputs.shape)
        scenario = self.recipe.deal(data.labels, self.seed)
        if not data.inputs.is_image and any((*scenario.transforms, *scenario.group_transforms)):
            raise ConfigError(
                f"scenario '{scenario.name}' changes images, and the data are rows of {data.inputs.shape[0]} numbers; "
                "type scenario=class_incremental, or another that changes nothing"
            )
        return data, scenario

    def check_same(self, record: Mapping[str, Any], scenario: Scenario) -> None:
        """Raise RunError where an unfinished run dealt something else: the data or a partition file changed since."""
        before = record["scenario"]["sha256"]
        if before != scenario.sha256:
            raise RunError(
                f"out={self.out} holds an unfinished run whose partition has the sha256 {before[:12]}, and now it is "
                f"{scenario.sha256[:12]}: the data or the partition's file changed; choose another out=..."
            )

    def make_context(self, kind: type[AnyContext], data: Dataset, progress: Progress, **own: Any) -> AnyContext:
        """Context of a run; `own` are the fields that the other verb does not have.

        Raises:
            FedclError: there is no such device, or the architecture cannot take these images.
        """
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

    def first_record(self, verb: str, data: Dataset, scenario: Scenario, **about: Any) -> dict[str, Any]:
        """The record before anything was learned, with the scenario in a file beside it.

        `about` is what else it says of the scenario.
        """
        write_scenario(self.out / PARTITION, scenario, data.labels)
        return {
            "verb": verb,
            "finished": False,
            "command": self.command,
            "config": settings_of(self),
            "seed": self.seed,
            "versions": versions(settings_of(self)),
            "seconds": 0.0,
            "scenario": {
                "name": scenario.name,
                "sha256": scenario.sha256,
                "file": PARTITION,
                "num_clients": scenario.num_clients,
                "num_steps": scenario.num_steps,
                **about,
            },
        }
