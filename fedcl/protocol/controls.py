"""What a summary has to beat: real images that cost as many bytes.

Both sides are counted as they would be sent on the same wire: decoded arrays and labels, without the class counts
that every summary carries. With float32 pixels on both sides, an ipc of pixels buys the same ipc of real images; a
summary with soft labels or step sizes buys more of them, one that stores fewer numbers buys fewer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Normalization, Summary, label_dtype
from fedcl.distill.initializers import SELECTIONS, Real
from fedcl.protocol.evaluation import TrainSet


@dataclass(frozen=True, kw_only=True)
class Control:
    """Real images in place of a summary."""

    kind: str  # random, kmeans, herding or k_center
    count_C: tuple[int, ...]  # images of each class
    bytes: int  # what they cost, at most what the summary costs
    lots: tuple[TrainSet, ...]  # with hard labels; random ones differ between networks


def payload(summary: Summary) -> int:
    """Bytes of a summary's images and labels."""
    parts = summary.payload_parts
    return parts["images"] + parts["labels"]


def affordable(summary: Summary, available_C: Tensor, pixel_bytes: int) -> tuple[tuple[int, ...], int]:
    """Real images of each class that the summary's bytes buy, and what they cost.

    The classes are those that the summary stands for (all, where it does not say); they get one image each in
    turn, in label order, until the bytes are spent or no class has another image.
    """
    channels, height, width = summary.shape_CHW
    price = channels * height * width * pixel_bytes + label_dtype(summary.num_classes).itemsize
    left = payload(summary) // price
    told, limit = summary.num_source_C, available_C.cpu()
    if told is not None:
        limit = torch.where(told.cpu() > 0, limit, 0)
    count = torch.zeros_like(limit)
    while left > 0 and bool((count < limit).any()):
        free = torch.nonzero(count < limit)[:, 0]
        turns = max(1, min(left // len(free), int((limit - count)[free].min())))
        chosen = free[:left]
        count[chosen] += turns
        left -= turns * len(chosen)
    return tuple(count.tolist()), int(count.sum()) * price


def make_control(
    kind: str,
    summary: Summary,
    train: LabeledSet,
    normalization: Normalization,
    *,
    seed: int,
    nets: int,
    pixels: str,
) -> Control:
    """Images of `train` for the bytes of `summary`.

    Args:
        kind: how they are chosen, in pixel space; every network gets random ones of its own.
        pixels: "same" or "uint8", see `Evaluation.control_pixels`.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in SELECTIONS:
        raise ConfigError(f"evaluation.controls: '{kind}' is not known; choose among {', '.join(SELECTIONS)}")
    count_C, cost = affordable(summary, train.counts_C, 1 if pixels == "uint8" else 4)
    lots = []
    for draw in range(nets if kind == "random" else 1):
        key = derive(seed, f"control {kind}", client=draw)
        lots.append(
            TrainSet(make=functools.cache(functools.partial(_choose, kind, count_C, train, normalization, key)))
        )
    return Control(kind=kind, count_C=count_C, bytes=cost, lots=tuple(lots))


def with_labels_of(lot: TrainSet, summary: Summary) -> TrainSet:
    """The same real images under the summary's soft labels: what the labels alone are worth.

    An image of class c takes in turn the targets whose largest entry is c; a class that no target favours keeps
    its hard label.
    """

    def make() -> tuple[Tensor, Tensor]:
        images, labels = lot.make()
        targets = torch.nn.functional.one_hot(labels, summary.num_classes).float()
        favourite = summary.targets.argmax(1)
        for label in labels.unique().tolist():
            rows = torch.nonzero(labels == label)[:, 0]
            given = summary.targets[favourite == label]
            if len(given):
                targets[rows] = given[torch.arange(len(rows)) % len(given)]
        return images, targets

    return TrainSet(make=make)


def _choose(
    kind: str, count_C: tuple[int, ...], train: LabeledSet, normalization: Normalization, key: int
) -> tuple[Tensor, Tensor]:
    """Normalised float32 images [M, C, H, W] in class order, and their labels, on the CPU."""
    real = Real(select=kind)
    images = []
    for label, n in enumerate(count_C):
        if n:
            held = train.images_NCHW[train.labels_N == label]
            images.append(real.images(held, n, derive(key, "class", client=label), normalization).cpu())
    labels = torch.repeat_interleave(torch.arange(len(count_C)), torch.tensor(count_C))
    return torch.cat(images) if images else torch.zeros(0, *train.shape_CHW), labels
