"""The values that travel between the rooms of fedcl.

Legend of axes in tensor names: N examples, M decoded examples, C channels of images or, for counts and soft labels,
classes, H height, W width. Inputs at rest are uint8 pixels or float32 rows; a summary's arrays are uint8 pixels, or
float32 in the units that its decoder documents.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from fedcl.core.coding import all_finite
from fedcl.core.errors import DataError
from fedcl.core.inputs import InputSpec


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The cell of the grid that data come from: client, step and round, each counted from 0."""

    client: int = 0
    step: int = 0
    round: int = 0


@dataclass(frozen=True, kw_only=True)
class LabeledSet:
    """Inputs and labels at rest: somebody's shard, a step's data, a test set."""

    inputs: Tensor  # uint8 images [N, C, H, W], or float32 [N, ...] as a network reads them
    labels_N: Tensor  # int64 [N], in [0, num_classes)
    num_classes: int
    origin: Origin = field(default_factory=Origin)  # whose data this is; names the random streams

    def __post_init__(self) -> None:
        inputs, labels = self.inputs, self.labels_N
        fitting = (
            inputs.ndim == 4 if inputs.dtype == torch.uint8 else inputs.dtype == torch.float32 and inputs.ndim >= 2
        )
        if not fitting:
            found = f"{inputs.dtype} {tuple(inputs.shape)}"
            raise DataError(f"images must be uint8 [N, C, H, W] and other inputs float32 [N, ...], got {found}")
        if labels.dtype != torch.int64 or labels.ndim != 1 or len(labels) != len(inputs):
            found = f"{labels.dtype} {tuple(labels.shape)}"
            raise DataError(f"labels must be int64 [N] with N = {len(inputs)}, got {found}")
        low, high = map(int, labels.aminmax()) if len(labels) else (0, 0)
        if len(labels) and not 0 <= low <= high < self.num_classes:
            found = f"{low}..{high}; num_classes says how many there are"
            raise DataError(f"labels must lie in [0, {self.num_classes}), got {found}")

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def counts_C(self) -> Tensor:
        """int64 [num_classes]: examples of each class."""
        return torch.bincount(self.labels_N, minlength=self.num_classes)

    def select(self, indices: Tensor | np.ndarray | Sequence[int], origin: Origin | None = None) -> Self:
        """The rows at `indices`, in that order, as a set of its own."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.labels_N.device)
        return replace(self, inputs=self.inputs[rows], labels_N=self.labels_N[rows], origin=origin or self.origin)

    def by_class(self) -> Self:
        """The same set in class order (stable), the layout in which distillation reads it."""
        return self.select(torch.argsort(self.labels_N, stable=True))

    def to(self, device: torch.device | str) -> Self:
        return replace(self, inputs=self.inputs.to(device), labels_N=self.labels_N.to(device))


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """Declaration of one array of a summary: whose it is, and how it is coded in messages, files and memory.

    Codings: "image", [N, C, H, W] with one map a channel where numbers are uint8, or the uint8 pixels themselves;
    "per_column", [N, K] with one map a column; "soft", float16 where others are uint8; "exact", always float32.
    """

    role: Literal["row", "shared", "fixed"] = "shared"  # one row an entry; of all rows together; that, and not learned
    coding: Literal["image", "per_column", "soft", "exact"] = "exact"


BESIDE = ArraySpec()  # numbers that no decoder declares: learned step sizes and the like
EXTRA_ROW = ArraySpec(role="row", coding="soft")  # what is kept beside each entry: its logits


@dataclass(frozen=True, kw_only=True)
class Decoder(ABC):
    """Map from a summary's arrays to images: a frozen dataclass of plain numbers and strings.

    A concrete one lives in `fedcl/distill/parameterizations/<name>.py`; `spec()` is what travels in messages and files.
    """

    name: ClassVar[str]  # of the module, from which the decoder is found again
    arrays: ClassVar[Mapping[str, ArraySpec]]  # the arrays that it decodes, by name

    @abstractmethod
    def decode(self, arrays: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """Arrays to network inputs of that shape, float32 [M, *shape]; differentiable."""

    def spec_of(self, name: str, extra_rows: Collection[str] = ()) -> ArraySpec:
        """The declaration of an array of a summary, which may have rows beside the decoder's."""
        return EXTRA_ROW if name in extra_rows else self.arrays.get(name, BESIDE)

    def expand(self, targets: Tensor) -> Tensor:
        """Targets of the N stored entries to targets of the M decoded inputs."""
        return targets

    def num_initial(self, ipc: int) -> int:
        """Entries of a class at that many images per class."""
        return ipc

    def images_per_entry(self, shape: tuple[int, ...]) -> int:
        """M / N, known before anything is decoded; DataError where the numbers do not suit inputs of this shape."""
        return 1

    def spec(self) -> dict[str, int | float | str | bool]:
        return {"name": self.name, **{field.name: getattr(self, field.name) for field in fields(self)}}


