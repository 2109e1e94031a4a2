"""Every strategy's updates by hand: weights in float64 against the formula of its paper, written out once more.

Two updates on the whole set, the second at a tenth of the rate; images are doubled by the augmentation, which also
blends each with the one at the other end of the batch (but for DER++, which refuses that).

Legend: w weights by name, x images as a batch, y labels of all rows, r the batch's rows, p(r) parts of a loss.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from fedcl.augmentation import Augmentation
from fedcl.buffer import Budget
from fedcl.models.base import Model
from fedcl.seeding import derive, torch_rng
from fedcl.training import Training
from fedcl.types import Origin
from strategies.continual.compress_recall import CompressRecall
from strategies.continual.der import DERPlusPlus
from strategies.continual.distilled_replay import DistilledReplay
from strategies.continual.eeil import EEIL
from strategies.continual.ewc import EWC
from strategies.continual.finetune import Finetune
from strategies.continual.gdumb import GDumb
from strategies.continual.icarl import ICaRL
from strategies.continual.joint import Joint
from strategies.continual.lwf import LwF
from strategies.continual.replay import Replay

EACH = 4  # images of a class
KEPT = 0.75  # of an image, and of its label, where it is blended
T, STRENGTH = 3.0, 0.7


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden = torch.nn.Linear(16, 5, dtype=torch.float64)
        self.classifier = torch.nn.Linear(5, num_classes, dtype=torch.float64)

    def embed(self, images):
        return torch.tanh(self.hidden(images.flatten(1).double()))

    def forward(self, images):
        return self.classifier(self.embed(images))


@dataclass(frozen=True, kw_only=True)
class Small(Model):
    def architecture(self, shape_CHW, num_classes):
        return Net(num_classes)


@dataclass(frozen=True, kw_only=True)
class Doubled(Augmentation):
    """Nothing random, and everything at once: a change of each image, and of two into one."""

    blend: bool = True

    def draw(self, count, generator, *, flip):
        return None

    def apply(self, images, draw, row_N=None):
        return 2 * images

    @property
    def mixes(self):
        return self.blend

    def mix(self, images, targets, generator):
        if not self.blend:
            return super().mix(images, targets, generator)
        mixed = KEPT * images + (1 - KEPT) * images.flip(0)
        return mixed, ((KEPT, targets), (1 - KEPT, targets.flip(0)))


TWO = Training(
    updates=2,
    batch_size=1000,
    lr=0.1,
    momentum=0.0,
    weight_decay=0.0,
    schedule="step",
    milestones=(0.5,),
    decay=0.1,
    augmentation=Doubled(),
)


def scores(w, x):
    h = torch.tanh(x.flatten(1).double() @ w["hidden.weight"].T + w["hidden.bias"])
    return h @ w["classifier.weight"].T + w["classifier.bias"]


def log_softmax(s):
    return s - s.exp().sum(1, keepdim=True).log()


def cross_entropy(s, y):
    return -log_softmax(s)[torch.arange(len(y)), y].mean()


def soft_cross_entropy_N(teacher, student):
    """T^2 times the cross-entropy of outputs at temperature T, of each row."""
    p = (teacher / T).exp()
    return -(T**2) * (p / p.sum(1, keepdim=True) * log_softmax(student / T)).sum(1)


def parts(of_rows, r):
    return KEPT * of_rows(r) + (1 - KEPT) * of_rows(r.flip(0))


def gradient(w, loss):
    leaves = {name: value.clone().requires_grad_() for name, value in w.items()}
    found = torch.autograd.grad(loss(leaves), list(leaves.values()))
    return dict(zip(w, found, strict=True))


def two_updates(w, images, loss, seed):
    """Gradient descent at rates 0.1 and 0.01; `loss` is of (w, x, r)."""
    order = torch_rng(seed, "batches")
    for rate in (0.1, 0.01):
        r = torch.randperm(len(images), generator=order)
        x = 2 * images[r]
        x = KEPT * x + (1 - KEPT) * x.flip(0)
        g = gradient(w, lambda v, x=x, r=r: loss(v, x, r))
        w = {name: w[name] - rate * g[name] for name in w}
    return w


def equal(found, wanted, **tolerance):
    assert set(found) == set(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], **(tolerance or {"rtol": 1e-9, "atol": 1e-12}))


@pytest.fixture
def tools(tools):
    distiller = replace(tools.distiller, steps=0, ipc=2)
    return replace(tools, model=Small(), budget=Budget(ipc=2), distiller=distiller)


@pytest.fixture
def step(stream):
    def make(index):
        step = stream.step(index)
        data = stream.set([2 * index, 2 * index + 1], index, Origin(step=index), count=EACH)
        return replace(step, data=data)

    return make


@pytest.fixture
def after_one(tools, step):
    """(strategy) -> its state after the first step; the second; the training seed of the second."""

    def learn(strategy):
        return strategy.learn(strategy.init(tools), step(0), tools), step(1), derive(tools.seed, "training", step=1)

    return learn


def pixels(data, tools):
    return tools.normalization.apply(data.images_NCHW)


def beside(step, buffer, tools):
    """The step's images, then memory as often as it takes to have as much of it; all rows' labels."""
    memory, labels = buffer.replay()
    often = len(step.data) // len(labels)
    x = torch.cat([pixels(step.data, tools), *[memory] * often])
    return x, torch.cat([step.data.labels_N, *[labels] * often])


def plain(y, classes):
    """Cross-entropy over the first `classes` outputs."""
    return lambda w, x, r: parts(lambda r: cross_entropy(scores(w, x)[:, :classes], y[r]), r)


def test_finetune(after_one, tools):
    finetune = Finetune(training=TWO)
    state, step, seed = after_one(finetune)
    wanted = two_updates(state.weights, pixels(step.data, tools), plain(step.data.labels_N, 4), seed)
    equal(finetune.learn(state, step, tools).weights, wanted)


def test_finetune_by_squared_error(after_one, tools):
    """Half the squared distance to one-hot - 1/C over the classes seen, which is what training.loss=mse says."""
    finetune = Finetune(training=replace(TWO, loss="mse"))
    state, step, seed = after_one(finetune)
    y = torch.eye(6, dtype=torch.float64)[step.data.labels_N] - 1 / 6

    def loss(w, x, r):
        return parts(lambda r: 0.5 * (scores(w, x) - y[r])[:, :4].square().sum(1).mean(), r)

    wanted = two_updates(state.weights, pixels(step.data, tools), loss, seed)
    equal(finetune.learn(state, step, tools).weights, wanted, rtol=1e-6, atol=1e-8)  # its targets are float32


def test_joint_starts_anew_on_everything(after_one, tools):
    joint = Joint(training=TWO)
    state, step, seed = after_one(joint)
    data = step.history()
    wanted = two_updates(joint.init(tools).weights, pixels(data, tools), plain(data.labels_N, 4), seed)
    equal(joint.learn(state, step, tools).weights, wanted)


@pytest.mark.parametrize("make", [Replay, DistilledReplay])
def test_replay(make, after_one, tools):
    strategy = make(training=TWO)
    state, step, seed = after_one(strategy)
    assert len(state.buffer) == 4
    x, y = beside(step, state.buffer, tools)
    equal(strategy.learn(state, step, tools).weights, two_updates(state.weights, x, plain(y, 4), seed))


def test_compress_recall_learns_from_memory_alone(after_one, tools):
    recall = CompressRecall(training=TWO)
    state, step, seed = after_one(recall)
    found = recall.learn(state, step, tools)
    x, y = found.buffer.replay()
    assert len(y) == 8
    equal(found.weights, two_updates(recall.init(tools).weights, x, plain(y, 4), seed))


def test_gdumb(tools, step):
    """Epoch 0 at lr / 10, epoch 1 at lr; clipped gradients, then weight decay and momentum; memory alone."""
    gdumb = GDumb(epochs=2, batch_size=100, lr=0.2, momentum=0.9, weight_decay=0.01, clip=0.3, crop=0.0)
    start = gdumb.init(tools)
    found = gdumb.learn(start, step(0), tools)
    x, y = found.buffer.replay()
    assert sorted(y.tolist()) == [0, 0, 1, 1]
    w, v = start.weights, dict.fromkeys(start.weights, 0.0)
    for rate in (0.02, 0.2):
        g = gradient(w, lambda w: cross_entropy(scores(w, x)[:, :2], y))
        norm = sum(float(value.square().sum()) for value in g.values()) ** 0.5
        assert norm > 0.3
        v = {name: 0.9 * v[name] + 0.3 * g[name] / norm + 0.01 * w[name] for name in w}
        w = {name: w[name] - rate * v[name] for name in w}
    equal(found.weights, w, rtol=1e-5, atol=1e-8)  # clipping adds 1e-6 to the norm


def test_ewc(after_one, step, tools):
    """Equation 3: cross-entropy + lambda / 2 sum_k F_k (w - w_k)^2, over the two steps before."""
    ewc = EWC(training=TWO, strength=50.0, fisher_examples=5)
    first, second, _ = after_one(ewc)
    state, third = ewc.learn(first, second, tools), step(2)
    fisher = {name: (first.extra[f"fisher/{name}"], state.extra[f"fisher/{name}"]) for name in state.weights}
    data = third.data.labels_N

    def loss(w, x, r):
        value = plain(data, 6)(w, x, r)
        for name, (one, both) in fisher.items():
            value = value + 25.0 * (one * (w[name] - first.weights[name]).square()).sum()
            value = value + 25.0 * ((both - one) * (w[name] - state.weights[name]).square()).sum()
        return value

    wanted = two_updates(state.weights, pixels(third.data, tools), loss, derive(tools.seed, "training", step=2))
    equal(ewc.learn(state, third, tools).weights, wanted)


def test_fisher_draws_labels_from_the_model(tools, step):
    """400 copies of one image, two classes: F is the mean of g_0^2 and g_1^2, weighted as often as each was drawn,
    and that is a binomial number. Labels by argmax, or the data's own, would be of one kind."""
    ewc, count = EWC(training=TWO, fisher_examples=400), 400
    here = replace(step(0), data=step(0).data.select([0] * count))
    model = tools.new_model(3)
    w = {name: value.detach() for name, value in model.state_dict().items()}
    x = pixels(here.data, tools)[:1]
    p = log_softmax(scores(w, x)[:, :2]).exp()[0]
    squares = [gradient(w, lambda w, y=y: log_softmax(scores(w, x)[:, :2])[0, y]) for y in (0, 1)]
    squares = [{name: value.square() for name, value in g.items()} for g in squares]
    found = ewc.fisher(model, here, tools)
    one, zero, mean = (d["classifier.bias"][0] for d in (squares[1], squares[0], found))
    drawn = float((mean - zero) / (one - zero))  # part of the labels that are 1
    assert abs(drawn * count - round(drawn * count)) < 1e-6
    equal(found, {name: (1 - drawn) * squares[0][name] + drawn * squares[1][name] for name in w})
    assert 0.2 < p[1] < 0.8
    assert abs(drawn - float(p[1])) < 4 * float(p[0] * p[1] / count) ** 0.5


