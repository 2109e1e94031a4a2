"""Networks with batch norm: both sides of a comparison are normalised by all of their classes, or it is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from fedcl.core.errors import DistillError
from fedcl.core.progress import Progress
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.initializers import Real
from fedcl.distill.labels import Kernel
from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.online import Online
from fedcl.distill.objectives.base import features
from fedcl.distill.objectives.characteristic import Characteristic
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.objectives.gradient import Gradient
from fedcl.distill.objectives.kernel import FeatureRegression
from fedcl.distill.objectives.mmd import MaximumMeanDiscrepancy
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.models.resnet import ResNet
from fedcl.models.vgg import VGG

MODELS = {
    "mlp_batchnorm": BatchNormMLP(hidden=(9, 6)),
    "convnet": ConvNet(width=4, norm="batch"),
}
DEEP = {  # the same layers, more of them
    "resnet": ResNet(width=4, blocks=(1, 1), norm="batch"),
    "vgg": VGG(width=2, norm="batch"),
}
COUNTS = {0: 40, 1: 30, 3: 25}  # 95 real images: more than one pass of 64, and a class begins within a pass
MATCHING = {
    "dm": Distribution(),
    "dm with logits": Distribution(logits=True),
    "ncfm": Characteristic(frequencies=32),
    "mmd": MaximumMeanDiscrepancy(),
}


def on(network, seed=0):
    return MatchStep(network=network, seed=seed)


@pytest.fixture(
    params=[*MODELS.values(), *(pytest.param(model, marks=pytest.mark.slow) for model in DEEP.values())],
    ids=[*MODELS, *DEEP],
)
def mixing(request, ctx):
    return replace(ctx, model=request.param)


def sides(data, ctx, count=None):
    """All images of a set in class order, and the same, or the first of each class, as the synthetic side."""
    ordered = data.by_class()
    images, labels = ctx.inputs.apply(ordered.inputs).double(), ordered.labels_N
    segments = torch.unique(labels, return_inverse=True)[1]
    rows = torch.cat([torch.nonzero(segments == s)[:count, 0] for s in range(3)])
    real = MatchBatch(inputs=images, targets=labels, segment_N=segments, num_segments=3)
    fake = replace(real, inputs=images[rows].requires_grad_(), targets=labels[rows], segment_N=segments[rows])
    return real, fake


@pytest.mark.parametrize("objective", MATCHING.values(), ids=MATCHING)
class TestMatching:
    def test_equal_sides_are_at_distance_zero_with_slope_zero(self, new_set, mixing, objective):
        network = mixing.new_model(0).double().requires_grad_(False)
        real, fake = sides(new_set(COUNTS), mixing)
        loss = objective.loss(fake, objective.target(real, on(network)), on(network))
        slope = torch.autograd.grad(loss, fake.inputs)[0].abs().max()
        other = replace(fake, inputs=fake.inputs.detach().flip(0).requires_grad_())
        apart = objective.loss(other, objective.target(real, on(network)), on(network))
        steepness = torch.autograd.grad(apart, other.inputs)[0].abs().max()
        assert abs(float(loss.detach())) < 1e-9 * float(apart.detach())
        assert float(slope) < 1e-7 * float(steepness)

    def test_the_real_side_is_one_pass(self, new_set, mixing, objective):
        """Whatever `chunk` says: statistics of a part of the images would be another network's."""
        network = mixing.new_model(0).double().requires_grad_(False)
        real, fake = sides(new_set(COUNTS), mixing, count=2)
        parts, whole = (replace(objective, chunk=chunk).target(real, on(network)) for chunk in (7, 10_000))
        losses = [float(objective.loss(fake, target, on(network)).detach()) for target in (parts, whole)]
        assert losses[0] == losses[1]

    def test_all_real_images_as_a_start_stay_where_they_are(self, new_set, new_distiller, mixing, objective):
        seen = []

        class Listener(Progress):
            def advance(self, task, amount=1, **figures):
                seen.extend(figures.values())

        distiller = new_distiller(
            objective=objective,
            initializer=Real(select="random"),
            ipc=40,
            real_batch=40,
            steps=2,
            optimizer=partial(torch.optim.SGD, lr=1.0),
        )
        ctx, data = replace(mixing, progress=Listener()), new_set(COUNTS)
        end = distiller.distill([data], 3, ctx)[0].arrays["images"]
        start = replace(distiller, steps=0).distill([data], 3, ctx)[0].decode()[0]
        assert len(seen) == 2
        assert max(abs(loss) for loss in seen) < 1e-3
        torch.testing.assert_close(end, start, atol=1e-3, rtol=0)

    def test_several_sets_are_worked_on_apart(self, new_set, new_distiller, mixing, objective):
        """Their statistics are their own, also where a batch was asked for."""
        sets = [new_set({0: 9, 1: 7}), new_set({1: 5, 3: 8}, client=1)]
        distiller = new_distiller(objective=objective, batching="together", steps=2)
        batch = distiller.distill(sets, 7, mixing)
        alone = [distiller.distill([data], 7, mixing)[0] for data in sets]
        assert [s.sha256() for s in batch] == [s.sha256() for s in alone]

    def test_a_single_image_is_refused(self, new_set, new_distiller, mixing, objective):
        with pytest.raises(DistillError, match=r"single image; type a larger distiller\.ipc"):
            new_distiller(objective=objective, ipc=1).distill([new_set({0: 9})], 0, mixing)


