"""How good a network is: accuracy on a set, and on the groups that make a row of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcl.core.types import LabeledSet, Normalization


@torch.inference_mode()
def correct(model: nn.Module, data: LabeledSet, normalization: Normalization, chunk: int = 256) -> Tensor:
    """bool [N]: which examples `model` gets right, in eval mode (its mode is restored)."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    right = []
    for images, labels in zip(data.images_NCHW.split(chunk), data.labels_N.split(chunk), strict=True):
        scores = model(normalization.apply(images.to(device)))
        right.append(scores.argmax(1) == labels.to(device))
    model.train(was_training)
    return torch.cat(right) if right else torch.zeros(0, dtype=torch.bool)


def accuracy(model: nn.Module, data: LabeledSet, normalization: Normalization) -> float:
    """Fraction of `data` that `model` gets right, in [0, 1]."""
    right = correct(model, data, normalization)
    return int(right.sum()) / max(1, len(right))
