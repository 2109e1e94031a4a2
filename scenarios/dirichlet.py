"""Label skew from a Dirichlet distribution, by two recipes that papers both call "Dir(alpha)".

`niid_bench`: Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022,
https://arxiv.org/abs/2102.02079 (also FedDM, DENSE). Class by class, proportions over the clients that do not
yet hold N/K examples; all drawn again until each client has `min_size`. The field draws over all clients,
sets the full ones to 0 and normalises; a part of a Dirichlet vector, normalised, is again Dirichlet, so
drawing over the others alone is the same law without a division by zero.

`balanced`: Pi et al., "DynaFed", CVPR 2023, https://arxiv.org/abs/2211.10878. Proportions class by class,
then made doubly stochastic (Sinkhorn & Knopp 1967), so that clients are of equal size.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.rules import number, one_of, whole
from fedcl.scenario.base import Indices, Partition
from scenarios.partition_utils import assign_counts, check_enough, redraw, split_by_proportions

RECIPES = ("niid_bench", "balanced")
SINKHORN_ITERATIONS = 1000  # the rounding below makes the sums exact whether or not these converged


@dataclass(frozen=True, kw_only=True)
class Dirichlet(Partition):
    """Class proportions ~ Dirichlet(alpha) over clients: large is near IID, small is few classes each."""

    alpha: Annotated[float, number(above=0, example=0.5)]  # Dirichlet concentration
    recipe: Annotated[str, one_of(*RECIPES)] = "niid_bench"
    min_size: Annotated[int, whole(0, example=10)] = 10  # fewest examples of a client
    max_tries: Annotated[int, whole(1, example=1000)] = 1000  # draws before giving up (niid_bench; balanced needs one)

    @property
    def name(self) -> str:
        return f"dirichlet({self.recipe}, alpha={self.alpha:g})"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        check_enough(len(labels_N), self.num_clients, self.min_size)
        sizes_C = np.bincount(labels_N, minlength=num_classes)
        law = (sizes_C, self.num_clients, self.alpha, rng)
        if self.recipe == "balanced":
            return assign_counts(labels_N, balanced_counts(*law), rng)
        otherwise = "a smaller scenario.min_size, fewer scenario.num_clients, or scenario=dirichlet_balanced"
        return assign_counts(labels_N, redraw(lambda: niid_bench_counts(*law), self, otherwise), rng)


def niid_bench_counts(sizes_C: np.ndarray, num_clients: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """One draw, int64 [K, C]; a client that holds N/K examples or more gets nothing of later classes."""
    counts_KC = np.zeros((num_clients, len(sizes_C)), dtype=np.int64)
    capacity = sizes_C.sum() / num_clients
    for label in np.flatnonzero(sizes_C):
        open_clients = np.flatnonzero(counts_KC.sum(axis=1) < capacity)  # never empty: examples are left
        proportions = rng.dirichlet(np.full(len(open_clients), alpha))
        counts_KC[open_clients, label] = split_by_proportions(sizes_C[label], proportions)
    return counts_KC


def balanced_counts(sizes_C: np.ndarray, num_clients: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """int64 [K, C] whose columns sum to `sizes_C` and whose rows to N/K, rounded down or up."""
    total = int(sizes_C.sum())
    rows_K = np.full(num_clients, total // num_clients)
    rows_K[rng.permutation(num_clients)[: total % num_clients]] += 1
    table_KC = rng.dirichlet(np.full(num_clients, alpha), size=len(sizes_C)).T * sizes_C
    table_KC = np.maximum(table_KC, 1e-12 * (sizes_C > 0))  # a zero could not be scaled
    for _ in range(SINKHORN_ITERATIONS):
        table_KC = table_KC * (rows_K / table_KC.sum(axis=1))[:, None]
        columns_C = table_KC.sum(axis=0)
        table_KC = table_KC * np.divide(sizes_C, columns_C, out=np.zeros(len(sizes_C)), where=columns_C > 0)
        if np.abs(table_KC.sum(axis=1) - rows_K).max() < 1e-6:
            break
    return round_to_sums(table_KC, rows_K, sizes_C)


def round_to_sums(table_KC: np.ndarray, rows_K: np.ndarray, columns_C: np.ndarray) -> np.ndarray:
    """Whole numbers near `table_KC` with exactly these row and column sums (whose totals are equal).

    Rows, then columns, are scaled down to their sums and rounded down (Altschuler et al. 2017, Algorithm 2);
    what is missing goes one by one to the largest remainders that have room, the rest where there is room.
    """
    scaled = table_KC * np.minimum(1, rows_K / np.maximum(table_KC.sum(axis=1), 1e-300))[:, None]
    scaled = scaled * np.minimum(1, columns_C / np.maximum(scaled.sum(axis=0), 1e-300))
    counts_KC = np.floor(scaled).astype(np.int64)
    free_K, free_C = rows_K - counts_KC.sum(axis=1), columns_C - counts_KC.sum(axis=0)
    cells = np.argsort(-(scaled - counts_KC), axis=None, kind="stable")
    for most in (1, None):
        for row, column in zip(*np.unravel_index(cells, counts_KC.shape), strict=True):
            amount = min(free_K[row], free_C[column])
            amount = amount if most is None else min(amount, most)
            counts_KC[row, column] += amount
            free_K[row] -= amount
            free_C[column] -= amount
    return counts_KC