def test_means_of_logits_are_of_the_logits_that_a_batch_gets(new_set, ctx):
    """A classifier with batch norm is not affine: its mean over images is not its value at the mean feature."""
    network = BatchNormMLP(hidden=(9, 6)).build((1, 8, 8), 4, 0).double().requires_grad_(False)
    real, fake = sides(new_set(COUNTS), ctx, count=2)
    objective = Distribution(logits=True)
    expected = 0.0
    for of in (lambda images: features(network, images), network):
        a, b = of(fake.inputs.detach()), of(real.inputs)
        means = [(a[fake.segment_N == s].mean(0) - b[real.segment_N == s].mean(0)).square().sum() for s in range(3)]
        expected += float(sum(means))
    found = objective.loss(fake, objective.target(real, on(network)), on(network)).detach()
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_in_eval_mode_chunks_only_bound_memory(new_set, mixing):
    network = mixing.new_model(0).double().requires_grad_(False).eval()
    real, fake = sides(new_set(COUNTS), mixing, count=2)
    for objective in MATCHING.values():
        parts, whole = (replace(objective, chunk=chunk).target(real, on(network)) for chunk in (7, 10_000))
        losses = [float(objective.loss(fake, target, on(network)).detach()) for target in (parts, whole)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_weights_of_a_caller_are_matched_with_their_running_statistics(new_set, new_distiller, mixing):
    """networks=given is in eval mode: no image sees another, so that one image a set is fine."""
    distiller = new_distiller(networks=AroundGlobal(radius=0.0), ipc=1, steps=1)
    assert distiller.distill([new_set({0: 9})], 0, mixing, weights=mixing.new_model(1).state_dict())


def test_regression_on_features_sees_one_pass_a_side(new_set, mixing):
    """Images that are the real ones predict their own labels exactly, as far as the ridge lets them."""
    network = mixing.new_model(0).double().requires_grad_(False)
    real, _ = sides(new_set(COUNTS), mixing)
    scores = torch.nn.functional.one_hot(real.targets, 4).double()
    fake = replace(real, targets=scores)
    parts, whole = (FeatureRegression(chunk=chunk, margin=0.0) for chunk in (7, 10_000))
    losses = [float(o.loss(fake, o.target(real, on(network)), on(network))) for o in (parts, whole)]
    assert losses[0] == losses[1]
    network.eval()
    plain = FeatureRegression(margin=0.0)
    assert losses[0] != float(plain.loss(fake, plain.target(real, on(network)), on(network)))


@pytest.mark.parametrize("objective", [Gradient(), Gradient(per_class=False), Unrolled(inner_steps=2)])
def test_what_cannot_use_batch_norm_says_so(new_set, new_distiller, mixing, objective):
    with pytest.raises(DistillError, match=r"batch norm"):
        new_distiller(objective=objective, networks=Online(outer=2, inner=1)).distill(
            [new_set({0: 9, 1: 9})], 0, mixing
        )


def test_learned_labels_go_with_batch_norm(new_set, new_distiller, mixing):
    distiller = new_distiller(objective=FeatureRegression(), labels=Kernel(), steps=2)
    [summary] = distiller.distill([new_set({0: 9, 1: 9})], 0, mixing)
    assert summary.arrays["images"].isfinite().all()
