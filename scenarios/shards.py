"""Pathological label skew: every client holds exactly c classes.

Sources: McMahan et al., AISTATS 2017, section 3 (two label-sorted shards a client;
https://arxiv.org/abs/1602.05629); Li et al., NIID-Bench, ICDE 2022, "quantity-based label imbalance" (#C = c:
the examples of a class are cut into equal parts, one for each of its holders;
https://arxiv.org/abs/2102.02079). Two shards of the first may fall into one class; here, as in the second,
the c classes of a client always differ.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.rules import whole
from fedcl.scenario.base import Indices, Partition
from scenarios.partition_utils import assign_counts, proportional_counts


@dataclass(frozen=True, kw_only=True)
class Shards(Partition):
    """Each client in turn takes the c classes with the fewest holders so far, ties broken at random.

    So the numbers of holders of two classes differ by at most one, and the split is exhaustive.
    """

    classes_per_client: Annotated[int, whole(1, example=2)]  # c: classes that every client holds

    @property
    def name(self) -> str:
        return f"shards(classes_per_client={self.classes_per_client})"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        sizes_C = np.bincount(labels_N, minlength=num_classes)
        present = np.flatnonzero(sizes_C)
        if self.classes_per_client > len(present):
            raise ScenarioError(
                f"scenario.classes_per_client={self.classes_per_client} but there are {len(present)} classes; "
                f"type scenario.classes_per_client={len(present)} or less"
            )
        if self.num_clients * self.classes_per_client < len(present):
            raise ScenarioError(
                f"{self.num_clients} clients of {self.classes_per_client} classes cannot hold all {len(present)} "
                f"classes; type scenario.num_clients={-(-len(present) // self.classes_per_client)} or "
                f"scenario.classes_per_client={-(-len(present) // self.num_clients)} (or more)"
            )
        holds_KC = np.zeros((self.num_clients, num_classes), dtype=bool)
        for client in range(self.num_clients):
            ties = rng.permutation(len(present))
            order = np.lexsort((ties, holds_KC[:, present].sum(axis=0)))
            holds_KC[client, present[order[: self.classes_per_client]]] = True
        counts_KC = np.zeros((self.num_clients, num_classes), dtype=np.int64)
        for label in present:
            holders = np.flatnonzero(holds_KC[:, label])
            if sizes_C[label] < len(holders):
                raise ScenarioError(
                    f"class {label} has {sizes_C[label]} examples for {len(holders)} clients; type fewer "
                    "scenario.num_clients or a smaller scenario.classes_per_client"
                )
            counts_KC[rng.permutation(holders), label] = proportional_counts(sizes_C[label], np.ones(len(holders)))
        return assign_counts(labels_N, counts_KC, rng)
