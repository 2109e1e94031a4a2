"""Choosing real examples: rows of a feature matrix, by what they are close to.

Every function takes features of one class and returns int64 row numbers, n of them, without repeats.
"""

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
    picks: list[int] = []
    for k in range(1, n + 1):
        distance = ((total + features) / k - mean).square().sum(1)
        distance[picks] = torch.inf
        picks.append(int(distance.argmin()))
        total += features[picks[-1]]
    return torch.tensor(picks, dtype=torch.int64)


def kmeans(features_ND: Tensor, n: int, seed: int, restarts: int = 3) -> Tensor:
    """The row nearest to each of n k-means centres (scikit-learn, best of `restarts`), each row at most once."""
    from sklearn.cluster import KMeans

    features = features_ND.double().numpy()
    if n >= len(features):
        return torch.arange(len(features))
    means = KMeans(n, n_init=restarts, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():  # fewer distinct points than centres: the nearest free rows serve
        warnings.simplefilter("ignore")
        centres = means.fit(features).cluster_centers_
    picks: list[int] = []
    for row in torch.cdist(torch.from_numpy(centres), torch.from_numpy(features)):
        row[picks] = torch.inf
        picks.append(int(row.argmin()))
    return torch.tensor(sorted(picks), dtype=torch.int64)


def k_center(features_ND: Tensor, n: int, seed: int) -> Tensor:
    """Farthest-first traversal from the row nearest to the mean (Sener & Savarese, ICLR 2018)."""
    features = features_ND.double()
    nearest = torch.full((len(features),), torch.inf, dtype=torch.float64)
    pick = int((features - features.mean(0)).square().sum(1).argmin())
    picks: list[int] = []
    for _ in range(n):
        picks.append(pick)
        nearest = torch.minimum(nearest, (features - features[pick]).square().sum(1))
        nearest[picks] = -1.0  # below every distance: identical points are still different rows
        pick = int(nearest.argmax())
    return torch.tensor(picks, dtype=torch.int64)