def test_lwf(after_one, tools):
    """Equation 2: cross-entropy + lambda T^2 cross-entropy of softened outputs of the old classes."""
    lwf = LwF(training=TWO, temperature=T, strength=STRENGTH)
    state, step, seed = after_one(lwf)

    def loss(w, x, r):
        known = soft_cross_entropy_N(scores(state.weights, x)[:, :2], scores(w, x)[:, :2]).mean()
        return plain(step.data.labels_N, 4)(w, x, r) + STRENGTH * known

    equal(lwf.learn(state, step, tools).weights, two_updates(state.weights, pixels(step.data, tools), loss, seed))


def eeil_loss(state, y, new_N, classes, old, old_of_new):
    """Cross-entropy over all classes seen, and distillation over the old ones; of new images over fewer of them."""

    def loss(w, x, r):
        def known(r):
            ours, teachers = scores(w, x), scores(state.weights, x)
            far = soft_cross_entropy_N(teachers[:, :old], ours[:, :old])
            near = soft_cross_entropy_N(teachers[:, :old_of_new], ours[:, :old_of_new]) if old_of_new else 0 * far
            return torch.where(new_N[r], near, far).mean()

        return plain(y, classes)(w, x, r) + STRENGTH * parts(known, r)

    return loss


@pytest.mark.parametrize("returned", [False, True])
def test_eeil(returned, after_one, tools):
    """The step on new data and memory, then the balanced phase on memory alone, which now holds the step too.

    Where class 1 comes back, this step's images of all classes are distilled over class 0 alone.
    """
    eeil = EEIL(training=TWO, balanced=TWO, temperature=T, strength=STRENGTH)
    state, step, seed = after_one(eeil)
    if returned:
        labels = torch.tensor([1] * 4 + [2] * 4)
        seen = torch.arange(6) < 3
        step = replace(step, data=replace(step.data, labels_N=labels), seen_C=seen)
    classes, old_of_new = (3, 1) if returned else (4, 2)
    found = eeil.learn(state, step, tools)
    x, y = beside(step, state.buffer, tools)
    loss = eeil_loss(state, y, torch.arange(16) < 8, classes, 2, old_of_new)
    w = two_updates(state.weights, x, loss, seed)
    x, y = found.buffer.replay()
    new_N = torch.cat([block.step_N for block in found.buffer.blocks]) == 1
    assert new_N.any()
    loss = eeil_loss(state, y, new_N, classes, 2, old_of_new)
    equal(found.weights, two_updates(w, x, loss, derive(tools.seed, "balanced training", step=1)))


