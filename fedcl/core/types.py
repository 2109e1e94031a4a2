"""The values that travel between the rooms of fedcl.

Legend of axes in tensor names: N examples, M decoded examples, C channels of images or, for counts and
soft labels, classes, H height, W width. Images at rest are uint8; a summary's arrays are float32 in the
units that its decoder documents.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The cell of the grid that data come from: client, step and round, each counted from 0."""

    client: int = 0
    step: int = 0
    round: int = 0


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Per-channel affine map from [0, 1] pixels to network input: (x - mean) / std."""

    mean: tuple[float, ...]  # one a channel, of pixels in [0, 1]
    std: tuple[float, ...]  # one a channel, of pixels in [0, 1], all > 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != len(self.std) or not self.mean or not finite or min(self.std) <= 0:
            raise DataError(f"normalisation needs as many positive std as mean, got {self.mean} and {self.std}")

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, device=like.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=like.device).view(1, -1, 1, 1)
        return mean, std

    def apply(self, images_NCHW: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to normalised float32."""
        mean, std = self._columns(images_NCHW)
        return (images_NCHW - mean * 255.0).div_(std * 255.0)

    def invert(self, images_NCHW: Tensor) -> Tensor:
        """Normalised float [N, C, H, W] back to pixels, nominally in [0, 1] but not clamped."""
        mean, std = self._columns(images_NCHW)
        return images_NCHW * std + mean


