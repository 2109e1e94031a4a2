"""Updates by hand of learners without memory: weights against the formula of the paper, written out once more."""

from dataclasses import replace

import torch

from fedcl.core.seeding import derive
from strategies.continual.ewc import EWC
from strategies.continual.finetune import Finetune
from strategies.continual.joint import Joint
from strategies.continual.lwf import LwF


def test_finetune(hand, after_one, ctx):
    finetune = Finetune(training=hand.TWO)
    state, step, seed = after_one(finetune)
    wanted = hand.two_updates(state.weights, hand.pixels(step.data, ctx), hand.plain(step.data.labels_N, 4), seed)
    hand.equal(finetune.learn(state, step, ctx).weights, wanted)


def test_finetune_by_squared_error(hand, after_one, ctx):
    """Half the squared distance to one-hot - 1/C over the classes seen, which is what training.loss=mse says."""
    finetune = Finetune(training=replace(hand.TWO, loss="mse"))
    state, step, seed = after_one(finetune)
    y = torch.eye(6, dtype=torch.float64)[step.data.labels_N] - 1 / 6

    def loss(w, x, r):
        return hand.parts(lambda r: 0.5 * (hand.scores(w, x) - y[r])[:, :4].square().sum(1).mean(), r)

    wanted = hand.two_updates(state.weights, hand.pixels(step.data, ctx), loss, seed)
    hand.equal(finetune.learn(state, step, ctx).weights, wanted, rtol=1e-6, atol=1e-8)  # its targets are float32


def test_joint_starts_anew_on_everything(hand, after_one, ctx):
    joint = Joint(training=hand.TWO)
    state, step, seed = after_one(joint)
    data = step.history()
    wanted = hand.two_updates(joint.init(ctx).weights, hand.pixels(data, ctx), hand.plain(data.labels_N, 4), seed)
    hand.equal(joint.learn(state, step, ctx).weights, wanted)


def test_ewc(hand, after_one, step, ctx):
    """Equation 3: cross-entropy + lambda / 2 sum_k F_k (w - w_k)^2, over the two steps before."""
    ewc = EWC(training=hand.TWO, strength=50.0, fisher_examples=5)
    first, second, _ = after_one(ewc)
    state, third = ewc.learn(first, second, ctx), step(2)
    fisher = {name: (first.tensors[f"fisher/{name}"], state.tensors[f"fisher/{name}"]) for name in state.weights}
    data = third.data.labels_N

    def loss(w, x, r):
        value = hand.plain(data, 6)(w, x, r)
        for name, (one, both) in fisher.items():
            value = value + 25.0 * (one * (w[name] - first.weights[name]).square()).sum()
            value = value + 25.0 * ((both - one) * (w[name] - state.weights[name]).square()).sum()
        return value

    wanted = hand.two_updates(state.weights, hand.pixels(third.data, ctx), loss, derive(ctx.seed, "training", step=2))
    hand.equal(ewc.learn(state, third, ctx).weights, wanted)


def test_fisher_draws_labels_from_the_model(hand, ctx, step):
    """400 copies of one image, two classes: F is the mean of g_0^2 and g_1^2, weighted as often as each was drawn,
    and that is a binomial number. Labels by argmax, or the data's own, would be of one kind."""
    ewc, count = EWC(training=hand.TWO, fisher_examples=400), 400
    here = replace(step(0), data=step(0).data.select([0] * count))
    model = ctx.new_model(3)
    w = {name: value.detach() for name, value in model.state_dict().items()}
    x = hand.pixels(here.data, ctx)[:1]
    p = hand.log_softmax(hand.scores(w, x)[:, :2]).exp()[0]
    squares = [hand.gradient(w, lambda w, y=y: hand.log_softmax(hand.scores(w, x)[:, :2])[0, y]) for y in (0, 1)]
    squares = [{name: value.square() for name, value in g.items()} for g in squares]
    found = ewc.fisher(model, here, ctx)
    one, zero, mean = (d["classifier.bias"][0] for d in (squares[1], squares[0], found))
    drawn = float((mean - zero) / (one - zero))  # part of the labels that are 1
    assert abs(drawn * count - round(drawn * count)) < 1e-6
    hand.equal(found, {name: (1 - drawn) * squares[0][name] + drawn * squares[1][name] for name in w})
    assert 0.2 < p[1] < 0.8
    assert abs(drawn - float(p[1])) < 4 * float(p[0] * p[1] / count) ** 0.5


def test_lwf(hand, after_one, ctx):
    """Equation 2: cross-entropy + lambda T^2 cross-entropy of softened outputs of the old classes."""
    lwf = LwF(training=hand.TWO, temperature=hand.T, strength=hand.STRENGTH)
    state, step, seed = after_one(lwf)

    def loss(w, x, r):
        known = hand.soft_cross_entropy_N(hand.scores(state.weights, x)[:, :2], hand.scores(w, x)[:, :2]).mean()
        return hand.plain(step.data.labels_N, 4)(w, x, r) + hand.STRENGTH * known

    hand.equal(
        lwf.learn(state, step, ctx).weights,
        hand.two_updates(state.weights, hand.pixels(step.data, ctx), loss, seed),
    )
