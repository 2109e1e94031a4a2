"""A small stream that every strategy can learn in a blink: six classes of 4x4 images, two a step."""

from functools import partial

import pytest
import torch

from fedcl.augmentation import NoAugmentation
from fedcl.buffer import Budget
from fedcl.continual import Step, Tools
from fedcl.distill.distiller import Distiller
from fedcl.models.mlp import MLP
from fedcl.training import Training
from fedcl.types import LabeledSet, Normalization, Origin

CLASSES, PER_CLASS = 6, 12
UNITS = Normalization(mean=(0.5,), std=(0.25,))


def images_of(labels, seed):
    """Class c lights two of twelve pixels; the rest is noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(60, (len(labels), 16), generator=generator)
    for row, label in enumerate(labels.tolist()):
        noise[row, 2 * label : 2 * label + 2] += 190
    return noise.to(torch.uint8).view(-1, 1, 4, 4)


def a_set(classes, seed, origin=None):
    labels = torch.tensor(classes).repeat_interleave(PER_CLASS)
    return LabeledSet(
        images_NCHW=images_of(labels, seed), labels_N=labels, num_classes=CLASSES, origin=origin or Origin()
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
def tools():
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return Tools(
        model=MLP(hidden=(16,)),
        normalization=UNITS,
        shape_CHW=(1, 4, 4),
        num_classes=CLASSES,
        horizontal_flip=False,
        seed=0,
        distiller=Distiller(augmentation=NoAugmentation(), ipc=3, steps=3, optimizer=optimizer, real_batch=8),
        budget=Budget(ipc=3),
    )


class Stream:
    """Runs a strategy through the stream."""

    step = staticmethod(a_step)
    set = staticmethod(a_set)

    @staticmethod
    def learn(strategy, tools, steps=3):
        states = [strategy.init(tools)]
        for index in range(steps):
            states.append(strategy.learn(states[-1], a_step(index), tools))
        return states

    @staticmethod
    def row(strategy, state, tools):
        """Accuracy on the classes of each step."""
        model = strategy.model(state, tools).eval()
        found = []
        for index in range(3):
            test = a_set([2 * index, 2 * index + 1], 50 + index)
            with torch.no_grad():
                scores = model(UNITS.apply(test.images_NCHW))
            found.append(float((scores.argmax(1) == test.labels_N).float().mean()))
        return found


@pytest.fixture(scope="session")
def stream():
    return Stream