@pytest.mark.parametrize("returned", [False, True])
def test_icarl(returned, after_one, tools):
    """Algorithm 3: binary cross-entropy summed over the classes seen; old classes learn the old network's outputs,
    new ones their labels. Where class 1 comes back, this step's images have labels for it, memory's have not."""
    icarl = ICaRL(training=TWO)
    state, step, seed = after_one(icarl)
    if returned:
        labels = torch.tensor([1] * 4 + [2] * 4)
        step = replace(step, data=replace(step.data, labels_N=labels), seen_C=torch.arange(6) < 3)
    classes = 3 if returned else 4
    x, y = beside(step, state.buffer, tools)
    own = torch.eye(6, dtype=torch.float64)[y]
    taught = torch.zeros(16, 6, dtype=torch.bool)
    taught[:, :2] = True
    if returned:
        taught[:8, 1] = False

    def loss(w, x, r):
        p = 1 / (1 + torch.exp(-scores(w, x)))
        q = 1 / (1 + torch.exp(-scores(state.weights, x)))
        t = parts(lambda r: torch.where(taught[r], q, own[r]), r)
        return -(t * p.log() + (1 - t) * (1 - p).log())[:, :classes].sum(1).mean()

    equal(icarl.learn(state, step, tools).weights, two_updates(state.weights, x, loss, seed))


