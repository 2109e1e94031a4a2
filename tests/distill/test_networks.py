"""Which networks are matched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks import interpolated
from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.base import NetworkSource
from fedcl.distill.networks.experts import Experts
from fedcl.distill.networks.fresh import Fresh
from fedcl.distill.networks.interpolated import Interpolated
from fedcl.distill.networks.online import LOOPS, Online
from fedcl.distill.networks.queue import Queue
from fedcl.training.augmentation import Siamese


def source_of(ctx, seed=1, ipc=1, weights=None):
    return NetworkSource(new_model=ctx.new_model, seed=seed, ipc=ipc, weights=weights, flip=False)


def side_of(count, seed=0):
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    targets = torch.arange(count) % 4
    return MatchBatch(inputs=images, targets=targets, segment_N=targets.sort().values, num_segments=4)


def weights_of(network):
    network = network.network if isinstance(network, Matched) else network
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def walk(networks, steps, synthetic=None, real=None):
    """Weights at every step, with training after each."""
    seen = []
    for step in range(steps):
        seen.append(weights_of(networks.at(step)))
        networks.after(step, synthetic or side_of(8), real or side_of(12, 1))
    return seen


def test_fresh_networks_are_new_and_named_by_their_step(ctx):
    a = walk(Fresh().open(source_of(ctx)), 3)
    assert not torch.equal(a[0], a[1])
    assert torch.equal(weights_of(Fresh().open(source_of(ctx)).at(2)), a[2])
    assert not torch.equal(weights_of(Fresh().open(source_of(ctx, seed=2)).at(2)), a[2])


def test_given_weights_are_at_their_radius(ctx):
    weights = ctx.new_model(0).state_dict()
    centre = weights_of(ctx.new_model(0))
    networks = AroundGlobal(radius=5.0).open(source_of(ctx, weights=weights))
    for step in (0, 1, 7):
        assert float((weights_of(networks.at(step)) - centre).norm()) == pytest.approx(5.0, rel=1e-4)
    with pytest.raises(DistillError, match="networks=fresh"):
        AroundGlobal().open(source_of(ctx))


def test_online_loops_are_the_published_ones(ctx):
    assert LOOPS == {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    for ipc, outer in ((1, 1), (5, 1), (10, 10), (19, 10), (200, 50)):
        assert Online().open(source_of(ctx, ipc=ipc)).outer == outer  # pyright: ignore[reportAttributeAccessIssue]


def test_online_networks_are_trained_and_replaced(ctx):
    """The epochs are plain SGD on the synthetic images: one update by hand; a new network after `outer` steps."""
    synthetic = side_of(8)
    networks = Online(outer=3, inner=1, lr=0.1).open(source_of(ctx))
    seen = walk(networks, 4, synthetic)
    expected = ctx.new_model(0)
    torch.nn.utils.vector_to_parameters(seen[0], expected.parameters())
    loss = F.cross_entropy(expected(synthetic.inputs), synthetic.targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(expected.parameters()))])
    torch.testing.assert_close(seen[1], seen[0] - 0.1 * gradient, atol=1e-6, rtol=1e-5)
    assert float((seen[2] - seen[0]).norm()) < float((seen[3] - seen[0]).norm())
    fresh = Fresh().open(source_of(ctx))
    assert torch.equal(seen[0], weights_of(fresh.at(0)))
    assert torch.equal(seen[3], weights_of(fresh.at(1)))


def test_queued_networks_learn_the_real_images(ctx):
    """One network, trained again and again on the same real batch, comes to know it."""
    real = side_of(12, 1)
    networks = Queue(size=1, every=1000, trained=1, updates=30, lr=0.05).open(source_of(ctx))
    network = networks.at(0).network
    before = float(F.cross_entropy(network(real.inputs), real.targets))
    networks.after(0, side_of(8), real)
    with torch.no_grad():
        after = float(F.cross_entropy(networks.at(1).network(real.inputs), real.targets))
    assert after < before / 2


def test_the_queue_holds_so_many_and_renews_the_oldest(ctx):
    networks = Queue(size=2, every=2, trained=0, updates=0).open(source_of(ctx))
    births = [weights_of(Fresh().open(source_of(ctx)).at(birth)) for birth in range(4)]
    seen = walk(networks, 8)

    def number(weights):
        return next(n for n, birth in enumerate(births) if torch.equal(weights, birth))

    ages = [number(weights) for weights in seen]
    for step, birth in enumerate(ages):
        assert step // 2 - 1 <= birth <= step // 2  # the two youngest
    assert ages[:2] == [0, 0]
    assert len(networks.networks) == 2  # pyright: ignore[reportAttributeAccessIssue]


def test_training_ignores_the_synthetic_images_in_a_queue_and_the_real_ones_online(ctx):
    for networks, axis in ((Queue(size=2, every=2), "synthetic"), (Online(outer=9, inner=1), "real")):
        a = walk(networks.open(source_of(ctx)), 3)
        b = walk(networks.open(source_of(ctx)), 3, **{axis: side_of(8, 5)})
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_mixed_batches_train_a_queue_as_its_distiller_says(ctx):
    plain, mixed = (
        walk(Queue(size=1, every=9).open(replace(source_of(ctx), augmentation=Siamese(cutmix=p))), 3) for p in (0, 1)
    )
    unmixed = walk(Queue(size=1, every=9).open(source_of(ctx)), 3)
    assert all(torch.equal(a, b) for a, b in zip(plain, unmixed, strict=True))
    assert torch.equal(plain[0], mixed[0])
    assert not torch.equal(plain[1], mixed[1])


def real_source(ctx, new_set, **more):
    return replace(source_of(ctx), sets=(new_set({0: 9, 1: 7}),), inputs=ctx.inputs, **more)


def test_interpolated_networks_lie_between_their_first_and_their_trained_weights(ctx, new_set):
    networks = Interpolated(size=2, epochs=3, lr=0.1).open(real_source(ctx, new_set))
    births = [weights_of(Fresh().open(source_of(ctx)).at(number)) for number in range(2)]
    seen, shares = set(), []
    for step in range(12):
        between = networks.at(step)
        here, goal = weights_of(between.network), weights_of(between.trained)
        away = [float((goal - birth).norm()) for birth in births]
        number = min((0, 1), key=away.__getitem__)  # training moves a network less than another beginning would
        span, gone = goal - births[number], here - births[number]
        share = float(gone @ span / span.square().sum())
        torch.testing.assert_close(here, births[number] + share * span, atol=1e-5, rtol=0)
        assert 0 <= share <= 1
        seen.add(number)
        shares.append(share)
    assert seen == {0, 1}
    assert max(shares) - min(shares) > 0.5


def test_a_trained_network_stays_what_it_is_while_others_are_matched(ctx, new_set):
    """Labels by a teacher ask the first step's network after the last step."""
    networks = Interpolated(size=2, epochs=2, lr=0.1).open(real_source(ctx, new_set))
    first = networks.at(0).trained
    before = weights_of(first)
    assert any(networks.at(step).trained is not first for step in range(1, 8))
    assert torch.equal(weights_of(first), before)


