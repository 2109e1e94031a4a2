"""Small worlds for the engine: sets of random images, a narrow network, a distiller with any axis replaced."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.initializers import Real
from fedcl.distill.labels import Hard
from fedcl.distill.networks.fresh import Fresh
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.models.convnet import ConvNet
from fedcl.training.augmentation import NoAugmentation

GREY = Normalization(mean=(0.5,), std=(0.25,))


@pytest.fixture
def new_set():
    """new_set({class: images}, client=0): uint8 noise of 8x8, shuffled; a class differs in its mean."""

    def make(counts: dict[int, int], client: int = 0, num_classes: int = 4, side: int = 8, channels: int = 1):
        generator = torch.Generator().manual_seed(100 + client)
        labels = torch.tensor([label for label, count in counts.items() for _ in range(count)], dtype=torch.int64)
        labels = labels[torch.randperm(len(labels), generator=generator)]
        noise = torch.randint(0, 160, (len(labels), channels, side, side), generator=generator)
        images = (noise + 20 * labels[:, None, None, None]).to(torch.uint8)
        return LabeledSet(inputs=images, labels_N=labels, num_classes=num_classes, origin=Origin(client=client))

    return make


@pytest.fixture
def ctx():
    return Context(model=ConvNet(width=4), inputs=InputSpec(shape=(1, 8, 8), preprocess=GREY), num_classes=4)


@pytest.fixture
def new_distiller():
    """new_distiller(steps=3, objective=...): distribution matching of pixels unless said otherwise."""

    def make(**axes) -> Distiller:
        usual = {
            "name": "test",
            "objective": Distribution(),
            "parameterization": Pixels(),
            "initializer": Real(),
            "augmentation": NoAugmentation(),
            "labels": Hard(),
            "networks": Fresh(),
            "ipc": 2,
            "steps": 3,
            "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.5),
            "real_batch": 8,
        }
        return Distiller(**(usual | axes))

    return make
