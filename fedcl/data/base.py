"""What a data set is, where it comes from, and the part of it that hyper-parameters may be chosen on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.seeding import numpy_rng
from fedcl.core.types import LabeledSet, Normalization
from fedcl.data.normalization import measure
from fedcl.scenario.base import Labels


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A training set and a test set of the same classes and the same image shape."""

    name: str
    train: LabeledSet  # in class order
    test: LabeledSet  # in class order; never used to choose anything
    normalization: Normalization  # one mean and std a channel
    class_names: tuple[str, ...]  # one a class, in label order
    horizontal_flip: bool  # whether a mirrored image still shows the same class

    def __post_init__(self) -> None:
        if self.train.shape_CHW != self.test.shape_CHW:
            raise DataError(
                f"data set '{self.name}': training images are {self.train.shape_CHW} and test images "
                f"{self.test.shape_CHW} (channels, height, width); bring them to one shape"
            )
        if self.num_classes < 2:
            raise DataError(f"data set '{self.name}' has {self.num_classes} class; it needs at least 2")
        if not self.num_classes == self.train.num_classes == self.test.num_classes:
            raise DataError(
                f"data set '{self.name}' names {self.num_classes} classes, but its training set has "
                f"{self.train.num_classes} and its test set {self.test.num_classes}"
            )
        if len(self.normalization.mean) != self.shape_CHW[0]:
            raise DataError(
                f"data set '{self.name}' has {self.shape_CHW[0]} channels but {len(self.normalization.mean)} "
                "normalisation constants; give one mean and one std a channel, or null to measure them"
            )
        for part, held in (("training", self.train), ("test", self.test)):
            if bool((held.labels_N.diff() < 0).any()):
                raise DataError(f"the {part} set of '{self.name}' is not in class order; use make_dataset")

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        return self.train.shape_CHW

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> Labels:
        """The labels of both sets: all that a scenario may look at."""
        return Labels(
            train_N=self.train.labels_N.cpu().numpy(),
            test_N=self.test.labels_N.cpu().numpy(),
            num_classes=self.num_classes,
        )

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, train=self.train.to(device), test=self.test.to(device))


@dataclass(frozen=True, kw_only=True)
class DataSource(ABC):
    """Where a data set comes from: hyper-parameters, named by one YAML in `configs/dataset/`.

    Making one reads nothing; `load` does.
    """

    root: str | None = None  # folder that holds the files; ~ is expanded
    download: bool = False  # whether missing files may be fetched, where somebody publishes them
    horizontal_flip: bool  # whether a mirrored image still shows the same class

    def __post_init__(self) -> None:
        for key in ("download", "horizontal_flip"):
            if not isinstance(getattr(self, key), bool):  # the word "no" would otherwise count as true
                raise ConfigError(f"dataset.{key}={getattr(self, key)} must be true or false")

    @abstractmethod
    def load(self) -> Dataset:
        """Read the files.

        Raises:
            DataError: they are missing or malformed; the message says what to type.
        """


def make_dataset(
    *,
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    horizontal_flip: bool,
    class_names: Sequence[str] | None = None,
    normalization: Normalization | None = None,
) -> Dataset:
    """Check arrays, put them in class order and measure what is not given.

    Args:
        name: what the record and the messages call it.
        train, test: images uint8 [N, C, H, W] and labels int64 [N], in any order.
        horizontal_flip: whether a mirrored image still shows the same class.
        class_names: one a class; without them the labels are the names, and the largest training label
            says how many there are.
        normalization: named constants; without them they are measured on the training set.

    Raises:
        DataError: a set is empty, a label is out of range, a class has no images in one of the sets, or
            the two sets do not fit each other.
    """
    for part, (images, labels) in (("training", train), ("test", test)):
        if not len(labels) or not images.numel():
            raise DataError(f"the {part} set of '{name}' is empty")
    num_classes = len(class_names) if class_names is not None else int(train[1].max()) + 1
    for part, (_, labels) in (("training", train), ("test", test)):
        _check_labels(f"the {part} set of '{name}'", labels, num_classes)
    names = tuple(str(c) for c in class_names) if class_names is not None else tuple(map(str, range(num_classes)))
    train_set, test_set = (
        LabeledSet(images_NCHW=images, labels_N=labels, num_classes=num_classes) for images, labels in (train, test)
    )
    return Dataset(
        name=name,
        train=_in_class_order(train_set),
        test=_in_class_order(test_set),
        normalization=measure(train_set.images_NCHW) if normalization is None else normalization,
        class_names=names,
        horizontal_flip=horizontal_flip,
    )


def _check_labels(where: str, labels_N: Tensor, num_classes: int) -> None:
    present = torch.unique(labels_N).tolist()  # sorted; never an array of num_classes, which may be absurd
    if present[0] < 0 or present[-1] >= num_classes:
        raise DataError(
            f"{where} has labels {present[0]}..{present[-1]}, but there are {num_classes} classes: "
            f"labels must be 0..{num_classes - 1}"
        )
    if len(present) < num_classes:
        absent = next(label for label, found in enumerate([*present, num_classes]) if label != found)
        raise DataError(
            f"{where} has no image of class {absent} of {num_classes}: labels must count from 0 without "
            "gaps, and every class needs images in both sets; renumber the labels or leave the class out"
        )


def _in_class_order(held: LabeledSet) -> LabeledSet:
    ordered = held.by_class()
    return replace(ordered, images_NCHW=ordered.images_NCHW.contiguous())


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The data set on which hyper-parameters are chosen: its test set is a part of the training set.

    Of every class, `fraction` of the training images (rounded; at least one is taken and one is left) become
    the test set; the rest is the training set, and the real test set is dropped. Normalisation constants
    stay, so that a choice made here means the same on the whole set.

    Raises:
        ConfigError: the fraction is not between 0 and 1.
        DataError: a class has fewer than 2 training images.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the held-out fraction must lie between 0 and 1, got {fraction}; type 0.1, for example")
    rng = numpy_rng(seed, "held-out split")
    kept: list[Tensor] = []
    held: list[Tensor] = []
    start = 0
    for label, count in enumerate(dataset.train.counts_C.tolist()):
        if count < 2:
            raise DataError(
                f"class '{dataset.class_names[label]}' of '{dataset.name}' has {count} training image: "
                "none can be held out; leave the class out or add images"
            )
        size = min(max(round(fraction * count), 1), count - 1)
        rows = start + torch.from_numpy(rng.permutation(count))
        held.append(rows[:size].sort().values)
        kept.append(rows[size:].sort().values)
        start += count
    return replace(
        dataset,
        name=f"{dataset.name}, held out",
        train=dataset.train.select(torch.cat(kept)),
        test=dataset.train.select(torch.cat(held)),
    )
