"""Arithmetic that the recipes share: whole counts from proportions, and examples dealt by counts."""

from __future__ import annotations

import numpy as np

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


def assign_counts(labels_N: np.ndarray, counts_KC: np.ndarray, rng: np.random.Generator) -> list[Indices]:
    """Deal the examples of each class at random: client k gets `counts_KC[k, c]` examples of class c.

    The counts of a class must sum to the number of its examples. Returns one sorted int64 array a client.
    """
    shares: list[list[np.ndarray]] = [[] for _ in counts_KC]
    for label in range(counts_KC.shape[1]):
        indices = rng.permutation(np.flatnonzero(labels_N == label))
        for share, part in zip(shares, np.split(indices, np.cumsum(counts_KC[:-1, label])), strict=True):
            share.append(part)
    return [np.sort(np.concatenate(share)).astype(np.int64) for share in shares]
