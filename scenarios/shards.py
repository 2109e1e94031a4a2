"""Pathological label skew: every client holds exactly c classes.

Sources: McMahan et al., AISTATS 2017, section 3 (two label-sorted shards a client;
https://arxiv.org/abs/1602.05629); Li et al., NIID-Bench, ICDE 2022, "quantity-based label imbalance" (#C = c:
the examples of a class are cut into equal parts, one for each of its holders;
https://arxiv.org/abs/2102.02079). Two shards of the first may fall into one class; here, as in the second,
the c classes of a client always differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.scenario.base import Indices, Partition
from scenarios.checks import check_whole
from scenarios.partition_utils import assign_counts


@dataclass(frozen=True, kw_only=True)
class Shards(Partition):
    """Each client in turn takes the c classes with the fewest holders so far, ties broken at random.

    So the numbers of holders of two classes differ by at most one, and the split is exhaustive.
    """

    num_clients: int  # number of clients, >= 1
    classes_per_client: int  # c: classes that every client holds, >= 1

    def __post_init__(self) -> None:
        check_whole("scenario.num_clients", self.num_clients, least=1, example=10)
        check_whole("scenario.classes_per_client", self.classes_per_client, least=1, example=2)

    @property
    def name(self) -> str:
        return f"shards(classes_per_client={self.classes_per_client})"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        sizes_C = np.bincount(labels_N, minlength=num_classes)
        present = np.flatnonzero(sizes_C)
        self._check(len(present))
        holds_KC = np.zeros((self.num_clients, num_classes), dtype=bool)
        for client in range(self.num_clients):
            ties = rng.permutation(len(present))
            order = np.lexsort((ties, holds_KC[:, present].sum(axis=0)))
            holds_KC[client, present[order[: self.classes_per_client]]] = True
        holders_C = holds_KC.sum(axis=0)
        short = present[sizes_C[present] < holders_C[present]]
        if len(short):
            label = int(short[0])
            raise ScenarioError(
                f"class {label} has {sizes_C[label]} examples for {holders_C[label]} clients; type fewer "
                "scenario.num_clients or a smaller scenario.classes_per_client"
            )
        counts_KC = np.zeros((self.num_clients, num_classes), dtype=np.int64)
        for label in present:
            holders = np.flatnonzero(holds_KC[:, label])
            parts = np.array_split(np.arange(sizes_C[label]), len(holders))
            counts_KC[rng.permutation(holders), label] = [len(part) for part in parts]
        return assign_counts(labels_N, counts_KC, rng)

    def _check(self, num_present: int) -> None:
        if self.classes_per_client > num_present:
            raise ScenarioError(
                f"scenario.classes_per_client={self.classes_per_client} but there are {num_present} classes; "
                f"type scenario.classes_per_client={num_present} or less"
            )
        if self.num_clients * self.classes_per_client < num_present:
            raise ScenarioError(
                f"{self.num_clients} clients of {self.classes_per_client} classes cannot hold all "
                f"{num_present} classes; "
                f"type scenario.num_clients={-(-num_present // self.classes_per_client)} or "
                f"scenario.classes_per_client={-(-num_present // self.num_clients)} (or more)"
            )
