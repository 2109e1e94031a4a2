"""Selections against brute force and by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from fedcl.distill import selection

ALL = [selection.random, selection.kmeans, selection.herding, selection.k_center]


def points(count, seed=0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("select", ALL)
@pytest.mark.parametrize("n", [1, 3, 7])
def test_n_different_rows_always_the_same(select, n):
    features = points(7)
    rows = select(features, n, 5)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == n
    assert set(rows.tolist()) <= set(range(7))
    assert torch.equal(rows, select(features, n, 5))


@pytest.mark.parametrize("select", ALL)
def test_identical_points_are_still_different_rows(select):
    assert len(set(select(torch.ones(6, 3), 4, 0).tolist())) == 4


def test_herding_is_greedy_against_brute_force():
    features = points(9).double()
    picks = selection.herding(features, 5, 0).tolist()
    for k in range(1, 6):
        before, pick = picks[: k - 1], picks[k - 1]
        distance = {
            row: float((features[[*before, row]].mean(0) - features.mean(0)).norm())
            for row in range(9)
            if row not in before
        }
        assert distance[pick] == pytest.approx(min(distance.values()), abs=1e-12)


def test_herding_prefixes_are_smaller_budgets():
    features = points(9)
    assert selection.herding(features, 5, 0)[:3].tolist() == selection.herding(features, 3, 0).tolist()


def test_kmeans_takes_the_rows_nearest_to_the_best_centres():
    """Three far groups: one row of each, the one nearest to the mean of its group."""
    groups = [points(5, seed) * 0.1 + 10 * seed for seed in (1, 2, 3)]
    expected = {5 * g + int((p - p.mean(0)).norm(dim=1).argmin()) for g, p in enumerate(groups)}
    assert set(selection.kmeans(torch.cat(groups), 3, 0).tolist()) == expected


def test_k_center_covers_within_twice_the_optimum():
    features = points(10)
    picks = selection.k_center(features, 3, 0).tolist()
    assert picks[0] == int((features - features.mean(0)).norm(dim=1).argmin())
    distance = torch.cdist(features, features)
    radius = float(distance[:, picks].amin(1).max())
    best = min(float(distance[:, list(rows)].amin(1).max()) for rows in combinations(range(10), 3))
    assert radius <= 2 * best + 1e-6


def test_k_center_goes_to_the_farthest():
    line = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    assert selection.k_center(line, 3, 0).tolist() == [2, 3, 0]


def test_random_subsets_are_equally_likely():
    """All six pairs of four rows, 600 seeds: 100 each, standard deviation 9.1; five of them."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        rows = tuple(selection.random(torch.zeros(4, 1), 2, seed).tolist())
        counts[rows] = counts.get(rows, 0) + 1
    assert sorted(counts) == list(combinations(range(4), 2))
    assert all(abs(count - 100) < 46 for count in counts.values())
