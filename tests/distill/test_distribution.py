"""Laws of distribution matching: means, characteristic functions, maximum mean discrepancy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.characteristic import Characteristic
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.objectives.mmd import MaximumMeanDiscrepancy
from fedcl.models.base import Network


def on(network, seed=3):
    return MatchStep(network=network, seed=seed)


def side(images, segment_N):
    segment_N = torch.tensor(segment_N)
    return MatchBatch(inputs=images, targets=segment_N, segment_N=segment_N, num_segments=3)


def images_of(count, seed):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class Plain(Network):
    """Features are the first two pixels; the classifier doubles them."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(2, 2)
        self.classifier.weight.data = 2 * torch.eye(2)
        self.classifier.bias.data.fill_(1.0)
        self.requires_grad_(False)

    def embed(self, images):
        return images.flatten(1)[:, :2]

    def forward(self, images):
        return self.classifier(self.embed(images))


def test_means_by_hand():
    """Segment 0: means (1, 0) and (4, 4): 25. Segment 2: equal. Segment 1 holds nothing."""
    real = side(torch.tensor([[0.0, 0], [2, 0], [7, 7]]).view(3, 1, 1, 2), [0, 0, 2])
    fake = side(torch.tensor([[4.0, 4], [7, 7]]).view(2, 1, 1, 2), [0, 2])
    for objective, expected in ((Distribution(chunk=2), 25.0), (Distribution(logits=True), 25.0 + 4 * 25.0)):
        assert float(objective.loss(fake, objective.target(real, on(Plain())), on(Plain()))) == pytest.approx(expected)


def test_characteristic_function_by_hand():
    """One feature of length 1 in two dimensions: phi(t) = exp(i t . f); distance by the published formula."""
    real = side(torch.tensor([[3.0, 0]]).view(1, 1, 1, 2), [0])
    fake = side(torch.tensor([[0.0, 5]]).view(1, 1, 1, 2), [0])
    objective = Characteristic(frequencies=50, amplitude=0.3, phase=0.7, scale=2.0)
    from fedcl.core.seeding import torch_rng

    t = torch.randn(2, 50, generator=torch_rng(3, "frequencies"))
    expected = 0.0
    for x, y in t.T.tolist():
        # both moduli are 1: only the angle between the two numbers is left
        expected += 2.0 * math.sqrt(0.7 * 2 * (1 - math.cos(x - y))) / 50
    assert float(objective.loss(fake, objective.target(real, on(Plain())), on(Plain()))) == pytest.approx(
        expected, rel=1e-4
    )


def test_mean_discrepancy_by_hand():
    """Two real points at distance 2: m = (0 + 4 + 4 + 0) / 4 = 2; the synthetic one is the first. Class 2: equal."""
    real = side(torch.tensor([[0.0, 0], [2, 0], [3, 4]]).view(3, 1, 1, 2), [0, 0, 2])
    fake = side(torch.tensor([[0.0, 0], [3, 4]]).view(2, 1, 1, 2), [0, 2])
    objective = MaximumMeanDiscrepancy(widths=(1.0,), scale=10.0, chunk=2)
    far = math.exp(-4 / 2)
    expected = 1 - 2 * (1 + far) / 2 + (2 + 2 * far) / 4
    assert float(objective.loss(fake, objective.target(real, on(Plain())), on(Plain()))) == pytest.approx(
        10 * expected, abs=1e-4
    )
    for wrong in ({"widths": ()}, {"widths": (0,)}, {"scale": 0}, {"chunk": 0}):
        with pytest.raises(ConfigError, match=r"objective\."):
            MaximumMeanDiscrepancy(**wrong)