def test_icarl_means_are_of_unit_length(after_one, tools):
    """Algorithm 1, with mu of unit length as phi is: scores are minus the squared distance to it."""
    icarl = ICaRL(training=TWO)
    state, step, _ = after_one(icarl)
    w, (x, y) = state.weights, state.buffer.replay()

    def phi(x):
        h = torch.tanh(x.flatten(1).double() @ w["hidden.weight"].T + w["hidden.bias"])
        return h / h.square().sum(1, keepdim=True).sqrt()

    means = torch.stack([phi(x)[y == c].mean(0) for c in (0, 1)])
    lengths = means.square().sum(1, keepdim=True).sqrt()
    assert (lengths < 0.99).all()  # not of unit length by themselves
    test = pixels(step.data, tools)
    wanted = -(phi(test)[:, None] - (means / lengths)[None]).square().sum(2)
    with torch.no_grad():
        found = icarl.model(state, tools)(test)
    torch.testing.assert_close(found[:, :2], wanted, rtol=1e-9, atol=1e-12)
    assert (found[:, 2:] == -torch.inf).all()


def test_der(tools, step):
    """Equation 6, with one image in memory, so that every draw is of it: cross-entropy + alpha |h(x) - z|^2 + beta
    cross-entropy of memory. Squared error is the mean over outputs, as in the paper's code."""
    one = replace(TWO, updates=1, augmentation=Doubled(blend=False))
    der = DERPlusPlus(training=one, alpha=0.3, beta=0.6)
    tools = replace(tools, budget=Budget(images=1))
    state = der.learn(der.init(tools), step(0), tools)
    (x, y), z = state.buffer.replay(), state.buffer.column("logits")
    data = step(1).data

    def loss(w):
        value = cross_entropy(scores(w, 2 * pixels(data, tools)), data.labels_N)
        value = value + 0.3 * (scores(w, 2 * x) - z).square().mean()
        return value + 0.6 * cross_entropy(scores(w, 2 * x), y)

    g = gradient(state.weights, loss)
    wanted = {name: state.weights[name] - 0.1 * g[name] for name in g}
    equal(der.learn(state, step(1), tools).weights, wanted, rtol=1e-6, atol=1e-8)


def test_der_keeps_the_logits_of_the_last_visit(tools, step):
    """Every row is in every batch, so that what is kept of each is the output just before the last update."""
    tools = replace(tools, budget=Budget(images=8))
    constant = replace(TWO, schedule="constant", augmentation=Doubled(blend=False))
    before, after = (
        DERPlusPlus(training=replace(constant, updates=updates)).learn(
            DERPlusPlus(training=constant).init(tools), step(0), tools
        )
        for updates in (2, 3)
    )
    x, _ = after.buffer.replay()
    assert len(x) == 8
    wanted = scores(before.weights, 2 * x)
    torch.testing.assert_close(after.buffer.column("logits").double(), wanted, rtol=1e-5, atol=1e-6)
    assert (wanted - scores(after.weights, 2 * x)).abs().max() > 1e-3
