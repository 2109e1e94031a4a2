"""What the learners' own rules keep: GDumb's quota, herded exemplars, prices of real images; and one forward pass."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.continual import remember
from fedcl.continual.remember import real_bytes, remember_herding
from fedcl.core.errors import ConfigError
from fedcl.core.types import Origin
from fedcl.distill.selection import herding
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer, chosen
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.training.recipe import Training
from strategies.continual.der import DERPlusPlus
from strategies.continual.eeil import EEIL
from strategies.continual.gdumb import GDUMB_TRAINING, GDumb
from strategies.continual.lwf import LwF

GDUMB = GDumb(training=replace(GDUMB_TRAINING, epochs=1), crop=0.0, every_step=False)


def gdumb_stream(ctx, stream, classes_of_steps, budget):
    """GDumb's state after each step of a stream that brings these classes, one image of each."""
    ctx, states, old = replace(ctx, budget=budget), [], torch.zeros(6, dtype=torch.bool)
    state = GDUMB.init(ctx)
    for index, classes in enumerate(classes_of_steps):
        data = stream.set(classes, index, Origin(step=index), count=1)
        seen = old | (data.counts_C > 0)
        step = replace(stream.step(0), data=data, index=index, num_steps=99, old_C=old, seen_C=seen)
        state, old = GDUMB.learn(state, step, ctx), seen
        states.append(state)
    return states


def test_gdumb_fills_a_class_at_whatever_step_its_images_come(ctx, stream):
    states = gdumb_stream(ctx, stream, [[0], [0, 1], [1, 0], [0], [2, 0, 1]], Budget(images=12))
    counts = [state.buffer.labels_N.bincount(minlength=6).tolist()[:3] for state in states]
    assert counts == [[1, 0, 0], [2, 1, 0], [2, 2, 0], [2, 2, 0], [2, 2, 1]]  # two of each, the first to come
    steps = states[-1].buffer.steps_M[states[-1].buffer.labels_N == 0]
    assert steps.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (Budget(images=12), [2, 2, 2, 2, 2, 2]),
        (Budget(images=16), [3, 3, 3, 3, 2, 2]),
        (Budget(images=4), [1, 1, 1, 1]),
        (Budget(bytes=17 * 16 + 16), [3, 3, 3, 3, 2, 2]),
        (Budget(ipc=2), [2, 2, 2, 2, 2, 2]),
    ],
    ids=str,
)
def test_gdumb_uses_all_of_its_budget(budget, counts, ctx, stream):
    ctx = replace(ctx, budget=budget)
    states = stream.learn(GDUMB, ctx)
    assert states[-1].buffer.labels_N.bincount().tolist() == counts
    for index, state in enumerate(states):  # and at each step no more of a class than in the end
        assert state.buffer.labels_N.bincount(minlength=6).tolist()[: 2 * index] == [*counts, 0, 0, 0][: 2 * index]


def test_the_price_of_a_real_image_is_what_the_buffer_asks(ctx, stream):
    """16 pixels and a label; two bytes where there are more than 256 classes; logits at the storage's width."""
    assert real_bytes(ctx) == 16 + 1
    assert real_bytes(replace(ctx, num_classes=300)) == 16 + 2
    coarse = replace(ctx, budget=Budget(bytes=1000, storage="uint8"))
    assert real_bytes(coarse, logits=torch.zeros(1, 6)) == 16 + 1 + 2 * 6
    many = replace(ctx, num_classes=300, budget=Budget(bytes=18 * 301 + 17))
    assert GDUMB.quota(many).tolist() == [2] + [1] * 299


def test_der_holds_as_many_as_the_budget_pays_for(ctx, stream):
    der = DERPlusPlus(training=Training(updates=3, batch_size=8))
    here = replace(ctx, budget=Budget(bytes=41 * 5 + 40))  # 16 pixels, a label, 6 logits of 4 bytes
    assert der.room(here) == len(stream.learn(der, here)[-1].buffer) == 5
    with pytest.raises(ConfigError, match=r"buffer.bytes=40 holds no image with its logits, 41 bytes"):
        stream.learn(der, replace(ctx, budget=Budget(bytes=40)))


def remember_all(buffer, data, model, ctx):
    """Every image ranked by herding, whatever the budget: what `remember_herding` must be equal to."""
    features = F.normalize(model.embed(ctx.inputs.apply(data.inputs))).detach()
    picks, ranks = [], []
    for label in data.labels_N.unique().tolist():
        rows = torch.nonzero(data.labels_N == label)[:, 0]
        picks.append(rows[herding(features[rows], len(rows), 0)])
        ranks.append(torch.arange(len(rows), dtype=torch.float64))
    return buffer.add(chosen(data.select(torch.cat(picks)), ctx.inputs, "herding"), torch.cat(ranks))


@pytest.mark.parametrize("balance", ["classes", "steps", "none"])
@pytest.mark.parametrize("size", [{"images": 1}, {"images": 13}, {"images": 40}, {"bytes": 17 * 9 + 3}, {"ipc": 2}])
def test_herding_ranks_no_more_than_can_stay(size, balance, ctx, stream, monkeypatch):
    """The same exemplars as if whole classes had been ranked, in streams of any kind."""
    if "ipc" in size and balance == "steps":
        balance = "classes"
    asked = []
    monkeypatch.setattr(remember, "herding", lambda x, n, seed: (asked.append(n), herding(x, n, seed))[1])
    model = ctx.new_model(0)
    few = everything = Buffer(budget=Budget(**size, balance=balance))
    for index, classes in enumerate([(0, 1), (2, 3, 4), (1, 3), (5,), range(6)]):
        data = stream.set(classes, index, Origin(step=index), count=3 + 5 * (index % 3))
        data = data.select(torch.randperm(len(data), generator=torch.Generator().manual_seed(index)))
        asked.clear()
        few, everything = remember_herding(few, data, model, ctx), remember_all(everything, data, model, ctx)
        assert all(torch.equal(a, b) for a, b in zip(few.replay(), everything.replay(), strict=True))
        assert sum(asked) == int((few.rows("step_N") == index).sum())


@pytest.mark.parametrize("make", [LwF, EEIL])
def test_the_student_looks_once_an_update(make, ctx, stream):
    """Batch norm counts the batches: four updates at each of two steps."""
    here = replace(ctx, model=BatchNormMLP(hidden=(8,)))
    state = stream.learn(make(training=Training(updates=4, batch_size=8)), here, steps=2)[-1]
    counts = {int(value) for name, value in state.weights.items() if name.endswith("num_batches_tracked")}
    assert counts == {8}
