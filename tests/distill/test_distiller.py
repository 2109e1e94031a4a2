"""Laws of the one loop: a batch is one at a time, going on is not stopping, randomness has names."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from fedcl.core.errors import ConfigError, DistillError
from fedcl.distill.blobs import encode
from fedcl.distill.initializers import Noise
from fedcl.distill.journal import CheckpointStore
from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.interpolated import Interpolated
from fedcl.distill.networks.online import Online
from fedcl.distill.networks.queue import Queue
from fedcl.distill.objectives.characteristic import Characteristic
from fedcl.distill.objectives.gradient import Gradient
from fedcl.training.augmentation import Siamese

SETS = [({0: 20, 1: 5, 3: 1}, 0), ({2: 9, 3: 12}, 1), ({}, 2), ({1: 8}, 5)]  # large, small, absent and empty


def gap(a, b):
    pairs = zip(a.values(), b.values(), strict=True)
    return max((float((x - y).abs().max()) for x, y in pairs if x.numel()), default=0.0)


@pytest.mark.parametrize("reuse", [1, 2])
@pytest.mark.parametrize("augmentation", [Siamese(), Siamese(groups=("crop",))])
def test_a_batch_is_one_at_a_time(new_set, new_distiller, ctx, reuse, augmentation):
    sets = [new_set(*spec) for spec in SETS]
    distiller = new_distiller(batching="together", augmentation=augmentation, steps=4, reuse=reuse)
    together = distiller.distill(sets, 7, ctx)
    for data, summary in zip(sets, together, strict=True):
        alone = distiller.distill([data], 7, ctx)[0]
        assert torch.equal(summary.targets, alone.targets)
        assert summary.origin == alone.origin == data.origin
        assert gap(summary.arrays, alone.arrays) <= 1e-5


def test_on_the_cpu_a_batch_is_one_at_a_time_bit_for_bit(new_set, new_distiller, ctx):
    sets = [new_set(*spec) for spec in SETS]
    distiller = new_distiller(augmentation=Siamese())
    together = distiller.distill(sets, 7, ctx)
    alone = [distiller.distill([data], 7, ctx)[0] for data in reversed(sets)][::-1]
    assert [s.sha256() for s in together] == [s.sha256() for s in alone]


def test_what_a_summary_holds(new_set, new_distiller, ctx):
    data = new_set({0: 20, 1: 5, 3: 1})
    summary = new_distiller(ipc=3).distill([data], 0, ctx)[0]
    assert summary.targets.tolist() == [0, 0, 0, 1, 1, 1, 3]  # class 2 absent, class 3 has one image only
    assert summary.num_source_C.tolist() == [20, 5, 0, 1]
    assert encode(summary).num_bytes == 7 * 64 * 4 + 7
    noise = new_distiller(ipc=3, initializer=Noise()).distill([data], 0, ctx)[0]
    assert noise.targets.tolist() == [0, 0, 0, 1, 1, 1, 3, 3, 3]


def test_a_set_without_images_gives_an_empty_summary(new_set, new_distiller, ctx):
    for distiller in (new_distiller(), new_distiller(steps=0), new_distiller(batching="together")):
        empty, full = distiller.distill([new_set({}), new_set({1: 4})], 0, ctx)
        assert empty.num_images == 0
        assert full.num_images == 2
        images, targets = empty.decode()
        assert images.shape == (0, 1, 8, 8)
        assert targets.shape == (0,)
    assert new_distiller().distill([], 0, ctx) == []


def test_no_steps_leave_the_initial_images(new_set, new_distiller, ctx):
    data = new_set({0: 6, 1: 6})
    start = new_distiller(steps=0).distill([data], 3, ctx)[0]
    moved = new_distiller(steps=1).distill([data], 3, ctx)[0]
    held = ctx.inputs.apply(data.inputs)
    assert all((held == image).flatten(1).all(1).any() for image in start.decode()[0])
    assert not torch.equal(moved.arrays["images"], start.arrays["images"])


def test_one_step_is_the_gradient_step(new_set, new_distiller, ctx):
    """Against the loss written out: class means of features of one fresh network, plain SGD."""
    data = new_set({0: 6, 1: 6})
    distiller = new_distiller(steps=1, optimizer=partial(torch.optim.SGD, lr=0.3))
    start = replace(distiller, steps=0).distill([data], 3, ctx)[0].decode()[0]
    network = distiller.networks.open(_source(distiller, ctx, 3)).at(0).network
    images = start.clone().requires_grad_()
    real = ctx.inputs.apply(data.inputs)
    loss = sum(
        (network.embed(images[2 * c : 2 * c + 2]).mean(0) - network.embed(real[data.labels_N == c]).mean(0))
        .square()
        .sum()
        for c in (0, 1)
    )
    gradient = torch.autograd.grad(loss, images)[0]
    after = distiller.distill([data], 3, ctx)[0].arrays["images"]
    torch.testing.assert_close(after, start - 0.3 * gradient, atol=1e-6, rtol=1e-5)


def _source(distiller, ctx, key):
    from fedcl.core.seeding import derive
    from fedcl.distill.networks.base import NetworkSource

    return NetworkSource(new_model=ctx.new_model, seed=derive(key, "networks"), ipc=distiller.ipc)


def test_reuse_spends_networks_sparingly(new_set, new_distiller, ctx):
    """With reuse the first updates see the first network again; the second half sees the second one."""
    data = new_set({0: 6, 1: 6})
    seen = []

    class Spy(type(new_distiller().networks)):
        def open(self, source):
            networks = super().open(source)
            at, after = networks.at, networks.after
            networks.at = lambda step: (seen.append(("at", step)), at(step))[1]
            networks.after = lambda step, s, r: (seen.append(("after", step)), after(step, s, r))[1]
            return networks

    new_distiller(steps=5, reuse=2, networks=Spy()).distill([data], 0, ctx)
    assert seen == [("at", 0), ("after", 0), ("at", 1), ("after", 1), ("at", 2)]


def test_reuse_of_one_network_is_descent_on_one_loss(new_set, new_distiller, ctx):
    data = new_set({0: 6, 1: 6})
    losses = []

    class Listener(type(ctx.progress)):
        def advance(self, task, amount=1, **figures):
            losses.extend(figures.values())

    quiet = replace(ctx, progress=Listener())
    for steps in (1, 21):
        new_distiller(steps=steps, reuse=100, initializer=Noise()).distill([data], 0, quiet)
    assert losses[-1] < losses[0]


def test_starting_from_a_summary_goes_on_from_its_arrays(new_set, new_distiller, ctx):
    sets = [new_set({0: 6, 1: 6}), new_set({2: 6}, client=1)]
    distiller = new_distiller(optimizer=partial(torch.optim.SGD, lr=0.0))
    start = replace(distiller, initializer=Noise()).distill(sets, 1, ctx)
    for batching in ("one_at_a_time", "together"):
        again = replace(distiller, batching=batching).distill(sets, 2, ctx, start=start)
        assert [s.sha256() for s in again] == [s.sha256() for s in start]
    with pytest.raises(DistillError, match="start holds 1"):
        distiller.distill(sets, 2, ctx, start=start[:1])
    with pytest.raises(DistillError, match="start does not fit"):
        distiller.distill(sets, 2, ctx, start=start[::-1])


class Shelf(CheckpointStore):
    """A store in memory that stops the run after the k-th state."""

    every = 2

    def __init__(self, stop_after):
        self.kept, self.stop_after = {}, stop_after

    def load(self, run):
        return self.kept.get(run)

    def save(self, run, state):
        self.kept[run] = state
        self.stop_after -= 1
        if self.stop_after == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("networks", "objective"),
    [
        (None, None),
        (Online(outer=3, inner=1), Gradient()),
        (Queue(size=2, every=2), None),
        (Interpolated(size=2, epochs=1), Characteristic(frequencies=8, calibration=1.0)),
    ],
    ids=["fresh", "online", "queue", "interpolated"],
)
@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.1, momentum=0.5), torch.optim.Adam])
def test_an_interrupted_run_goes_on_bit_for_bit(new_set, new_distiller, ctx, networks, objective, optimizer):
    axes = {"networks": networks, "objective": objective}
    distiller = new_distiller(
        steps=7,
        augmentation=Siamese(),
        optimizer=optimizer,
        **{name: axis for name, axis in axes.items() if axis is not None},
    )
    sets = [new_set({0: 20, 1: 4}), new_set({1: 9}, client=1)]
    whole = distiller.distill(sets, 5, ctx)
    for stop_after in (1, 3, 5, 8):
        shelf = Shelf(stop_after)
        with pytest.raises(KeyboardInterrupt):
            distiller.distill(sets, 5, ctx, store=shelf)
        resumed = distiller.distill(sets, 5, ctx, store=shelf)
        assert [s.sha256() for s in resumed] == [s.sha256() for s in whole], stop_after


def test_a_state_of_another_distillation_is_refused(new_set, new_distiller, ctx):
    shelf = Shelf(100)
    new_distiller().distill([new_set({0: 6})], 0, ctx, store=shelf)
    with pytest.raises(DistillError, match="checkpoint"):
        new_distiller(ipc=3).distill([new_set({0: 6})], 0, ctx, store=shelf)


def test_a_loss_that_is_not_finite_stops_before_it_is_kept(new_set, new_distiller, ctx):
    shelf = Shelf(100)
    distiller = new_distiller(steps=60, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(DistillError, match=r"loss is .* lower distiller.optimizer.lr"):
        distiller.distill([new_set({0: 6})], 0, ctx, store=shelf)
    assert all(torch.isfinite(t).all() for state in shelf.kept.values() for t in state.values())


@pytest.mark.parametrize("networks", [None, Online(outer=2, inner=1), Queue(size=2, every=2)])
def test_no_global_random_state_is_touched(new_set, new_distiller, ctx, networks):
    axes = {} if networks is None else {"networks": networks}
    before = torch.get_rng_state()
    new_distiller(augmentation=Siamese(), **axes).distill([new_set({0: 12, 1: 12})], 0, ctx)
    assert torch.equal(torch.get_rng_state(), before)


def test_keys_and_clients_name_the_streams(new_set, new_distiller, ctx):
    distiller = new_distiller(augmentation=Siamese())
    data = new_set({0: 20, 1: 20})
    one = distiller.distill([data], 0, ctx)[0]
    assert one.sha256() == distiller.distill([data], 0, ctx)[0].sha256()
    assert one.sha256() != distiller.distill([data], 1, ctx)[0].sha256()
    elsewhere = replace(data, origin=replace(data.origin, client=1))
    assert not torch.equal(one.arrays["images"], distiller.distill([elsewhere], 0, ctx)[0].arrays["images"])


def test_the_order_of_examples_does_not_matter_to_full_batches(new_set, new_distiller, ctx):
    data = new_set({0: 6, 1: 6})
    turned = data.select(torch.arange(len(data)).flip(0))
    distiller = new_distiller(initializer=Noise())
    a, b = (distiller.distill([d], 0, ctx)[0].arrays["images"] for d in (data, turned))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_given_weights_are_matched_around(new_set, new_distiller, ctx):
    data = new_set({0: 6, 1: 6})
    distiller = new_distiller(networks=AroundGlobal(radius=0.0))
    weights = ctx.new_model(3).state_dict()
    one = distiller.distill([data], 0, ctx, weights=weights)[0]
    other = distiller.distill([data], 0, ctx, weights=ctx.new_model(4).state_dict())[0]
    assert not torch.equal(one.arrays["images"], other.arrays["images"])
    with pytest.raises(DistillError, match="networks=fresh"):
        distiller.distill([data], 0, ctx)


def test_a_set_of_another_kind_is_refused(new_set, new_distiller, ctx):
    for odd in (new_set({0: 3}, side=6), new_set({0: 3}, num_classes=5)):
        with pytest.raises(DistillError, match="cannot be distilled"):
            new_distiller().distill([odd], 0, ctx)


@pytest.mark.parametrize("wrong", [{"ipc": 0}, {"steps": -1}, {"reuse": 0}, {"batching": "both"}])
def test_wrong_numbers_are_named(new_distiller, wrong):
    with pytest.raises(ConfigError, match=r"distiller\."):
        new_distiller(**wrong)
