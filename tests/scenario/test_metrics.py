"""Every metric against a 3x3 matrix that a reader can work out in the head."""

import json
import math

import numpy as np
import pytest

from fedcl.core.errors import DataError
from fedcl.scenario.metrics import (
    FORGETTING_VARIANTS,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    continual_part,
    forgetting,
    forgetting_variants,
    forward_transfer,
)

# rows: after step 0, 1, 2; columns: groups. Group 0 rises and falls; group 1 gains at the end.
MATRIX = [
    [0.8, 0.2, 0.1],
    [0.9, 0.5, 0.3],
    [0.6, 0.7, 1.0],
]
SIZES = [1, 2, 1]


def near(value: float):
    return pytest.approx(value, abs=1e-12)


def test_average_accuracy():
    assert average_accuracy(MATRIX) == near((0.6 + 0.7 + 1.0) / 3)
    assert average_accuracy(MATRIX, group_sizes=SIZES) == near((0.6 + 2 * 0.7 + 1.0) / 4)


def test_average_incremental_accuracy():
    # rows: 0.8; (0.9 + 0.5) / 2 = 0.7; 2.3 / 3
    assert average_incremental_accuracy(MATRIX) == near((0.8 + 0.7 + 2.3 / 3) / 3)
    # rows: 0.8; (0.9 + 2 * 0.5) / 3; 3.0 / 4
    assert average_incremental_accuracy(MATRIX, group_sizes=SIZES) == near((0.8 + 1.9 / 3 + 0.75) / 3)


def test_backward_transfer():
    # 0.6 - 0.8 = -0.2 and 0.7 - 0.5 = +0.2
    assert backward_transfer(MATRIX) == near(0.0)
    assert backward_transfer(MATRIX, group_sizes=SIZES) == near((-0.2 + 2 * 0.2) / 3)


def test_forward_transfer():
    # 0.2 - 0.1 and 0.3 - 0.1; the baseline of group 0 plays no part
    assert forward_transfer(MATRIX, [0.9, 0.1, 0.1]) == near(0.15)
    assert forward_transfer(MATRIX, [0.9, 0.1, 0.1], group_sizes=SIZES) == near((2 * 0.1 + 0.2) / 3)


def test_forgetting_variants():
    # group 0: 0.8, max 0.9, last 0.6; group 1: 0.5, max before 0.5, last 0.7
    assert forgetting(MATRIX, "first_minus_last") == near((0.2 - 0.2) / 2)
    assert forgetting(MATRIX, "max_before_last") == near((0.3 - 0.2) / 2)
    assert forgetting(MATRIX, "max_including_last") == near((0.3 + 0.0) / 2)
    assert forgetting(MATRIX) == forgetting(MATRIX, "max_before_last")
    assert forgetting(MATRIX, group_sizes=SIZES) == near((0.3 - 2 * 0.2) / 3)
    assert forgetting_variants(MATRIX) == {name: forgetting(MATRIX, name) for name in FORGETTING_VARIANTS}
    assert list(FORGETTING_VARIANTS) == ["first_minus_last", "max_before_last", "max_including_last"]


def test_the_maximum_is_over_steps_not_over_groups():
    # the toy of a published script that took the maximum along the wrong axis: one group never forgets
    matrix = [[1.0, None], [1.0, 0.2]]
    assert forgetting(matrix) == 0.0


def test_values_before_a_group_is_seen_are_no_memory_of_it():
    matrix = [[0.5, 0.9, None], [0.5, 0.4, None], [0.5, 0.4, 0.6]]  # group 1: 0.9 by luck before step 1
    assert forgetting(matrix) == near(0.0)
    assert forward_transfer(matrix, [0.1, 0.1, 0.1]) == near(0.8)


def test_not_evaluated_takes_no_part():
    lower = [[0.8, None, None], [0.9, 0.5, None], [0.6, 0.7, 1.0]]
    for metric in (average_accuracy, average_incremental_accuracy, backward_transfer, forgetting):
        assert metric(lower) == metric(MATRIX)
        assert metric(np.array(lower, dtype=float)) == metric(MATRIX)
    assert math.isnan(forward_transfer(lower, [0.1, 0.1, 0.1]))


def test_rows_without_values_are_left_out():
    none = [None] * 3
    padded = [none, MATRIX[0], none, MATRIX[1], MATRIX[2], none]
    first = [1, 2, 4]  # group 1 appears in the unevaluated step 2
    options = {"first_step_of_group": first}
    assert continual_part(padded, **options, random_accuracy=[0.1] * 3) == continual_part(
        MATRIX, random_accuracy=[0.1] * 3
    )


