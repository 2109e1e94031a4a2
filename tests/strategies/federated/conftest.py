"""Clients of a few two-by-two images, a network of one hidden layer, and the same network in float64, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation

CLASSES, UNITS = 3, 4
SHAPES = [(UNITS, 4), (UNITS,), (CLASSES, UNITS), (CLASSES,)]


def context(**distiller):
    return Context(
        distiller=Distiller(name="plain", augmentation=NoAugmentation(), **distiller),
        model=MLP(hidden=(UNITS,)),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.25,))),
        num_classes=CLASSES,
    )


def shard(client, classes=(0, 1, 2), count=None, step=0):
    """client + 3 images (or `count`) of these classes in turn."""
    count = client + 3 if count is None else count
    draw = np.random.default_rng([client, step])
    return LabeledSet(
        inputs=torch.from_numpy(draw.integers(0, 256, (count, 1, 2, 2), dtype=np.uint8)),
        labels_N=torch.tensor([classes[i % len(classes)] for i in range(count)], dtype=torch.int64),
        num_classes=CLASSES,
        origin=Origin(client=client, step=step),
    )


def pixels(data):
    """float64 [N, 4] network inputs."""
    return (data.inputs.flatten(1).double() / 255 - 0.5) / 0.25


def flat(weights):
    return torch.cat([tensor.double().flatten() for tensor in weights.values()])


def named(w, like):
    """A vector as float32 weights of these names and shapes."""
    parts = w.float().split([tensor.numel() for tensor in like.values()])
    return {name: part.view_as(old) for (name, old), part in zip(like.items(), parts, strict=True)}


def layers(w):
    parts = w.split([int(np.prod(shape)) for shape in SHAPES])
    return [part.view(shape) for part, shape in zip(parts, SHAPES, strict=True)]


def hidden(w, x):
    w1, b1, _, _ = layers(w)
    return torch.relu(x @ w1.T + b1)


def scores(w, x):
    *_, w2, b2 = layers(w)
    return hidden(w, x) @ w2.T + b2


@pytest.fixture
def hand():
    return SimpleNamespace(
        context=context,
        shard=shard,
        pixels=pixels,
        flat=flat,
        named=named,
        hidden=hidden,
        scores=scores,
        layers=layers,
    )
