"""One tiny network in float64, and its updates by hand.

Two updates on the whole set, the second at a tenth of the rate; images are doubled by the augmentation, which also
blends each with the one at the other end of the batch (but for DER++, which refuses that).

Legend: w weights by name, x images as a batch, y labels of all rows, r the batch's rows.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import Origin
from fedcl.memory.budget import Budget
from fedcl.models.base import Model, Network
from fedcl.training.augmentation import Augmentation
from fedcl.training.recipe import Training

EACH = 4  # images of a class
KEPT = 0.75  # of an image, and of its label, where it is blended
T, STRENGTH = 3.0, 0.7


class Net(Network):
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
    def architecture(self, shape, num_classes):
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


class Hand:
    """The papers' formulas, and gradient descent, in plain tensors."""

    T, STRENGTH, TWO, Doubled = T, STRENGTH, TWO, Doubled

    @staticmethod
    def scores(w, x):
        h = torch.tanh(x.flatten(1).double() @ w["hidden.weight"].T + w["hidden.bias"])
        return h @ w["classifier.weight"].T + w["classifier.bias"]

    @staticmethod
    def log_softmax(s):
        return s - s.exp().sum(1, keepdim=True).log()

    @staticmethod
    def cross_entropy(s, y):
        return -Hand.log_softmax(s)[torch.arange(len(y)), y].mean()

    @staticmethod
    def soft_cross_entropy_N(teacher, student):
        """T^2 times the cross-entropy of outputs at temperature T, of each row."""
        p = (teacher / T).exp()
        return -(T**2) * (p / p.sum(1, keepdim=True) * Hand.log_softmax(student / T)).sum(1)

    @staticmethod
    def parts(of_rows, r):
        return KEPT * of_rows(r) + (1 - KEPT) * of_rows(r.flip(0))

    @staticmethod
    def gradient(w, loss):
        leaves = {name: value.clone().requires_grad_() for name, value in w.items()}
        found = torch.autograd.grad(loss(leaves), list(leaves.values()))
        return dict(zip(w, found, strict=True))

    @staticmethod
    def two_updates(w, images, loss, seed):
        """Gradient descent at rates 0.1 and 0.01; `loss` is of (w, x, r)."""
        order = torch_rng(seed, "batches")
        for rate in (0.1, 0.01):
            r = torch.randperm(len(images), generator=order)
            x = 2 * images[r]
            x = KEPT * x + (1 - KEPT) * x.flip(0)
            g = Hand.gradient(w, lambda v, x=x, r=r: loss(v, x, r))
            w = {name: w[name] - rate * g[name] for name in w}
        return w

    @staticmethod
    def equal(found, wanted, **tolerance):
        assert set(found) == set(wanted)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], **(tolerance or {"rtol": 1e-9, "atol": 1e-12}))

    @staticmethod
    def pixels(data, ctx):
        return ctx.inputs.apply(data.inputs)

    @staticmethod
    def beside(step, buffer, ctx):
        """The step's images, then memory as often as it takes to have as much of it; all rows' labels."""
        memory, labels = buffer.replay()
        often = len(step.data) // len(labels)
        x = torch.cat([Hand.pixels(step.data, ctx), *[memory] * often])
        return x, torch.cat([step.data.labels_N, *[labels] * often])

    @staticmethod
    def plain(y, classes):
        """Cross-entropy over the first `classes` outputs."""
        return lambda w, x, r: Hand.parts(lambda r: Hand.cross_entropy(Hand.scores(w, x)[:, :classes], y[r]), r)


@pytest.fixture(scope="session")
def hand():
    return Hand


@pytest.fixture
def ctx(ctx):
    distiller = replace(ctx.distiller, steps=0, ipc=2)
    return replace(ctx, model=Small(), budget=Budget(ipc=2), distiller=distiller)


@pytest.fixture
def step(stream):
    def make(index):
        step = stream.step(index)
        data = stream.set([2 * index, 2 * index + 1], index, Origin(step=index), count=EACH)
        return replace(step, data=data)

    return make


@pytest.fixture
def after_one(ctx, step):
    """(strategy) -> its state after the first step; the second; the training seed of the second."""

    def learn(strategy):
        return strategy.learn(strategy.init(ctx), step(0), ctx), step(1), derive(ctx.seed, "training", step=1)

    return learn
