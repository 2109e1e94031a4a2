"""Quantity skew: clients of very different sizes, each an IID sample.

Source: Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench), ICDE
2022, section "Quantity Skew" (q ~ Dir(beta) over clients); https://arxiv.org/abs/2102.02079.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.scenario.base import Indices, Partition
from scenarios.checks import check_enough, check_number, check_whole
from scenarios.partition_utils import split_by_proportions


@dataclass(frozen=True, kw_only=True)
class Quantity(Partition):
    """Sizes ~ Dirichlet(alpha), drawn again until each client has `min_size` examples. Exhaustive."""

    num_clients: int  # number of clients, >= 1
    alpha: float  # Dirichlet concentration over clients, > 0; smaller = sizes further apart
    min_size: int = 10  # fewest examples of a client, >= 1
    max_tries: int = 1000  # draws before giving up, >= 1

    def __post_init__(self) -> None:
        check_whole("scenario.num_clients", self.num_clients, least=1, example=10)
        check_number("scenario.alpha", self.alpha, above=0, example=0.5)
        check_whole("scenario.min_size", self.min_size, least=1, example=10)
        check_whole("scenario.max_tries", self.max_tries, least=1, example=1000)

    @property
    def name(self) -> str:
        return f"quantity(alpha={self.alpha:g})"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        check_enough(len(labels_N), self.num_clients, self.min_size)
        for _ in range(self.max_tries):
            sizes_K = split_by_proportions(len(labels_N), rng.dirichlet(np.full(self.num_clients, self.alpha)))
            if sizes_K.min() >= self.min_size:
                parts = np.split(rng.permutation(len(labels_N)), np.cumsum(sizes_K)[:-1])
                return [np.sort(part).astype(np.int64) for part in parts]
        raise ScenarioError(
            f"none of {self.max_tries} draws gave each of {self.num_clients} clients {self.min_size} "
            f"examples with alpha={self.alpha:g}; type a larger scenario.alpha (e.g. {2 * self.alpha:g}), "
            "a smaller scenario.min_size, or fewer scenario.num_clients"
        )
