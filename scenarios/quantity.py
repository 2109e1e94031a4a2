"""Quantity skew: clients of very different sizes, each an IID sample.

Source: Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench), ICDE
2022, section "Quantity Skew" (q ~ Dir(beta) over clients); https://arxiv.org/abs/2102.02079.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.rules import number, whole
from fedcl.scenario.base import Indices, Partition
from scenarios.partition_utils import check_enough, redraw, split_by_proportions


@dataclass(frozen=True, kw_only=True)
class Quantity(Partition):
    """Sizes ~ Dirichlet(alpha), drawn again until each client has `min_size` examples. Exhaustive."""

    alpha: Annotated[float, number(above=0, example=0.5)]  # concentration over clients; smaller = sizes further apart
    min_size: Annotated[int, whole(1, example=10)] = 10  # fewest examples of a client
    max_tries: Annotated[int, whole(1, example=1000)] = 1000  # draws before giving up

    @property
    def name(self) -> str:
        return f"quantity(alpha={self.alpha:g})"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        check_enough(len(labels_N), self.num_clients, self.min_size)
        concentrations_K = np.full(self.num_clients, self.alpha)
        sizes_K = redraw(
            lambda: split_by_proportions(len(labels_N), rng.dirichlet(concentrations_K)),
            self,
            "a smaller scenario.min_size, or fewer scenario.num_clients",
        )
        return np.split(rng.permutation(len(labels_N)), np.cumsum(sizes_K)[:-1])
