"""Continual learning in numbers: functions of the accuracy matrix R, each with its formula and source.

R[t, j] in [0, 1] is the accuracy on group j after step t; None or nan means "not evaluated" and takes no part
(a 0 would: it is an accuracy). s(j) is the step at which group j is first seen: `first_step_of_group`, as
`Scenario.first_steps` gives it; by default group j at step j. T is the last step with a value; steps without
any are left out, and so are groups that are not seen up to T.

Every mean over groups is group-weighted: each group counts the same, as in the sources. With `group_sizes`
(numbers of test examples) it is sample-weighted instead. A mean over nothing is nan.

Federated continual learning: the matrix of the server's model gives the global figures; the matrix of one
client's model, with `Scenario.first_steps(labels, client=k)`, that client's. The functions are the same; the
mean over clients of a client's figure is not the global figure.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fedcl.core.errors import DataError

Matrix = np.ndarray | Sequence[Sequence[float | None]]  # [steps, groups], fractions
HEADLINE = "max_before_last"  # the forgetting variant that `continual_part` calls "forgetting"


def average_accuracy(matrix: Matrix, *, first_step_of_group: Any = None, group_sizes: Any = None) -> float:
    """A_T = mean over seen groups j of R[T, j].

    Source: Lopez-Paz & Ranzato, NeurIPS 2017, eq. 2 (ACC), https://arxiv.org/abs/1706.08840.
    """
    R, steps, first, sizes = _checked(matrix, first_step_of_group, group_sizes)
    return _mean(np.where(first <= steps[-1], R[-1], math.nan), sizes) if len(R) else math.nan


def average_incremental_accuracy(matrix: Matrix, *, first_step_of_group: Any = None, group_sizes: Any = None) -> float:
    """Mean over evaluated rows t of A_t = mean over groups j with s(j) <= t of R[t, j]; first row included.

    nan where groups came and others followed without a row between: what was never looked at has no mean. Rows count
    the same, whatever `group_sizes`. Sample-weighted, this is the "average accuracy" of class-incremental papers.
    Source: Rebuffi et al., "iCaRL", CVPR 2017, section 4, https://arxiv.org/abs/1611.07725.
    """
    R, steps, first, sizes = _checked(matrix, first_step_of_group, group_sizes)
    starts = np.unique(first[first <= steps[-1]]) if len(steps) else np.zeros(0)
    if any(not ((steps >= start) & (steps < end)).any() for start, end in pairwise(starts)):
        return math.nan
    rows = [_mean(np.where(first <= step, row, math.nan), sizes) for step, row in zip(steps, R, strict=True)]
    return _mean(np.array(rows), np.ones(len(rows)))


def backward_transfer(matrix: Matrix, *, first_step_of_group: Any = None, group_sizes: Any = None) -> float:
    """BWT = mean over groups j with s(j) < T of R[T, j] - R[s(j), j]; negative means forgetting.

    Source: Lopez-Paz & Ranzato, NeurIPS 2017, eq. 3, https://arxiv.org/abs/1706.08840.
    """
    return 0.0 - forgetting(
        matrix, "first_minus_last", first_step_of_group=first_step_of_group, group_sizes=group_sizes
    )


def forward_transfer(
    matrix: Matrix, random_accuracy: Any, *, first_step_of_group: Any = None, group_sizes: Any = None
) -> float:
    """FWT = mean over groups j with s(j) >= 1 of R[s(j) - 1, j] - b_j, where the matrix has that value.

    Where step s(j) - 1 was not evaluated at all, the last evaluated step before s(j) stands for it.

    Args:
        random_accuracy: b, [groups], the accuracy of the model as initialised.

    Source: Lopez-Paz & Ranzato, NeurIPS 2017, eq. 4, https://arxiv.org/abs/1706.08840.
    """
    R, steps, first, sizes = _checked(matrix, first_step_of_group, group_sizes)
    baseline = _vector("random_accuracy", random_accuracy, R.shape[1])
    gains = np.full(R.shape[1], math.nan)
    for group, seen in enumerate(first):
        before = np.flatnonzero(steps < seen)
        if len(before) and seen <= steps[-1]:
            gains[group] = R[before[-1], group] - baseline[group]
    return _mean(gains, sizes)


def forgetting(
    matrix: Matrix, variant: str = HEADLINE, *, first_step_of_group: Any = None, group_sizes: Any = None
) -> float:
    """Mean over groups j with s(j) < T of (a reference for j) - R[T, j]; the reference is the variant's.

    first_minus_last: R[s(j), j], the value right after learning. Equals -BWT, can be negative. Source:
        Avalanche's Forgetting (its code); Lopez-Paz & Ranzato 2017, eq. 3, with the sign turned.
    max_before_last (headline): max over s(j) <= t < T of R[t, j]; can be negative. Source: Chaudhry et al.,
        "Riemannian Walk", ECCV 2018, section 4.1, https://arxiv.org/abs/1801.10112; FACIL. (There the
        maximum starts at the first row; rows before s(j) hold no learning of j, and are often not evaluated.)
    max_including_last: max over s(j) <= t <= T of R[t, j]; never negative, so it hides backward gains.
        Source: Mammoth and PyCIL (their code).

    Where R[s(j), j] was not evaluated, the first value after it stands for it: where a group lasts several
    steps (online streams), evaluate when its block ends.

    Raises:
        DataError: an unknown variant, or a malformed matrix.
    """
    if variant not in FORGETTING_VARIANTS:
        raise DataError(f"no forgetting variant '{variant}'; choose among {', '.join(FORGETTING_VARIANTS)}")
    R, steps, first, sizes = _checked(matrix, first_step_of_group, group_sizes)
    losses = np.full(R.shape[1], math.nan)
    for group, seen in enumerate(first):
        values = R[steps >= seen, group]
        before = values[:-1][~np.isnan(values[:-1])]
        if len(before):
            losses[group] = FORGETTING_VARIANTS[variant](before, values[-1]) - values[-1]
    return _mean(losses, sizes)


# name -> reference value from (the values before the last row, the last value)
FORGETTING_VARIANTS: dict[str, Callable[[np.ndarray, float], float]] = {
    "first_minus_last": lambda before, last: before[0],
    "max_before_last": lambda before, last: before.max(),
    "max_including_last": lambda before, last: max(before.max(), last),
}


def forgetting_variants(
    matrix: Matrix, *, first_step_of_group: Any = None, group_sizes: Any = None
) -> dict[str, float]:
    """Every forgetting variant by name."""
    options = {"first_step_of_group": first_step_of_group, "group_sizes": group_sizes}
    return {name: forgetting(matrix, name, **options) for name in FORGETTING_VARIANTS}


def continual_part(
    matrix: Matrix, *, first_step_of_group: Any = None, group_sizes: Any = None, random_accuracy: Any = None
) -> dict[str, Any]:
    """The record's part "continual": fractions, or None where a figure does not exist.

    "forgetting" is `max_before_last`; all variants stand in "forgetting_variants"; "weighting" says "groups"
    or "samples". Forward transfer needs `random_accuracy` and accuracies of groups before they are seen.
    """
    options = {"first_step_of_group": first_step_of_group, "group_sizes": group_sizes}
    variants = forgetting_variants(matrix, **options)
    forward = math.nan if random_accuracy is None else forward_transfer(matrix, random_accuracy, **options)
    return {
        "average_accuracy": _or_none(average_accuracy(matrix, **options)),
        "average_incremental_accuracy": _or_none(average_incremental_accuracy(matrix, **options)),
        "forgetting": _or_none(variants[HEADLINE]),
        "backward_transfer": _or_none(backward_transfer(matrix, **options)),
        "forward_transfer": _or_none(forward),
        "forgetting_variants": {name: _or_none(value) for name, value in variants.items()},
        "weighting": "groups" if group_sizes is None else "samples",
    }


def _checked(
    matrix: Matrix, first_step_of_group: Any, group_sizes: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """R of the evaluated steps, those steps, s, and the weights of the groups."""
    try:
        R = np.array(matrix, dtype=float)  # None becomes nan
    except (TypeError, ValueError) as error:
        raise DataError("the accuracy matrix must be numbers or None, in rows of equal length") from error
    if R.ndim != 2 or R.shape[1] == 0:
        raise DataError(f"the accuracy matrix must be [steps, groups]; it has shape {R.shape}")
    if ((R < 0) | (R > 1)).any():
        raise DataError("the accuracy matrix must hold fractions in [0, 1]; divide percentages by 100")
    groups = R.shape[1]
    first = _vector("first_step_of_group", first_step_of_group, groups, default=range(groups))
    sizes = _vector("group_sizes", group_sizes, groups, default=[1] * groups)
    if not ((first >= 0).all() and (sizes >= 0).all()):
        raise DataError("first_step_of_group and group_sizes must not be negative")
    steps = np.flatnonzero(~np.isnan(R).all(axis=1))
    return R[steps], steps, first, sizes


def _vector(name: str, values: Any, groups: int, default: Any = None) -> np.ndarray:
    vector = np.asarray(default if values is None else values, dtype=float)
    if vector.shape != (groups,):
        raise DataError(f"{name} must have one number a group: {groups}, not shape {vector.shape}")
    return vector


def _mean(values: np.ndarray, sizes: np.ndarray) -> float:
    """Weighted mean of the values that exist."""
    valid = ~np.isnan(values) & (sizes > 0)
    return float(np.average(values[valid], weights=sizes[valid])) if valid.any() else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