def label_dtype(num_classes: int) -> torch.dtype:
    """Smallest integer type that holds a hard label: what is counted and what is sent."""
    if num_classes <= 256:
        return torch.uint8
    return torch.int16 if num_classes <= 2**15 else torch.int32


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A small synthetic or selected data set that stands for a larger one.

    Real images that were chosen are kept as the uint8 pixels that they are.
    """

    arrays: Mapping[str, Tensor]  # float32; uint8 pixels where the coding is "image"; first axis N where rows
    targets: Tensor  # int64 [N] hard labels, or float32 [N, C] soft labels (probabilities or scores)
    inputs: InputSpec  # of decoded inputs
    decoder: Decoder
    method: str  # name of the distiller that made it
    num_source_C: Tensor | None = None  # int64 [C]: real examples of each class it stands for; None: not told
    num_classes: int = 0  # C; 0: as many as num_source_C counts
    extra_rows: tuple[str, ...] = ()  # arrays beside the decoder's that have a row an entry
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        counted = self.num_classes if self.num_source_C is None else len(self.num_source_C)
        object.__setattr__(self, "num_classes", self.num_classes or counted)
        if not self.num_classes == counted > 0:
            raise DataError(f"a summary of {self.num_classes} classes counts examples of {counted}; give num_classes")
        object.__setattr__(self, "arrays", dict(sorted(self.arrays.items())))
        for name, array in self.arrays.items():
            spec = self.spec_of(name)
            if array.dtype != torch.float32 and not (array.dtype == torch.uint8 and spec.coding == "image"):
                raise DataError(f"summary array '{name}' must be float32, or uint8 pixels, got {array.dtype}")
            if spec.role == "row" and array.shape[:1] != self.targets.shape[:1]:
                raise DataError(f"summary array '{name}' is {list(array.shape)} for {len(self.targets)} labels")
        if self.is_soft:
            if self.targets.ndim != 2 or self.targets.shape[1] != self.num_classes:
                raise DataError(f"soft labels must be [N, {self.num_classes}], got {tuple(self.targets.shape)}")
        elif self.targets.dtype != torch.int64 or self.targets.ndim != 1:
            raise DataError(f"hard labels must be int64 [N], got {self.targets.dtype} {tuple(self.targets.shape)}")
        elif len(self.targets):
            low, high = map(int, self.targets.aminmax())
            if not 0 <= low <= high < self.num_classes:
                raise DataError(f"hard labels must lie in [0, {self.num_classes})")

    @property
    def is_soft(self) -> bool:
        return self.targets.is_floating_point()

    def spec_of(self, name: str) -> ArraySpec:
        return self.decoder.spec_of(name, self.extra_rows)

    def decode(self) -> tuple[Tensor, Tensor]:
        """Network inputs, float32 [M, ...] (images [M, C, H, W]), and their targets [M] or [M, C]."""
        arrays = normalised(self.arrays, self.inputs)
        return self.decoder.decode(arrays, self.inputs.shape), self.decoder.expand(self.targets)

    @torch.no_grad()
    def check(self) -> tuple[Tensor, Tensor]:
        """Decode a summary that comes from outside; DataError unless it gives finite inputs, one for each target."""
        source, shape, channels = self.num_source_C, self.inputs.shape, len(self.inputs.preprocess.mean)
        if source is not None and (source.dtype != torch.int64 or source.ndim != 1 or (source < 0).any()):
            raise DataError(f"the counts of real examples must be int64 [C] and not negative, got {source}")
        if not shape or min(shape) < 1 or channels not in (1, shape[0]):
            raise DataError(f"inputs cannot be {list(shape)} with {channels} channels of normalisation")
        for name, array in self.arrays.items():
            if not all_finite(array):
                raise DataError(f"array '{name}' holds NaN or infinity")
        inputs, targets = self.decode()
        if tuple(inputs.shape) != (len(targets), *shape):
            expected = [len(targets), *shape]
            raise DataError(f"it decodes to images {list(inputs.shape)} for {len(targets)} labels, expected {expected}")
        if not all_finite(inputs) or not all_finite(targets):
            raise DataError("images or targets decode to NaN or infinity")
        return inputs, targets

    @property
    def num_images(self) -> int:
        """Decoded images, without decoding them."""
        return len(self.targets) * self.decoder.images_per_entry(self.inputs.shape)

    def sha256(self) -> str:
        """Hash of everything that a user of the summary would see, whatever carried it."""
        digest = hashlib.sha256(repr((self.decoder.spec(), self.inputs.shape, self.inputs.preprocess)).encode())
        for name, tensor in [*self.arrays.items(), ("targets", self.targets), ("source", self.num_source_C)]:
            if tensor is not None:
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        arrays = {name: array.to(device) for name, array in self.arrays.items()}
        source = None if self.num_source_C is None else self.num_source_C.to(device)
        return replace(self, arrays=arrays, targets=self.targets.to(device), num_source_C=source)


def normalised(arrays: Mapping[str, Tensor], spec: InputSpec) -> dict[str, Tensor]:
    """Arrays of a summary as float32: pixels as network input, all others as they are."""
    return {name: spec.apply(array) if array.dtype == torch.uint8 else array for name, array in arrays.items()}


def union(summaries: Sequence[Summary]) -> tuple[Tensor, Tensor]:
    """Decoded inputs and targets of several summaries, in order; associative.

    Hard labels become one-hot rows as soon as one of the summaries has soft labels.
    """
    if not summaries:
        raise DataError("the union of no summaries: every summary of this round is missing")
    images, targets = zip(*(summary.decode() for summary in summaries), strict=True)
    if any(target.is_floating_point() for target in targets):
        classes = summaries[0].num_classes
        targets = [t if t.is_floating_point() else torch.nn.functional.one_hot(t, classes).float() for t in targets]
    return torch.cat(images), torch.cat(targets)
