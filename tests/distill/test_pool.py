"""Which networks are matched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fedcl.augmentation import Siamese
from fedcl.distill.objectives.base import Side
from fedcl.distill.pool.base import PoolSource
from fedcl.distill.pool.experts import Experts
from fedcl.distill.pool.fresh import Fresh
from fedcl.distill.pool.given import Given
from fedcl.distill.pool.interpolated import Interpolated
from fedcl.distill.pool.online import LOOPS, Online
from fedcl.distill.pool.queue import Queue
from fedcl.errors import ConfigError, DistillError
from fedcl.training import Training


def source_of(bench, seed=1, ipc=1, weights=None):
    return PoolSource(new_model=bench.new_model, seed=seed, ipc=ipc, weights=weights, flip=False)


def side_of(count, seed=0):
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    targets = torch.arange(count) % 4
    return Side(images_NCHW=images, targets=targets, segment_N=targets.sort().values, num_segments=4)


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def walk(networks, steps, synthetic=None, real=None):
    """Weights at every step, with training after each."""
    seen = []
    for step in range(steps):
        seen.append(weights_of(networks.at(step)))
        networks.after(step, synthetic or side_of(8), real or side_of(12, 1))
    return seen


def test_fresh_networks_are_new_and_named_by_their_step(bench):
    a = walk(Fresh().open(source_of(bench)), 3)
    assert not torch.equal(a[0], a[1])
    assert torch.equal(weights_of(Fresh().open(source_of(bench)).at(2)), a[2])
    assert not torch.equal(weights_of(Fresh().open(source_of(bench, seed=2)).at(2)), a[2])


def test_given_weights_are_at_their_radius(bench):
    weights = bench.new_model(0).state_dict()
    centre = weights_of(bench.new_model(0))
    networks = Given(radius=5.0).open(source_of(bench, weights=weights))
    for step in (0, 1, 7):
        assert float((weights_of(networks.at(step)) - centre).norm()) == pytest.approx(5.0, rel=1e-4)
    with pytest.raises(DistillError, match="pool=fresh"):
        Given().open(source_of(bench))


def test_online_loops_are_the_published_ones(bench):
    assert LOOPS == {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    for ipc, outer in ((1, 1), (5, 1), (10, 10), (19, 10), (200, 50)):
        assert Online().open(source_of(bench, ipc=ipc)).outer == outer  # pyright: ignore[reportAttributeAccessIssue]


def test_online_networks_are_trained_and_replaced(bench):
    """The epochs are plain SGD on the synthetic images: one update by hand; a new network after `outer` steps."""
    synthetic = side_of(8)
    networks = Online(outer=3, inner=1, lr=0.1).open(source_of(bench))
    seen = walk(networks, 4, synthetic)
    expected = bench.new_model(0)
    torch.nn.utils.vector_to_parameters(seen[0], expected.parameters())
    loss = F.cross_entropy(expected(synthetic.images_NCHW), synthetic.targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(expected.parameters()))])
    torch.testing.assert_close(seen[1], seen[0] - 0.1 * gradient, atol=1e-6, rtol=1e-5)
    assert float((seen[2] - seen[0]).norm()) < float((seen[3] - seen[0]).norm())
    fresh = Fresh().open(source_of(bench))
    assert torch.equal(seen[0], weights_of(fresh.at(0)))
    assert torch.equal(seen[3], weights_of(fresh.at(1)))


def test_queued_networks_learn_the_real_images(bench):
    """One network, trained again and again on the same real batch, comes to know it."""
    real = side_of(12, 1)
    networks = Queue(size=1, every=1000, trained=1, updates=30, lr=0.05).open(source_of(bench))
    network = networks.at(0)
    before = float(F.cross_entropy(network(real.images_NCHW), real.targets))
    networks.after(0, side_of(8), real)
    with torch.no_grad():
        after = float(F.cross_entropy(networks.at(1)(real.images_NCHW), real.targets))
    assert after < before / 2


def test_the_queue_holds_so_many_and_renews_the_oldest(bench):
    networks = Queue(size=2, every=2, trained=0, updates=0).open(source_of(bench))
    births = [weights_of(Fresh().open(source_of(bench)).at(birth)) for birth in range(4)]
    seen = walk(networks, 8)

    def number(weights):
        return next(n for n, birth in enumerate(births) if torch.equal(weights, birth))

    ages = [number(weights) for weights in seen]
    for step, birth in enumerate(ages):
        assert step // 2 - 1 <= birth <= step // 2  # the two youngest
    assert ages[:2] == [0, 0]
    assert len(networks.networks) == 2  # pyright: ignore[reportAttributeAccessIssue]


def test_training_ignores_the_synthetic_images_in_a_queue_and_the_real_ones_online(bench):
    for pool, axis in ((Queue(size=2, every=2), "synthetic"), (Online(outer=9, inner=1), "real")):
        a = walk(pool.open(source_of(bench)), 3)
        b = walk(pool.open(source_of(bench)), 3, **{axis: side_of(8, 5)})
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_mixed_batches_train_a_queue_as_its_distiller_says(bench):
    plain, mixed = (
        walk(Queue(size=1, every=9).open(replace(source_of(bench), augmentation=Siamese(cutmix=p))), 3) for p in (0, 1)
    )
    unmixed = walk(Queue(size=1, every=9).open(source_of(bench)), 3)
    assert all(torch.equal(a, b) for a, b in zip(plain, unmixed, strict=True))
    assert torch.equal(plain[0], mixed[0])
    assert not torch.equal(plain[1], mixed[1])


def real_source(bench, new_set, **more):
    return replace(source_of(bench), sets=(new_set({0: 9, 1: 7}),), normalization=bench.normalization, **more)


def test_interpolated_networks_lie_between_their_first_and_their_trained_weights(bench, new_set):
    networks = Interpolated(size=2, epochs=3, lr=0.1).open(real_source(bench, new_set))
    births = [weights_of(Fresh().open(source_of(bench)).at(number)) for number in range(2)]
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


def test_interpolated_networks_are_trained_on_the_real_images(bench, new_set):
    data = new_set({0: 9, 1: 7})
    images = bench.normalization.apply(data.images_NCHW)
    between = Interpolated(size=1, epochs=60, lr=0.05).open(real_source(bench, new_set)).at(0)
    with torch.no_grad():
        assert float(F.cross_entropy(between.trained(images), data.labels_N)) < 0.2
        assert torch.equal(between(images), between.classifier(between.embed(images)))
    assert {name.split(".")[0] for name, _ in between.named_parameters()} == {"network"}
    untrained = Interpolated(size=1, epochs=0).open(real_source(bench, new_set)).at(3)
    torch.testing.assert_close(weights_of(untrained.network), weights_of(untrained.trained))
    with pytest.raises(DistillError, match="batching=apart"):
        Interpolated().open(source_of(bench))


def test_an_interpolated_state_goes_on_without_training_again(bench, new_set, monkeypatch):
    whole = Interpolated(size=2, epochs=2).open(real_source(bench, new_set))
    assert whole.state() == {}  # before the first step
    whole.at(0)
    other = Interpolated(size=2, epochs=2).open(real_source(bench, new_set))
    other.restore(whole.state())
    monkeypatch.setattr(Training, "fit", None)
    for step in range(1, 4):
        a, b = whole.at(step), other.at(step)
        assert torch.equal(weights_of(a), weights_of(b))
        assert torch.equal(weights_of(a.trained), weights_of(b.trained))


@pytest.mark.parametrize("pool", [Fresh(), Online(outer=3, inner=1), Queue(size=2, every=2)])
def test_a_state_goes_on_bit_for_bit(bench, pool):
    whole = pool.open(source_of(bench))
    walk(whole, 3)
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    other = pool.open(source_of(bench))
    other.restore(state)
    for step in range(3, 7):
        assert torch.equal(weights_of(whole.at(step)), weights_of(other.at(step)))
        for networks in (whole, other):
            networks.after(step, side_of(8), side_of(12, 1))


def test_matched_networks_ask_for_no_gradient(bench):
    for pool in (Fresh(), Online(outer=9, inner=1), Queue(size=2, every=2)):
        networks = pool.open(source_of(bench))
        for step in range(3):
            assert not any(p.requires_grad for p in networks.at(step).parameters())
            networks.after(step, side_of(8), side_of(12, 1))


def test_only_what_is_the_same_for_all_sets_is_shared():
    assert Fresh().shared
    assert Given().shared
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
        with pytest.raises(ConfigError, match=r"pool\."):
            wrong()


def test_an_estimate_counts_but_does_not_train_the_networks_that_the_run_trains(bench):
    brief = Interpolated(size=20, epochs=60).brief()
    assert (brief.size, brief.epochs) == (1, 0)
    assert Fresh().brief() == Fresh()
    assert Fresh().beforehand() is None
    assert Interpolated(size=3, epochs=4, batch_size=30).beforehand().num_updates(100) == 3 * 4 * 4
    experts = Experts(num_experts=2, max_start=3, stretch=2, batch_size=30, folder="must not be made")
    assert experts.beforehand().num_updates(100) == 2 * 5 * 4
    stretch = experts.brief().open(source_of(bench)).at(0)
    assert not torch.equal(stretch.start_P, stretch.goal_P)
    assert not Path("must not be made").exists()