def test_interpolated_networks_are_trained_on_the_real_images(ctx, new_set):
    data = new_set({0: 9, 1: 7})
    images = ctx.inputs.apply(data.inputs)
    between = Interpolated(size=1, epochs=60, lr=0.05).open(real_source(ctx, new_set)).at(0)
    with torch.no_grad():
        assert float(F.cross_entropy(between.trained(images), data.labels_N)) < 0.2
    untrained = Interpolated(size=1, epochs=0).open(real_source(ctx, new_set)).at(3)
    torch.testing.assert_close(weights_of(untrained.network), weights_of(untrained.trained))
    with pytest.raises(DistillError, match="batching=one_at_a_time"):
        Interpolated().open(source_of(ctx))


def test_an_interpolated_state_goes_on_without_training_again(ctx, new_set, monkeypatch):
    whole = Interpolated(size=2, epochs=2).open(real_source(ctx, new_set))
    assert whole.state() == {}  # before the first step
    whole.at(0)
    other = Interpolated(size=2, epochs=2).open(real_source(ctx, new_set))
    other.restore(whole.state())
    monkeypatch.setattr(interpolated, "train", None)
    for step in range(1, 4):
        a, b = whole.at(step), other.at(step)
        assert torch.equal(weights_of(a), weights_of(b))
        assert torch.equal(weights_of(a.trained), weights_of(b.trained))


@pytest.mark.parametrize(
    "networks", [Fresh(), Online(outer=3, inner=1), Queue(size=2, every=2), Queue(every=4, trained=2)]
)
def test_a_state_goes_on_bit_for_bit(ctx, networks):
    whole = networks.open(source_of(ctx))
    walk(whole, 3)
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    other = networks.open(source_of(ctx))
    other.restore(state)
    for step in range(3, 7):
        assert torch.equal(weights_of(whole.at(step)), weights_of(other.at(step)))
        for networks in (whole, other):
            networks.after(step, side_of(8), side_of(12, 1))


def test_matched_networks_ask_for_no_gradient(ctx):
    for networks in (Fresh(), Online(outer=9, inner=1), Queue(size=2, every=2)):
        networks = networks.open(source_of(ctx))
        for step in range(3):
            assert not any(p.requires_grad for p in networks.at(step).network.parameters())
            networks.after(step, side_of(8), side_of(12, 1))


def test_only_what_is_the_same_for_all_sets_is_shared():
    assert Fresh().shared
    assert AroundGlobal().shared
    assert not Online().shared
    assert not Queue().shared
    assert not Interpolated().shared


def test_wrong_numbers_are_named():
    for wrong in (
        lambda: Online(outer=0),
        lambda: Online(inner=-1),
        lambda: Queue(size=0),
        lambda: Interpolated(size=0),
    ):
        with pytest.raises(ConfigError, match=r"networks\."):
            wrong()


def test_an_estimate_counts_but_does_not_train_the_networks_that_the_run_trains(ctx):
    brief = Interpolated(size=20, epochs=60).estimate_only()
    assert (brief.size, brief.epochs) == (1, 0)
    assert Fresh().estimate_only() == Fresh()
    assert Fresh().pretraining() is None
    assert Interpolated(size=3, epochs=4, batch_size=30).pretraining().num_updates(100) == 3 * 4 * 4
    experts = Experts(num_experts=2, max_start=3, stretch=2, batch_size=30, folder="must not be made")
    assert experts.pretraining().num_updates(100) == 2 * 5 * 4
    stretch = experts.estimate_only().open(source_of(ctx)).at(0)
    assert not torch.equal(stretch.start_P, stretch.goal_P)
    assert not Path("must not be made").exists()
