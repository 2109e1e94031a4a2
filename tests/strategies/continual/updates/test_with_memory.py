"""Updates by hand of learners with a memory: weights against the formula of the paper, written out once more."""

from dataclasses import replace

import pytest
import torch

from fedcl.core.seeding import derive
from fedcl.memory.budget import Budget
from fedcl.training.recipe import Training
from strategies.continual.compress_recall import CompressRecall
from strategies.continual.der import DERPlusPlus
from strategies.continual.distilled_replay import DistilledReplay
from strategies.continual.eeil import EEIL
from strategies.continual.gdumb import GDumb
from strategies.continual.icarl import ICaRL
from strategies.continual.replay import Replay


@pytest.mark.parametrize("make", [Replay, DistilledReplay])
def test_replay(hand, make, after_one, ctx):
    strategy = make(training=hand.TWO)
    state, step, seed = after_one(strategy)
    assert len(state.buffer) == 4
    x, y = hand.beside(step, state.buffer, ctx)
    hand.equal(strategy.learn(state, step, ctx).weights, hand.two_updates(state.weights, x, hand.plain(y, 4), seed))


def test_compress_recall_learns_from_memory_alone(hand, after_one, ctx):
    recall = CompressRecall(training=hand.TWO)
    state, step, seed = after_one(recall)
    found = recall.learn(state, step, ctx)
    x, y = found.buffer.replay()
    assert len(y) == 8
    hand.equal(found.weights, hand.two_updates(recall.init(ctx).weights, x, hand.plain(y, 4), seed))


def test_gdumb(hand, ctx, step):
    """Epoch 0 at lr / 10, epoch 1 at lr; clipped gradients, then weight decay and momentum; memory alone."""
    training = Training(epochs=2, lr=0.2, momentum=0.9, weight_decay=0.01, clip=0.3, schedule="restarts")
    gdumb = GDumb(training=training, crop=0.0)
    start = gdumb.init(ctx)
    found = gdumb.learn(start, step(0), ctx)
    x, y = found.buffer.replay()
    assert sorted(y.tolist()) == [0, 0, 1, 1]
    w, v = start.weights, dict.fromkeys(start.weights, 0.0)
    for rate in (0.02, 0.2):
        g = hand.gradient(w, lambda w: hand.cross_entropy(hand.scores(w, x)[:, :2], y))
        norm = sum(float(value.square().sum()) for value in g.values()) ** 0.5
        assert norm > 0.3
        v = {name: 0.9 * v[name] + 0.3 * g[name] / norm + 0.01 * w[name] for name in w}
        w = {name: w[name] - rate * v[name] for name in w}
    hand.equal(found.weights, w, rtol=1e-5, atol=1e-8)  # clipping adds 1e-6 to the norm


def eeil_loss(hand, state, y, new_N, classes, old, old_of_new):
    """Cross-entropy over all classes seen, and distillation over the old ones; of new images over fewer of them."""

    def loss(w, x, r):
        def known(r):
            ours, teachers = hand.scores(w, x), hand.scores(state.weights, x)
            far = hand.soft_cross_entropy_N(teachers[:, :old], ours[:, :old])
            near = hand.soft_cross_entropy_N(teachers[:, :old_of_new], ours[:, :old_of_new])
            return torch.where(new_N[r], near, far).mean()

        return hand.plain(y, classes)(w, x, r) + hand.STRENGTH * hand.parts(known, r)

    return loss


@pytest.mark.parametrize("returned", [False, True])
def test_eeil(hand, returned, after_one, ctx):
    """The step on new data and memory, then the balanced phase on memory alone, which now holds the step too.

    Where class 1 comes back, this step's images of all classes are distilled over class 0 alone.
    """
    eeil = EEIL(training=hand.TWO, balanced=hand.TWO, temperature=hand.T, strength=hand.STRENGTH)
    state, step, seed = after_one(eeil)
    if returned:
        labels = torch.tensor([1] * 4 + [2] * 4)
        seen = torch.arange(6) < 3
        step = replace(step, data=replace(step.data, labels_N=labels), seen_C=seen)
    classes, old_of_new = (3, 1) if returned else (4, 2)
    found = eeil.learn(state, step, ctx)
    x, y = hand.beside(step, state.buffer, ctx)
    loss = eeil_loss(hand, state, y, torch.arange(16) < 8, classes, 2, old_of_new)
    w = hand.two_updates(state.weights, x, loss, seed)
    x, y = found.buffer.replay()
    new_N = found.buffer.rows("step_N") == 1
    assert new_N.any()
    loss = eeil_loss(hand, state, y, new_N, classes, 2, old_of_new)
    hand.equal(found.weights, hand.two_updates(w, x, loss, derive(ctx.seed, "balanced training", step=1)))