def test_a_mean_over_rows_needs_a_row_for_every_group_that_came():
    none = [None, None]
    assert math.isnan(average_incremental_accuracy([none, [1.0, 0.8]]))  # of group 0 alone nobody knows
    assert math.isnan(average_incremental_accuracy([none, [1.0, 0.8]], group_sizes=[1, 3]))
    assert average_incremental_accuracy([none, [1.0, 0.8]], first_step_of_group=[1, 1]) == near(0.9)  # both at once
    assert continual_part([none, [1.0, 0.8]])["average_accuracy"] == near(0.9)
    assert math.isnan(average_incremental_accuracy([none, none]))


def test_groups_apart_from_steps():
    # asynchronous: groups 0 and 1 are both seen from step 0, group 2 never
    matrix = [[0.4, 0.8, 0.0], [0.6, 0.2, 0.0]]
    options = {"first_step_of_group": np.array([0, 0, 2])}
    assert average_accuracy(matrix, **options) == near(0.4)
    assert average_incremental_accuracy(matrix, **options) == near((0.6 + 0.4) / 2)
    assert forgetting(matrix, **options) == near((-0.2 + 0.6) / 2)
    assert backward_transfer(matrix, **options) == near((0.2 - 0.6) / 2)
    assert math.isnan(forward_transfer(matrix, [0, 0, 0], **options))


def test_bwt_is_minus_first_minus_last_and_the_variants_are_ordered():
    rng = np.random.default_rng(0)
    for _ in range(100):
        matrix = rng.random((5, 4))
        values = forgetting_variants(matrix)
        assert backward_transfer(matrix) == near(-values["first_minus_last"])
        assert values["first_minus_last"] <= values["max_before_last"] <= values["max_including_last"]
        assert values["max_including_last"] >= 0


def test_equal_sizes_weigh_like_groups():
    for metric in (average_accuracy, average_incremental_accuracy, backward_transfer, forgetting):
        assert metric(MATRIX, group_sizes=[7, 7, 7]) == near(metric(MATRIX))


def test_the_part_of_the_record():
    part = continual_part(MATRIX, random_accuracy=[0.1, 0.1, 0.1])
    assert part == {
        "average_accuracy": near(2.3 / 3),
        "average_incremental_accuracy": near((1.5 + 2.3 / 3) / 3),
        "forgetting": near(0.05),
        "backward_transfer": near(0.0),
        "forward_transfer": near(0.15),
        "forgetting_variants": {
            "first_minus_last": near(0.0),
            "max_before_last": near(0.05),
            "max_including_last": near(0.15),
        },
        "weighting": "groups",
    }
    assert continual_part(MATRIX, group_sizes=SIZES)["weighting"] == "samples"


def test_figures_that_do_not_exist_are_null():
    part = continual_part([[0.7, None]])
    assert json.loads(json.dumps(part, allow_nan=False)) == {
        "average_accuracy": 0.7,
        "average_incremental_accuracy": 0.7,
        "forgetting": None,
        "backward_transfer": None,
        "forward_transfer": None,
        "forgetting_variants": dict.fromkeys(FORGETTING_VARIANTS),
        "weighting": "groups",
    }
    assert continual_part([[None, None]])["average_accuracy"] is None


def test_no_forgetting_is_plus_zero():
    assert math.copysign(1, backward_transfer([[0.5, 0.1], [0.5, 0.9]])) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: average_accuracy([[80.0, 0.0]]), "divide percentages by 100"),
        (lambda: average_accuracy([[-0.1]]), "fractions"),
        (lambda: average_accuracy([0.1, 0.2]), "steps, groups"),
        (lambda: average_accuracy([[0.1], [0.1, 0.2]]), "equal length"),
        (lambda: average_accuracy([["high"]]), "numbers"),
        (lambda: average_accuracy(MATRIX, group_sizes=[1, 2]), "group_sizes must have one number a group: 3"),
        (lambda: average_accuracy(MATRIX, group_sizes=[1, 2, -1]), "not be negative"),
        (lambda: average_accuracy(MATRIX, first_step_of_group=[0, 1, math.nan]), "not be negative"),
        (lambda: forward_transfer(MATRIX, [0.1]), "random_accuracy"),
        (lambda: forgetting(MATRIX, "most"), "max_before_last"),
    ],
)
def test_refuses(call, words):
    with pytest.raises(DataError, match=words):
        call()
