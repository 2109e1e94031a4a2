"""One update of each learned array by hand: every array moves by its own rate, and what is fixed stays.

The loss is linear, so that every gradient is a constant that stands here: 2 for a pixel, 3 for an entry of the
targets, 5 for the objective's own number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from fedcl.distill.labels import Kernel
from fedcl.distill.objectives.base import Objective
from fedcl.distill.optimizers import CosineSGD, Lamb

CLASSES = 4
START = 7.0  # of the objective's own number
SCALE = (CLASSES / 10) ** 0.5  # a target is 1/C + SCALE times what is learned, so a step of it moves by SCALE squared


@dataclass(frozen=True, kw_only=True)
class Linear(Objective):
    """2 times the pixels, 3 times the targets, 5 times a number of its own."""

    needs, reads_targets = frozenset({"network"}), True

    def learned_scalars(self):
        return {"own": torch.tensor([START])}

    def target(self, real, step):
        return None

    def loss(self, synthetic, target, step):
        return 2 * synthetic.inputs.sum() + 3 * synthetic.targets.sum() + 5 * step.scalars["own"].sum()


@pytest.fixture
def moved(new_set, new_distiller, ctx):
    """moved(optimizer, ...) -> how far one update moves pixels, targets and the objective's number."""

    def run(optimizer, **rates):
        distiller = new_distiller(objective=Linear(), labels=Kernel(), steps=1, optimizer=optimizer, **rates)
        data = new_set({0: 6, 2: 6})
        begin, end = (replace(distiller, steps=steps).distill([data], 3, ctx)[0] for steps in (0, 1))
        pixels = end.decode()[0] - begin.decode()[0]
        targets = end.targets - begin.targets
        return pixels, targets, end.arrays["own"] - START

    return run


def assert_moved(found, pixels, targets, own):
    for tensor, expected in zip(found, (pixels, targets, own), strict=True):
        torch.testing.assert_close(tensor, torch.full_like(tensor, expected), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("lr_labels", [None, 0.0, 0.03])
@pytest.mark.parametrize("lr_scalars", [None, 0.0, 0.2])
def test_descent_by_each_arrays_own_rate(moved, lr_scalars, lr_labels):
    found = moved(partial(torch.optim.SGD, lr=0.01), lr_scalars=lr_scalars, lr_labels=lr_labels)
    of_labels = 0.01 if lr_labels is None else lr_labels
    of_extra = 0.01 if lr_scalars is None else lr_scalars
    assert_moved(found, -0.01 * 2, -of_labels * 3 * SCALE**2, -of_extra * 5)


def test_adams_first_step_is_each_arrays_own_rate(moved):
    """Adam's first step is the rate, whatever the gradient."""
    found = moved(partial(torch.optim.Adam, lr=0.01), lr_scalars=0.2, lr_labels=0.03)
    assert_moved(found, -0.01, -0.03 * SCALE, -0.2)


def test_a_falling_rate_begins_at_each_arrays_own(moved):
    found = moved(partial(CosineSGD, lr=0.01, total=9), lr_scalars=0.2, lr_labels=0.03)
    assert_moved(found, -0.01 * 2, -0.03 * 3 * SCALE**2, -0.2 * 5)


def test_lamb_moves_each_array_by_its_own_part_of_its_length(moved):
    """The objective's number has length 7: a fraction 0.2 of that. The targets' 16 numbers before they are scaled."""
    pixels, targets, own = moved(partial(Lamb, lr=0.01), lr_scalars=0.2, lr_labels=0.03)
    assert float(own) == pytest.approx(-0.2 * START, rel=1e-4)
    row = torch.tensor([1.0, 0, 0, 0]) - 1 / CLASSES
    length = float(row.norm()) * 4**0.5  # of one-hot - 1/C for the four images; both ends of the step are scaled alike
    assert float(targets.norm()) == pytest.approx(0.03 * length, rel=1e-4)
    assert float(pixels.std()) == pytest.approx(0, abs=1e-6)


def test_images_that_are_not_learned_stay_while_the_rest_moves(moved):
    found = moved(partial(torch.optim.SGD, lr=0.01), optimise_images=False, lr_labels=0.03)
    assert_moved(found, 0.0, -0.03 * 3 * SCALE**2, -0.01 * 5)
