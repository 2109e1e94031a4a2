"""The accuracy matrix of a run: its columns, its rows, and what follows from them for the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fedcl.data.base import Dataset
from fedcl.data.cells import group_sets
from fedcl.evaluation import accuracy
from fedcl.metrics import Matrix, continual_part
from fedcl.scenario import Labels, Scenario
from fedcl.types import LabeledSet, Normalization


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The groups of test images of a scenario."""

    groups: Sequence[LabeledSet]
    first_G: np.ndarray  # int64 [groups], the step at which each is first seen
    scenario: Scenario
    labels: Labels
    normalization: Normalization

    @classmethod
    def of(cls, data: Dataset, test: LabeledSet, scenario: Scenario) -> Columns:
        """`test` is the data's test set, on the device."""
        return cls(
            groups=group_sets(test, scenario),
            first_G=scenario.first_steps(data.labels),
            scenario=scenario,
            labels=data.labels,
            normalization=data.normalization,
        )

    def about(self) -> dict[str, Any]:
        """What the record's `scenario` part says of them."""
        return {"groups": list(self.scenario.group_names), "first_steps": self.first_G.tolist()}

    def row(self, model: nn.Module) -> list[float]:
        """Accuracy of `model` on every group."""
        return [accuracy(model, group, self.normalization) for group in self.groups]

    def part(self, matrix: Matrix, random_accuracy: Sequence[float]) -> dict[str, Any]:
        """The record's `continual` part, group-weighted, with the two averages by samples too."""
        options = {"first_step_of_group": self.first_G, "random_accuracy": random_accuracy}
        part = continual_part(matrix, **options)
        weighted = continual_part(matrix, **options, group_sizes=[len(group) for group in self.groups])
        names = ("average_accuracy", "average_incremental_accuracy")
        return part | {"by_samples": {name: weighted[name] for name in names}}

    def by_client(self, matrix: Matrix) -> list[dict[str, Any]]:
        """The global model's figures on what each client itself has seen, from its own first steps."""
        figures = []
        for client in range(self.scenario.num_clients):
            first = self.scenario.first_steps(self.labels, client=client)
            part = continual_part(matrix, first_step_of_group=first)
            names = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")
            figures.append({"client": client, **{name: part[name] for name in names}})
        return figures