@dataclass(frozen=True, kw_only=True)
class LabeledSet:
    """Images and labels at rest: somebody's shard, a step's data, a test set."""

    images_NCHW: Tensor  # uint8 [N, C, H, W]
    labels_N: Tensor  # int64 [N], in [0, num_classes)
    num_classes: int
    origin: Origin = field(default_factory=Origin)  # whose data this is; names the random streams

    def __post_init__(self) -> None:
        images, labels = self.images_NCHW, self.labels_N
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(f"images must be uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.ndim != 1 or len(labels) != len(images):
            raise DataError(
                f"labels must be int64 [N] with N = {len(images)}, got {labels.dtype} {tuple(labels.shape)}"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise DataError(
                f"labels must lie in [0, {self.num_classes}), "
                f"got {int(labels.min())}..{int(labels.max())}; num_classes says how many there are"
            )

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images_NCHW.shape
        return channels, height, width

    @property
    def counts_C(self) -> Tensor:
        """int64 [num_classes]: examples of each class."""
        return torch.bincount(self.labels_N, minlength=self.num_classes)

    def select(self, indices: Tensor | np.ndarray | Sequence[int], origin: Origin | None = None) -> LabeledSet:
        """The rows at `indices`, in that order, as a set of its own."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.labels_N.device)
        return replace(
            self,
            images_NCHW=self.images_NCHW[rows],
            labels_N=self.labels_N[rows],
            origin=self.origin if origin is None else origin,
        )

    def by_class(self) -> LabeledSet:
        """The same set in class order (stable), the layout in which distillation reads it."""
        return self.select(torch.argsort(self.labels_N, stable=True))

    def to(self, device: torch.device | str) -> LabeledSet:
        return replace(self, images_NCHW=self.images_NCHW.to(device), labels_N=self.labels_N.to(device))


@dataclass(frozen=True, kw_only=True)
class Decoder(ABC):
    """From a summary's arrays to images. A frozen dataclass of plain numbers and strings.

    A concrete decoder lives in `fedcl/distill/parameterizations/<name>.py` and says its `name`; `spec()` is
    what travels in messages and files.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The module's name, from which the decoder is found again."""

    @abstractmethod
    def decode(self, arrays: Mapping[str, Tensor], shape_CHW: tuple[int, int, int]) -> Tensor:
        """Arrays to normalised float32 images [M, C, H, W]; differentiable."""

    @abstractmethod
    def expand(self, targets: Tensor) -> Tensor:
        """Targets of the N stored entries to targets of the M decoded images."""

    def spec(self) -> dict[str, int | float | str | bool]:
        return {"name": self.name, **asdict(self)}


def label_dtype(num_classes: int) -> torch.dtype:
    """The smallest integer type that holds a hard label: what is counted and what is sent."""
    if num_classes <= 256:
        return torch.uint8
    return torch.int16 if num_classes <= 2**15 else torch.int32


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A small synthetic or selected data set that stands for a larger one."""

    arrays: Mapping[str, Tensor]  # float32, first axis N unless the decoder says otherwise
    targets: Tensor  # int64 [N] hard labels, or float32 [N, C] soft labels (probabilities or scores)
    shape_CHW: tuple[int, int, int]  # of a decoded image
    normalization: Normalization  # the units of decoded images
    decoder: Decoder
    method: str  # name of the distiller that made it
    num_source_C: Tensor | None = None  # int64 [C]: real examples of each class it stands for; None: not told
    num_classes: int = 0  # C; 0: as many as num_source_C counts
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        counted = self.num_classes if self.num_source_C is None else len(self.num_source_C)
        object.__setattr__(self, "num_classes", self.num_classes or counted)
        if not self.num_classes == counted > 0:
            raise DataError(f"a summary of {self.num_classes} classes counts examples of {counted}; give num_classes")
        object.__setattr__(self, "arrays", dict(sorted(self.arrays.items())))
        object.__setattr__(self, "shape_CHW", tuple(int(v) for v in self.shape_CHW))
        for name, array in self.arrays.items():
            if array.dtype != torch.float32:
                raise DataError(f"summary array '{name}' must be float32, got {array.dtype}")
        if self.is_soft:
            if self.targets.ndim != 2 or self.targets.shape[1] != self.num_classes:
                raise DataError(f"soft labels must be [N, {self.num_classes}], got {tuple(self.targets.shape)}")
        elif self.targets.dtype != torch.int64 or self.targets.ndim != 1:
            raise DataError(f"hard labels must be int64 [N], got {self.targets.dtype} {tuple(self.targets.shape)}")
        elif len(self.targets) and not 0 <= int(self.targets.min()) <= int(self.targets.max()) < self.num_classes:
            raise DataError(f"hard labels must lie in [0, {self.num_classes})")

    @property
    def is_soft(self) -> bool:
        return self.targets.is_floating_point()

    def decode(self) -> tuple[Tensor, Tensor]:
        """Normalised float32 images [M, C, H, W] and their targets [M] or [M, C]."""
        return self.decoder.decode(self.arrays, self.shape_CHW), self.decoder.expand(self.targets)

    def check(self) -> None:
        """Read every number, of a summary that comes from outside, and decode it.

        Raises:
            DataError: it does not give finite images of its shape, one for each target.
        """
        source = self.num_source_C
        if source is not None and (source.dtype != torch.int64 or source.ndim != 1 or (source < 0).any()):
            raise DataError(f"the counts of real examples must be int64 [C] and not negative, got {source}")
        for name, array in self.arrays.items():
            if not torch.isfinite(array).all():
                raise DataError(f"array '{name}' holds NaN or infinity")
        check_decoded(self.decode, self.shape_CHW, self.normalization)

    @property
    def num_images(self) -> int:
        """Decoded images, without decoding them."""
        return len(self.decoder.expand(self.targets))

    @property
    def payload_parts(self) -> dict[str, int]:
        """Bytes by kind as held in memory: float32 arrays, labels at their smallest integer type."""
        targets = self.targets if self.is_soft else self.targets.to(label_dtype(self.num_classes))
        parts = {"images": sum(array.nbytes for array in self.arrays.values()), "labels": targets.nbytes}
        return parts if self.num_source_C is None else {**parts, "statistics": self.num_source_C.nbytes}

    @property
    def payload_bytes(self) -> int:
        return sum(self.payload_parts.values())

    def sha256(self) -> str:
        """Hash of everything that a user of the summary would see."""
        digest = hashlib.sha256(repr((self.decoder.spec(), self.shape_CHW, self.normalization)).encode())
        for name, tensor in [*self.arrays.items(), ("targets", self.targets), ("source", self.num_source_C)]:
            if tensor is None:
                continue
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Summary:
        return replace(
            self,
            arrays={name: array.to(device) for name, array in self.arrays.items()},
            targets=self.targets.to(device),
            num_source_C=None if self.num_source_C is None else self.num_source_C.to(device),
        )


@torch.no_grad()
def check_decoded(
    decode: Callable[[], tuple[Tensor, Tensor]], shape_CHW: tuple[int, int, int], units: Normalization
) -> None:
    """Decode once.

    Raises:
        DataError: that does not give finite images of the shape and the units, one for each finite target.
    """
    if len(shape_CHW) != 3 or min(shape_CHW) < 1 or len(units.mean) not in (1, shape_CHW[0]):
        raise DataError(f"images cannot be {list(shape_CHW)} with {len(units.mean)} channels of normalisation")
    images, targets = decode()
    if tuple(images.shape) != (len(targets), *shape_CHW):
        raise DataError(f"images decode to {list(images.shape)}, expected {[len(targets), *shape_CHW]}")
    if not torch.isfinite(images).all() or not torch.isfinite(targets).all():
        raise DataError("images or targets decode to NaN or infinity")


def union(summaries: Sequence[Summary]) -> tuple[Tensor, Tensor]:
    """Decoded images and targets of several summaries, in order; associative.

    Hard labels become one-hot rows as soon as one of the summaries has soft labels.
    """
    if not summaries:
        raise DataError("the union of no summaries: every summary of this round is missing")
    decoded = [summary.decode() for summary in summaries]
    images = torch.cat([images for images, _ in decoded])
    targets = [target for _, target in decoded]
    if any(target.is_floating_point() for target in targets):
        classes = summaries[0].num_classes
        targets = [t if t.is_floating_point() else torch.nn.functional.one_hot(t, classes).float() for t in targets]
    return images, torch.cat(targets)
