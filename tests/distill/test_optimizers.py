"""Optimisers of synthetic images: their steps by hand, and going on from their state."""

from functools import partial

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.distill.distiller import Distiller
from fedcl.distill.optimizers import ClippedAdam, CosineSGD, Lamb


def test_lamb_moves_by_a_fraction_of_the_length_and_slows_down():
    tensor = torch.tensor([3.0, 4.0], requires_grad=True)
    optimizer = Lamb([tensor], lr=0.1, total=2, floor=0.0)
    for length in (0.5, 0.25):  # lr * |tensor|, halved by the cosine
        before = tensor.detach().clone()
        tensor.grad = torch.tensor([0.02, -7.0])
        optimizer.step()
        moved = float((tensor.detach() - before).norm())
        assert moved == pytest.approx(length * float(before.norm()) / 5, rel=1e-4)


def test_clipped_adam_is_adam_until_a_gradient_is_too_long():
    ours, theirs = (torch.ones(2, requires_grad=True) for _ in range(2))
    clipped, plain = ClippedAdam([ours], lr=0.1, clip=2.0, decay=0.5), torch.optim.Adam([theirs], lr=0.1)
    # lengths 1, 1.5 and 100; averages 1, then 1.25; so the third is cut to 2.5
    for found, kept in (([1.0, 0.0], [1.0, 0.0]), ([0.0, 1.5], [0.0, 1.5]), ([100.0, 0.0], [2.5, 0.0])):
        ours.grad, theirs.grad = torch.tensor(found), torch.tensor(kept)
        clipped.step()
        plain.step()
    assert torch.allclose(ours, theirs, rtol=1e-6)
    assert float(clipped.state[ours]["usual"]) == pytest.approx(0.5 * 1.25 + 0.5 * 2.5)


def test_cosine_sgd_slows_down_to_the_floor_and_stays_there():
    tensor = torch.zeros(1, requires_grad=True)
    optimizer = CosineSGD([tensor], lr=4.0, total=2, floor=0.25)
    for moved in (4.0, 2.5, 1.0, 1.0):  # 4, halfway to the floor, the floor
        before = float(tensor.detach())
        tensor.grad = torch.ones(1)
        optimizer.step()
        assert before - float(tensor.detach()) == pytest.approx(moved)
    assert optimizer.param_groups[0]["lr"] == 4.0


def test_cosine_sgd_needs_a_step_to_slow_down_in():
    with pytest.raises(ConfigError, match=r"type \+distiller.optimizer.total=STEPS"):
        CosineSGD([torch.zeros(1, requires_grad=True)])


def test_cosine_sgd_goes_on_where_its_state_says():
    first, second = (torch.zeros(1, requires_grad=True) for _ in range(2))
    begun, resumed = (CosineSGD([tensor], lr=1.0, total=4, momentum=0.5) for tensor in (first, second))
    for step in range(4):
        first.grad = torch.tensor([float(step + 1)])
        begun.step()
        if step == 1:
            with torch.no_grad():
                second.copy_(first)
            resumed.state[second] = {name: value.clone() for name, value in begun.state[first].items()}
        if step > 1:
            second.grad = first.grad.clone()
            resumed.step()
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (partial(torch.optim.SGD, lr=-1.0), r"cannot be made from lr=-1.0 \(Invalid learning rate"),
        (partial(torch.optim.SGD, lr="fast"), r"cannot be made from lr=fast"),
        (partial(CosineSGD, total=3, nestrov=True), r"cannot be made from total=3, nestrov=True .*--cfg job"),
        (partial(torch.optim.Adam, betas=(2.0, 0.9)), r"cannot be made from betas=\(2.0, 0.9\) \(Invalid beta"),
        (CosineSGD, r"\+distiller.optimizer.total=STEPS"),
    ],
)
def test_a_distiller_refuses_an_optimizer_that_cannot_be_made(optimizer, message):
    with pytest.raises(ConfigError, match=message):
        Distiller(optimizer=optimizer)


@pytest.mark.parametrize("rates", [{"lr_scalars": -0.1}, {"lr_labels": -1.0}])
def test_a_distiller_refuses_rates_below_zero(rates):
    with pytest.raises(ConfigError, match="must be a number >= 0, or null"):
        Distiller(**rates)