OBJECTIVES = [
    Distribution(),
    Distribution(logits=True),
    Characteristic(frequencies=64),
    MaximumMeanDiscrepancy(),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
class TestLaws:
    def test_zero_where_equal_even_if_repeated(self, ctx, objective):
        network = ctx.new_model(0).requires_grad_(False)
        images = images_of(4, 0)
        real = side(images, [0, 0, 1, 2])
        fake = side(images[[0, 0, 1, 1, 2, 3, 3]], [0, 0, 0, 0, 1, 2, 2])
        loss = float(objective.loss(fake, objective.target(real, on(network)), on(network)))
        apart = float(
            objective.loss(
                side(images_of(4, 1), [0, 0, 1, 2]),
                objective.target(real, on(network)),
                on(network),
            )
        )
        assert loss == pytest.approx(0, abs=1e-4 * apart)

    def test_gradients_reach_the_images_only(self, ctx, objective):
        network = ctx.new_model(0).requires_grad_(False)
        images = images_of(3, 1).requires_grad_()
        target = objective.target(side(images_of(4, 0), [0, 0, 1, 2]), on(network))
        loss = objective.loss(side(images, [0, 1, 2]), target, on(network))
        assert torch.autograd.grad(loss, images)[0].flatten(1).norm(dim=1).min() > 0
        assert all(p.grad is None for p in network.parameters())

    def test_finite_slope_at_equality(self, ctx, objective):
        network = ctx.new_model(0).requires_grad_(False)
        images = images_of(3, 1).requires_grad_()
        real = side(images.detach(), [0, 1, 2])
        loss = objective.loss(side(images, [0, 1, 2]), objective.target(real, on(network)), on(network))
        assert torch.autograd.grad(loss, images)[0].isfinite().all()

    def test_segments_add_up(self, ctx, objective):
        network = ctx.new_model(0).requires_grad_(False)
        real, fake = images_of(4, 0), images_of(4, 1)
        rows = [0, 0, 1, 2]
        whole = objective.loss(side(fake, rows), objective.target(side(real, rows), on(network)), on(network))
        total = 0.0
        for segment in range(3):
            mine = torch.tensor(rows) == segment
            part = side(real[mine], [0] * int(mine.sum())), side(fake[mine], [0] * int(mine.sum()))
            part = tuple(replace(p, num_segments=1) for p in part)
            total += float(objective.loss(part[1], objective.target(part[0], on(network)), on(network)))
        assert float(whole) == pytest.approx(total, rel=1e-4)


def test_frequencies_belong_to_the_step(ctx):
    network = ctx.new_model(0).requires_grad_(False)
    objective = Characteristic(frequencies=8)
    one, other = (objective.target(side(images_of(3, 0), [0, 1, 2]), on(network, seed))[0] for seed in (1, 2))
    assert not torch.equal(one, other)


def test_a_bounded_statistic(ctx):
    """No image moves phi by more than 2 / n, whatever is in it: what noise for privacy is measured against."""
    network = ctx.new_model(0).requires_grad_(False)
    objective = Characteristic(frequencies=200)
    images = images_of(5, 0)
    changed = images.clone()
    changed[4] *= 1e4
    rows = [0] * 5
    (re_a, im_a), (re_b, im_b) = (objective.target(side(x, rows), on(network)) for x in (images, changed))
    assert float(((re_a - re_b).square() + (im_a - im_b).square()).sqrt().max()) <= 2 / 5 + 1e-6


def test_calibration_by_hand():
    """Segment 0: scores (9, 9) and (3, 1) for class 0; segment 2: (1, 3) for class 1; a mean each, then the sum."""
    step = MatchStep(network=Plain(), trained=Plain())
    images = torch.tensor([[4.0, 4], [1, 0], [0, 1]]).view(3, 1, 1, 2)
    fake = replace(side(images, [0, 0, 2]), targets=torch.tensor([0, 0, 1]))
    bare, calibrated = Characteristic(frequencies=8), Characteristic(frequencies=8, calibration=0.5)
    target = bare.target(fake, step)
    surprise = (math.log(2) + math.log(1 + math.exp(-2))) / 2 + math.log(1 + math.exp(-2))
    found = calibrated.loss(fake, target, step) - bare.loss(fake, target, step)
    assert float(found) == pytest.approx(0.5 * surprise, rel=1e-4)
    soft = replace(fake, targets=torch.eye(2)[fake.targets])
    assert torch.equal(calibrated.loss(soft, target, step), calibrated.loss(fake, target, step))


def test_wrong_numbers_are_named():
    for name, wrong in (("frequencies", 0), ("calibration", -1.0)):
        with pytest.raises(ConfigError, match=rf"objective\.{name}={wrong}"):
            Characteristic(**{name: wrong})
