"""Arithmetic that the recipes share: whole counts from proportions, and examples dealt by counts."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.scenario.base import Indices


def proportional_counts(total: int, weights_K: np.ndarray) -> np.ndarray:
    """int64 [K] with sum `total`, in proportion to `weights_K` (>= 0, not all 0): largest remainders.

    Ties go to the lower index.
    """
    quotas_K = total * np.asarray(weights_K, dtype=float) / np.sum(weights_K)
    counts_K = np.floor(quotas_K).astype(np.int64)
    order = np.argsort(-(quotas_K - counts_K), kind="stable")
    counts_K[order[: total - counts_K.sum()]] += 1
    return counts_K


def split_by_proportions(total: int, proportions_K: np.ndarray) -> np.ndarray:
    """int64 [K] with sum `total`: cumulated proportions (sum 1), rounded down at every border."""
    borders = (np.cumsum(proportions_K)[:-1] * total).astype(np.int64)
    return np.diff(np.concatenate(([0], borders, [total])))


def assign_counts(
    labels_N: np.ndarray, counts_KC: np.ndarray, rng: np.random.Generator, order: Iterable[int] | None = None
) -> list[Indices]:
    """Deal the examples of each class at random: client (or step) k gets `counts_KC[k, c]` examples of class c.

    The counts of a class must sum to the number of its examples. Classes are dealt in `order`, else by label.
    """
    shares: list[list[np.ndarray]] = [[] for _ in counts_KC]
    for label in range(counts_KC.shape[1]) if order is None else order:
        indices = rng.permutation(np.flatnonzero(labels_N == label))
        for share, part in zip(shares, np.split(indices, np.cumsum(counts_KC[:-1, label])), strict=True):
            share.append(part)
    return [np.concatenate(share) for share in shares]


def redraw(draw: Callable[[], np.ndarray], recipe: Any, otherwise: str) -> np.ndarray:
    """The first of `max_tries` draws of counts, [K] or [K, C], that leaves each client `min_size` examples."""
    for _ in range(recipe.max_tries):
        counts = draw()
        if counts.reshape(len(counts), -1).sum(axis=1).min() >= recipe.min_size:
            return counts
    raise ScenarioError(
        f"none of {recipe.max_tries} draws gave each of {recipe.num_clients} clients {recipe.min_size} examples with "
        f"alpha={recipe.alpha:g}; type a larger scenario.alpha (e.g. {2 * recipe.alpha:g}), {otherwise}"
    )


def check_enough(num_examples: int, num_clients: int, min_size: int) -> None:
    """Raise ScenarioError when there are too few examples for `min_size` at each client."""
    if num_examples < num_clients * min_size:
        raise ScenarioError(
            f"{num_examples} examples cannot give {num_clients} clients {min_size} each; "
            f"type scenario.num_clients={max(1, num_examples // max(min_size, 1))} or fewer"
        )
