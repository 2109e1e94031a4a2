"""Two small streams that every strategy can learn in a blink, and in which what came before can be forgotten.

Six classes of 4x4 images, two a step; or four classes that come back in every step with their pixels permuted.
A class is a row of a Hadamard matrix under noise: every pixel is bright in about half of the classes, so that what
one step teaches about a pixel is wrong for the others.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from fedcl.continual.contract import LearnerContext, Step
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.distiller import Distiller
from fedcl.memory.budget import Budget
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training

CLASSES, PER_CLASS = 6, 12
UNITS = Normalization(mean=(0.5,), std=(0.25,))


def hadamard(size):
    """[size, size] of 1 and -1, rows orthogonal."""
    h = torch.ones(1, 1)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


def images_of(labels, seed, noise=35.0, domain=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = 127 + 30 * hadamard(16)[1:][labels] + noise * torch.randn(len(labels), 16, generator=generator)
    if domain:
        pixels = pixels[:, torch.randperm(16, generator=torch.Generator().manual_seed(domain))]
    return pixels.clamp(0, 255).to(torch.uint8).view(-1, 1, 4, 4)


def a_set(classes, seed, origin=None, count=PER_CLASS, **look):
    labels = torch.tensor(list(classes)).repeat_interleave(count)
    return LabeledSet(
        inputs=images_of(labels, seed, **look), labels_N=labels, num_classes=CLASSES, origin=origin or Origin()
    )


def a_step(index):
    def mask(upto):
        return torch.arange(CLASSES) < 2 * upto

    return Step(
        data=a_set([2 * index, 2 * index + 1], index, Origin(step=index)),
        index=index,
        num_steps=3,
        old_C=mask(index),
        seen_C=mask(index + 1),
        history=lambda: a_set(list(range(2 * index + 2)), 99),
    )


def a_domain(index):
    """Classes 0 to 3, as the step before had them, with other pixels."""
    held = torch.arange(CLASSES) < 4
    return replace(
        a_step(index),
        data=a_set(range(4), index, Origin(step=index), noise=20.0, domain=index),
        old_C=held if index else ~held & held,
        seen_C=held,
    )


@pytest.fixture(scope="session")
def training():
    return Training(
        epochs=12,
        batch_size=8,
        optimizer="adam",
        lr=0.01,
        weight_decay=0.0,
        schedule="constant",
        augmentation=NoAugmentation(),
    )


@pytest.fixture(scope="session")
def ctx():
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return LearnerContext(
        model=MLP(hidden=(16,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=UNITS),
        num_classes=CLASSES,
        seed=0,
        distiller=Distiller(augmentation=NoAugmentation(), ipc=3, steps=3, optimizer=optimizer, real_batch=8),
        budget=Budget(ipc=3),
    )


class Stream:
    """Runs a strategy through the stream."""

    step = staticmethod(a_step)
    domain = staticmethod(a_domain)
    set = staticmethod(a_set)

    @staticmethod
    def learn(strategy, ctx, steps=3, step=a_step):
        states = [strategy.init(ctx)]
        for index in range(steps):
            states.append(strategy.learn(states[-1], step(index), ctx))
        return states

    @staticmethod
    def row(strategy, state, ctx):
        """Accuracy on the classes of each step."""
        tests = [a_set([2 * index, 2 * index + 1], 50 + index, count=50) for index in range(3)]
        return accuracies(strategy, state, ctx, tests)

    @staticmethod
    def domains(strategy, state, ctx):
        """Accuracy on each of two domains."""
        tests = [a_set(range(4), 50 + index, count=50, noise=20.0, domain=index) for index in range(2)]
        return accuracies(strategy, state, ctx, tests)


def accuracies(strategy, state, ctx, tests):
    model = strategy.model(state, ctx).eval()
    found = []
    for test in tests:
        with torch.no_grad():
            scores = model(UNITS.apply(test.inputs))
        found.append(float((scores.argmax(1) == test.labels_N).float().mean()))
    return found


@pytest.fixture(scope="session")
def stream():
    return Stream
