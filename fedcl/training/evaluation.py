"""Accuracy of a network on a labelled set."""

from itertools import chain

import torch
from torch import Tensor, nn

from fedcl.core.inputs import InputSpec
from fedcl.core.types import LabeledSet


@torch.inference_mode()
def correct(model: nn.Module, data: LabeledSet, spec: InputSpec, chunk: int = 256) -> Tensor:
    """bool [N]: which examples `model` gets right, in eval mode (its mode is restored)."""
    was_training = model.training
    model.eval()
    device = next(chain(model.parameters(), model.buffers())).device  # some networks only hold buffers
    right = []
    for images, labels in zip(data.inputs.split(chunk), data.labels_N.split(chunk), strict=True):
        right.append(model(spec.apply(images.to(device))).argmax(1) == labels.to(device))
    model.train(was_training)
    return torch.cat(right)


def accuracy(model: nn.Module, data: LabeledSet, spec: InputSpec) -> float:
    """Fraction of `data` that `model` gets right, in [0, 1]."""
    right = correct(model, data, spec)
    return int(right.sum()) / max(1, len(right))
