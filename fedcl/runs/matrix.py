"""The accuracy matrix of a run: its columns, its rows, and what follows from them for the record."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from fedcl.core.types import LabeledSet
from fedcl.data.base import Dataset
from fedcl.data.sharded import group_sets
from fedcl.scenario.base import Scenario
from fedcl.scenario.metrics import Matrix, continual_part
from fedcl.training.evaluation import correct

AVERAGES = ("average_accuracy", "average_incremental_accuracy")
BY_CLIENT = (*AVERAGES, "forgetting", "backward_transfer")


class Columns:
    """The groups of test images of a scenario; `test` is the data's test set, on the device."""

    def __init__(self, data: Dataset, test: LabeledSet, scenario: Scenario) -> None:
        self.data, self.scenario, self.groups = data, scenario, group_sets(test, scenario)
        self.first_G = scenario.first_steps(data.labels)  # int64 [groups], the step at which each is first seen
        counts_T = [scenario.counts(data.labels.train_N, step).sum(0) for step in range(scenario.num_steps)]
        self.held_TC = np.stack(counts_T) > 0  # bool [steps, classes], which classes each step brings
        own_G = [np.unique(data.labels.test_N[rows]) for rows in scenario.groups]
        both = zip(self.first_G, own_G, strict=True)
        # bool [groups], whether steps before that one held all of its classes
        self.known_G = np.array([np.any(self.held_TC[:first, own], axis=0).all() for first, own in both], dtype=bool)

    def about(self) -> dict[str, Any]:
        """Entries of the record's `scenario` part."""
        return {"groups": list(self.scenario.group_names), "first_steps": self.first_G.tolist()}

    def look(self, model: nn.Module) -> tuple[list[float], float]:
        """Accuracy of `model` on every group, and over all of their images: the headline of a run.

        Where groups part the test set, as in class streams, the headline is the accuracy on the test set; of domains
        it is the mean over their looks of it.
        """
        right_G = [int(correct(model, group, self.data.inputs).sum()) for group in self.groups]
        row = [right / max(1, len(group)) for right, group in zip(right_G, self.groups, strict=True)]
        return row, sum(right_G) / max(1, sum(map(len, self.groups)))

    def part(self, matrix: Matrix, random_accuracy: Sequence[float]) -> dict[str, Any]:
        """The record's `continual` part, group-weighted, with the two averages by samples too.

        Forward transfer is of groups whose classes were known before, in another look: a class that no step has
        brought is never answered, so that its accuracy before is 0 whatever was learned.
        """
        baseline = np.where(self.known_G, random_accuracy, np.nan)
        options = {"first_step_of_group": self.first_G, "random_accuracy": baseline}
        part = continual_part(matrix, **options)
        weighted = continual_part(matrix, **options, group_sizes=[len(group) for group in self.groups])
        return part | {"by_samples": {name: weighted[name] for name in AVERAGES}}

    def by_client(self, matrix: Matrix) -> list[dict[str, Any]]:
        """The global model's figures on what each client itself has seen, from its own first steps."""
        figures = []
        for client in range(self.scenario.num_clients):
            first = self.scenario.first_steps(self.data.labels, client=client)
            part = continual_part(matrix, first_step_of_group=first)
            figures.append({"client": client, **{name: part[name] for name in BY_CLIENT}})
        return figures
