"""The grid: what it refuses, what its hash sees, and when a group is first seen."""

from dataclasses import replace

import numpy as np
import pytest

from fedcl.core.errors import ScenarioError
from fedcl.scenario.base import Labels, Scenario, parse_transform


def indices(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


LABELS = Labels(train_N=np.array([0, 0, 1, 1, 2]), test_N=np.array([0, 1, 2]), num_classes=3)
GRID = Scenario(
    name="hand",
    seed=0,
    num_classes=3,
    shares=((indices(0), indices(2, 3)), (indices(1, 2), indices())),
    groups=(indices(0), indices(1), indices(2)),
    group_names=("zero", "one", "two"),
)


def test_cells_and_counts():
    assert (GRID.num_steps, GRID.num_clients) == (2, 2)
    np.testing.assert_array_equal(GRID.share(client=0, step=1), [1, 2])
    np.testing.assert_array_equal(GRID.counts(LABELS.train_N, step=1), [[1, 1, 0], [0, 0, 0]])


def test_hash_sees_indices_cells_groups_and_transforms_only():
    same = replace(GRID, name="another name", seed=9)
    assert same.sha256 == GRID.sha256
    others = (
        replace(GRID, shares=((indices(1), indices(2, 3)), GRID.shares[1])),
        replace(GRID, shares=((indices(0, 2), indices(3)), GRID.shares[1])),
        replace(GRID, groups=(indices(0), indices(2), indices(1))),
        replace(GRID, transforms=("", "rotate:30")),
    )
    assert len({GRID.sha256, *(other.sha256 for other in others)}) == 5


def test_first_steps_of_groups():
    np.testing.assert_array_equal(GRID.first_steps(LABELS), [0, 0, 2])  # class 2 is never held
    np.testing.assert_array_equal(GRID.first_steps(LABELS, client=0), [0, 1, 2])
    np.testing.assert_array_equal(GRID.first_steps(LABELS, client=1), [2, 0, 2])


def test_first_steps_mind_the_transform():
    turned = replace(GRID, transforms=("", "rotate:30"), group_transforms=("", "rotate:30", "rotate:30"))
    np.testing.assert_array_equal(turned.first_steps(LABELS), [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shares": ()}, "no steps"),
        ({"shares": ((),)}, "no clients"),
        ({"shares": ((indices(0),), (indices(1), indices(2)))}, "different numbers of clients"),
        ({"shares": ((indices(0), indices(0, 1)),)}, "held twice"),
        ({"shares": ((indices(1, 0), indices(2)),)}, "not sorted"),
        ({"shares": ((indices(1, 1), indices(2)),), "disjoint": False}, "twice"),
        ({"group_names": ("zero",)}, "3 groups but 1 names"),
        ({"transforms": ("rotate:30",)}, "1 transforms for 2 places"),
        ({"transforms": ("", "spin:30")}, "rotate:30"),
    ],
)
def test_refuses(change, words):
    with pytest.raises(ScenarioError, match=words):
        replace(GRID, **change)


def test_holding_an_example_twice_can_be_allowed():
    shared = replace(GRID, shares=((indices(0), indices(0, 1)),), disjoint=False)
    assert shared.num_steps == 1


def test_transforms():
    assert parse_transform("") == ("", 0.0)
    assert parse_transform("rotate:-30") == ("rotate", -30.0)
    assert parse_transform("permute:2") == ("permute", 2.0)
    assert parse_transform("noise:0.1") == ("noise", 0.1)
    for wrong in ("rotate", "rotate:", "spin:3", "noise:-1", "permute:1.5", "blur:nan", "blur:inf"):
        with pytest.raises(ScenarioError, match="rotate:30, or"):
            parse_transform(wrong)