@pytest.mark.parametrize("returned", [False, True])
def test_icarl(hand, returned, after_one, ctx):
    """Algorithm 3: binary cross-entropy summed over the classes seen; old classes learn the old network's outputs,
    new ones their labels. Where class 1 comes back, this step's images have labels for it, memory's have not."""
    icarl = ICaRL(training=hand.TWO)
    state, step, seed = after_one(icarl)
    if returned:
        labels = torch.tensor([1] * 4 + [2] * 4)
        step = replace(step, data=replace(step.data, labels_N=labels), seen_C=torch.arange(6) < 3)
    classes = 3 if returned else 4
    x, y = hand.beside(step, state.buffer, ctx)
    own = torch.eye(6, dtype=torch.float64)[y]
    taught = torch.zeros(16, 6, dtype=torch.bool)
    taught[:, :2] = True
    if returned:
        taught[:8, 1] = False

    def loss(w, x, r):
        p = 1 / (1 + torch.exp(-hand.scores(w, x)))
        q = 1 / (1 + torch.exp(-hand.scores(state.weights, x)))
        t = hand.parts(lambda r: torch.where(taught[r], q, own[r]), r)
        return -(t * p.log() + (1 - t) * (1 - p).log())[:, :classes].sum(1).mean()

    hand.equal(icarl.learn(state, step, ctx).weights, hand.two_updates(state.weights, x, loss, seed))


def test_icarl_means_are_of_unit_length(hand, after_one, ctx):
    """Algorithm 1, with mu of unit length as phi is: scores are minus the squared distance to it."""
    icarl = ICaRL(training=hand.TWO)
    state, step, _ = after_one(icarl)
    w, (x, y) = state.weights, state.buffer.replay()

    def phi(x):
        h = torch.tanh(x.flatten(1).double() @ w["hidden.weight"].T + w["hidden.bias"])
        return h / h.square().sum(1, keepdim=True).sqrt()

    means = torch.stack([phi(x)[y == c].mean(0) for c in (0, 1)])
    lengths = means.square().sum(1, keepdim=True).sqrt()
    assert (lengths < 0.99).all()  # not of unit length by themselves
    test = hand.pixels(step.data, ctx)
    wanted = -(phi(test)[:, None] - (means / lengths)[None]).square().sum(2)
    with torch.no_grad():
        found = icarl.model(state, ctx)(test)
    torch.testing.assert_close(found[:, :2], wanted, rtol=1e-9, atol=1e-12)
    assert (found[:, 2:] == -torch.inf).all()


def test_der(hand, ctx, step):
    """Equation 6, with one image in memory, so that every draw is of it: cross-entropy + alpha |h(x) - z|^2 + beta
    cross-entropy of memory. Squared error is the mean over outputs, as in the paper's code."""
    one = replace(hand.TWO, updates=1, augmentation=hand.Doubled(blend=False))
    der = DERPlusPlus(training=one, alpha=0.3, beta=0.6)
    ctx = replace(ctx, budget=Budget(images=1))
    state = der.learn(der.init(ctx), step(0), ctx)
    (x, y), z = state.buffer.replay(), state.buffer.column("logits")
    data = step(1).data

    def loss(w):
        value = hand.cross_entropy(hand.scores(w, 2 * hand.pixels(data, ctx)), data.labels_N)
        value = value + 0.3 * (hand.scores(w, 2 * x) - z).square().mean()
        return value + 0.6 * hand.cross_entropy(hand.scores(w, 2 * x), y)

    g = hand.gradient(state.weights, loss)
    wanted = {name: state.weights[name] - 0.1 * g[name] for name in g}
    hand.equal(der.learn(state, step(1), ctx).weights, wanted, rtol=1e-6, atol=1e-8)


def test_der_keeps_the_logits_of_the_last_visit(hand, ctx, step):
    """Every row is in every batch, so that what is kept of each is the output just before the last update."""
    ctx = replace(ctx, budget=Budget(images=8))
    constant = replace(hand.TWO, schedule="constant", augmentation=hand.Doubled(blend=False))
    before, after = (
        DERPlusPlus(training=replace(constant, updates=updates)).learn(
            DERPlusPlus(training=constant).init(ctx), step(0), ctx
        )
        for updates in (2, 3)
    )
    x, _ = after.buffer.replay()
    assert len(x) == 8
    wanted = hand.scores(before.weights, 2 * x)
    torch.testing.assert_close(after.buffer.column("logits").double(), wanted, rtol=1e-5, atol=1e-6)
    assert (wanted - hand.scores(after.weights, 2 * x)).abs().max() > 1e-3
