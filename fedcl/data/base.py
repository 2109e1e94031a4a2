"""What a data set is, where it comes from, and the part of it that hyper-parameters may be chosen on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import FLIP, InputSpec, Normalization
from fedcl.core.rules import Checked
from fedcl.core.seeding import numpy_rng
from fedcl.core.types import LabeledSet
from fedcl.data.normalization import measure
from fedcl.scenario.base import Labels


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A training set and a test set of the same classes and the same inputs."""

    name: str
    train: LabeledSet  # in class order
    test: LabeledSet  # in class order; never used to choose anything
    inputs: InputSpec  # of both; measured, where it was measured, on the training set
    class_names: tuple[str, ...]  # one a class, in label order

    def __post_init__(self) -> None:
        for part, held in (("training", self.train), ("test", self.test)):
            if (held.shape, held.inputs.dtype) != (self.inputs.shape, self.inputs.torch_dtype):
                raise DataError(
                    f"data set '{self.name}' is of {self.inputs.dtype} inputs {self.inputs.shape}, but its {part} set "
                    f"holds {str(held.inputs.dtype)[6:]} {held.shape}; bring them to one shape"
                )
            if bool((held.labels_N.diff() < 0).any()):
                raise DataError(f"the {part} set of '{self.name}' is not in class order; use make_dataset")
        if self.num_classes < 2:
            raise DataError(f"data set '{self.name}' has {self.num_classes} class; it needs at least 2")
        if not self.num_classes == self.train.num_classes == self.test.num_classes:
            raise DataError(
                f"data set '{self.name}' names {self.num_classes} classes, but its training set has "
                f"{self.train.num_classes} and its test set {self.test.num_classes}"
            )
        if len(self.inputs.preprocess.mean) != self.inputs.shape[0]:
            raise DataError(
                f"data set '{self.name}' has {self.inputs.shape[0]} channels but {len(self.inputs.preprocess.mean)} "
                "normalisation constants; give one mean and one std a channel, or null to measure them"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> Labels:
        """The labels of both sets: all that a scenario may look at."""
        train_N, test_N = (held.labels_N.cpu().numpy() for held in (self.train, self.test))
        return Labels(train_N=train_N, test_N=test_N, num_classes=self.num_classes)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, train=self.train.to(device), test=self.test.to(device))


@dataclass(frozen=True, kw_only=True)
class DataSource(Checked, ABC):
    """Where a data set comes from: hyper-parameters, named by one YAML in `configs/dataset/`.

    Making one reads nothing; `load` does.
    """

    config_key = "dataset"

    images: ClassVar[bool] = True  # False: what it gives are no images

    root: str | None = None  # folder that holds the files; ~ is expanded
    download: bool = False  # whether missing files may be fetched, where somebody publishes them
    horizontal_flip: bool  # whether a mirrored image still shows the same class

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("download", "horizontal_flip"):
            if not isinstance(getattr(self, key), bool):  # the word "no" would otherwise count as true
                raise ConfigError(f"dataset.{key}={getattr(self, key)} must be true or false")

    @abstractmethod
    def load(self) -> Dataset:
        """Read the files; a DataError says what to type where they are missing or malformed."""


def make_dataset(
    *,
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    horizontal_flip: bool = False,
    class_names: Sequence[object] | None = None,
    normalization: Normalization | None = None,
) -> Dataset:
    """Check arrays, put them in class order and measure what is not given.

    Args:
        name: what the record and the messages call it.
        train, test: images uint8 [N, C, H, W], or other inputs float32 [N, D] as a network reads them, and labels
            int64 [N], in any order.
        horizontal_flip: whether a mirrored image still shows the same class.
        class_names: one a class; without them labels are names, as many as the largest training label says.
        normalization: named constants; without them they are measured on the training set, of images.

    DataError where a set is empty, a label is out of range, a class lacks images in a set, or the sets do not fit.
    """
    if class_names is None:
        class_names = range(int(train[1].max()) + 1 if len(train[1]) else 0)
    train_set = _in_class_order(f"the training set of '{name}'", *train, len(class_names))
    test_set = _in_class_order(f"the test set of '{name}'", *test, len(class_names))
    inputs = InputSpec(
        shape=train_set.shape,
        preprocess=measure(train_set.inputs) if normalization is None else normalization,
        dtype=str(train_set.inputs.dtype).removeprefix("torch."),
        invariances=(FLIP,) if horizontal_flip else (),
    )
    return Dataset(name=name, train=train_set, test=test_set, inputs=inputs, class_names=tuple(map(str, class_names)))


def _in_class_order(where: str, inputs: Tensor, labels_N: Tensor, num_classes: int) -> LabeledSet:
    if not len(labels_N) or not inputs.numel():
        raise DataError(f"{where} is empty")
    present = torch.unique(labels_N).tolist()  # sorted; never an array of num_classes, which may be absurd
    if present[0] < 0 or present[-1] >= num_classes:
        raise DataError(
            f"{where} has labels {present[0]}..{present[-1]}, but there are {num_classes} classes: labels must be "
            f"0..{num_classes - 1}"
        )
    if len(present) < num_classes:
        absent = next(label for label, found in enumerate([*present, num_classes]) if label != found)
        raise DataError(
            f"{where} has no image of class {absent} of {num_classes}: labels must count from 0 without gaps, and "
            "every class needs images in both sets; renumber the labels or leave the class out"
        )
    ordered = LabeledSet(inputs=inputs, labels_N=labels_N, num_classes=num_classes).by_class()
    return replace(ordered, inputs=ordered.inputs.contiguous())


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The data set on which hyper-parameters are chosen: its test set is a part of the training set.

    Of every class, `fraction` of the training images (rounded; at least one is taken and one is left) become the test
    set; the rest is the training set, and the real test set is dropped. Normalisation constants stay, so that a choice
    made here means the same on the whole set. ConfigError for a fraction not between 0 and 1, else as `split_rows`.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the held-out fraction must lie between 0 and 1, got {fraction}; type 0.1, for example")
    rng = numpy_rng(seed, "held-out split")
    kept, held = split_rows(dataset.train.labels_N.cpu(), fraction, rng, dataset.class_names, f"'{dataset.name}'")
    parts = {"train": dataset.train.select(kept), "test": dataset.train.select(held)}
    return replace(dataset, name=f"{dataset.name}, held out", **parts)


def split_rows(
    labels_N: Tensor, fraction: float, rng: np.random.Generator, class_names: Sequence[str], where: str
) -> tuple[Tensor, Tensor]:
    """Rows that stay and rows that are taken, int64, class by class: `fraction` of each, at least one and never all.

    DataError where a class has fewer than 2 examples.
    """
    kept, taken = [], []
    for label, name in enumerate(class_names):
        rows = torch.nonzero(labels_N == label)[:, 0]
        if len(rows) < 2:
            raise DataError(
                f"class '{name}' of {where} has {len(rows)} example to train on and none can be held out for a test; "
                "leave the class out or add examples"
            )
        size = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        rows = rows[torch.from_numpy(rng.permutation(len(rows)))]
        taken.append(rows[:size].sort().values)
        kept.append(rows[size:].sort().values)
    return torch.cat(kept), torch.cat(taken)
