"""Controls of a summary: real images that cost as many bytes.

Both sides are counted as they would be sent on the same wire: arrays and labels. With float32 pixels on both sides,
or uint8 ones where the summary is a selection, an ipc of pixels buys the same ipc of real images; a summary with soft
labels or step sizes buys more of them, one that stores fewer numbers buys fewer.
"""

import functools
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec
from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Summary, label_dtype
from fedcl.distill.blobs import encode
from fedcl.distill.initializers import SELECTIONS, ClassImages, Real
from fedcl.memory.budget import positions
from fedcl.protocol.evaluation import TrainSet, teacher_of


@dataclass(frozen=True, kw_only=True)
class Control:
    """Real images in place of a summary."""

    kind: str  # random, kmeans, herding or k_center
    count_C: tuple[int, ...]  # images of each class
    bytes: int  # what they cost, at most what the summary costs
    train_sets: tuple[TrainSet, ...]  # with hard labels; random ones differ between networks


def affordable(summary: Summary, available_C: Tensor, value_bytes: int) -> tuple[tuple[int, ...], int]:
    """Real images of each class that the summary's bytes buy, and what they cost.

    The classes that the summary stands for (all, where it does not say) get one image each in turn, in label order,
    until the bytes are spent or no class has another image.
    """
    price = prod(summary.inputs.shape) * value_bytes + label_dtype(summary.num_classes).itemsize
    limit = available_C.cpu()
    if summary.num_source_C is not None:
        limit = limit * (summary.num_source_C.cpu() > 0)
    offered = torch.arange(len(limit)).repeat_interleave(limit)  # the class of each image that there is
    turns = torch.argsort(positions(offered), stable=True)[: encode(summary).num_bytes // price]
    count = torch.bincount(offered[turns], minlength=len(limit))
    return tuple(count.tolist()), len(turns) * price


def make_control(
    kind: str, summary: Summary, train: LabeledSet, spec: InputSpec, *, seed: int, nets: int, pixels: str
) -> Control:
    """Images of `train` for the bytes of `summary`.

    Args:
        kind: how they are chosen, in pixel space (else ConfigError); every network gets random ones of its own.
        pixels: "same" or "uint8", see `Evaluation.control_pixels`; rows of a table cost 4 bytes a number either way.
    """
    if kind not in SELECTIONS:
        raise ConfigError(f"evaluation.controls: '{kind}' is not known; choose among {', '.join(SELECTIONS)}")
    width = min(array.element_size() for array in summary.arrays.values())  # of the summary: 1 where it chose pixels
    count_C, cost = affordable(summary, train.counts_C, spec.torch_dtype.itemsize if pixels == "uint8" else width)
    keys = [derive(seed, f"control {kind}", client=draw) for draw in range(nets if kind == "random" else 1)]
    makes = [functools.cache(functools.partial(_choose, kind, count_C, train, spec, key)) for key in keys]
    return Control(kind=kind, count_C=count_C, bytes=cost, train_sets=tuple(TrainSet(make=make) for make in makes))


def with_labels_of(train_set: TrainSet, summary: Summary) -> TrainSet:
    """The same real images under the summary's soft labels: what the labels alone are worth.

    A summary with a teacher labels every view of them as it labels its own. Without one, an image of class c takes in
    turn the targets whose largest entry is c; a class that no target favours keeps its hard label.
    """

    def make() -> tuple[Tensor, Tensor]:
        images, labels = train_set.make()
        targets = torch.nn.functional.one_hot(labels, summary.num_classes).float()
        favourite = summary.targets.argmax(1)
        for label in labels.unique().tolist():
            rows = torch.nonzero(labels == label)[:, 0]
            given = summary.targets[favourite == label]
            if len(given):
                targets[rows] = given[torch.arange(len(rows)) % len(given)]
        return images, targets

    return TrainSet(make=make, teacher=teacher_of(summary))


def _choose(kind: str, count_C: tuple[int, ...], train: LabeledSet, spec: InputSpec, key: int) -> tuple[Tensor, Tensor]:
    """Normalised float32 images [M, C, H, W] in class order, and their labels, on the CPU."""
    real = Real(select=kind)
    images = [torch.zeros(0, *train.shape)]
    for label, n in enumerate(count_C):
        if n:
            one = ClassImages(inputs=train.inputs[train.labels_N == label], spec=spec, label=label)
            images.append(spec.apply(real.images(one, n, derive(key, "class", client=label))).cpu())
    return torch.cat(images), torch.repeat_interleave(torch.arange(len(count_C)), torch.tensor(count_C))
