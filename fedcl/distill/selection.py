"""Choosing real examples: rows of a feature matrix, by what they are close to.

Every function takes features of one class and returns int64 row numbers, n of them, without repeats.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def random(features_ND: Tensor, n: int, seed: int) -> Tensor:
    """n rows, all subsets equally likely."""
    order = np.random.default_rng(seed).permutation(len(features_ND))[:n]
    return torch.from_numpy(np.sort(order).astype(np.int64))


def herding(features_ND: Tensor, n: int, seed: int) -> Tensor:
    """Greedy: each pick brings the mean of the picks closest to the class mean (Welling, ICML 2009).

    In the form of iCaRL (Rebuffi et al., CVPR 2017, algorithm 4), without the normalisation of features.
    The order is the order of picks, so that a prefix is the herding of a smaller budget. Deterministic.
    """
    features = features_ND.double()
    mean, total = features.mean(0), torch.zeros(features.shape[1], dtype=torch.float64)
    free = torch.ones(len(features), dtype=torch.bool)
    picks: list[int] = []
    for k in range(1, n + 1):
        distance = ((total + features) / k - mean).square().sum(1)
        pick = int(distance.masked_fill(~free, torch.inf).argmin())
        free[pick] = False
        total += features[pick]
        picks.append(pick)
    return torch.tensor(picks, dtype=torch.int64)


def kmeans(features_ND: Tensor, n: int, seed: int, restarts: int = 3) -> Tensor:
    """The row nearest to each of n k-means centres (scikit-learn, best of `restarts`), each row at most once."""
    from sklearn.cluster import KMeans

    features = features_ND.double().numpy()
    if n >= len(features):
        return torch.arange(len(features))
    with warnings.catch_warnings():  # fewer distinct points than centres: the nearest free rows serve
        warnings.simplefilter("ignore")
        centres = (
            KMeans(
                n,
                n_init=restarts,  # pyright: ignore[reportArgumentType]
                random_state=seed % 2**32,
            )
            .fit(features)
            .cluster_centers_
        )
    distance = torch.cdist(torch.from_numpy(centres), torch.from_numpy(features))
    picks: list[int] = []
    for row in distance:
        row[picks] = torch.inf
        picks.append(int(row.argmin()))
    return torch.tensor(sorted(picks), dtype=torch.int64)


def k_center(features_ND: Tensor, n: int, seed: int) -> Tensor:
    """Farthest-first traversal from the row nearest to the mean (Sener & Savarese, ICLR 2018)."""
    features = features_ND.double()
    picks = [int((features - features.mean(0)).square().sum(1).argmin())]
    nearest = (features - features[picks[0]]).square().sum(1)
    nearest[picks] = -1.0  # below every distance: identical points are still different rows
    while len(picks) < n:
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[picks[-1]]).square().sum(1))
        nearest[picks] = -1.0
    return torch.tensor(picks[:n], dtype=torch.int64)
