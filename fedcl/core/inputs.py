"""Inputs of a network: the shape of one, the type that they rest in, and the map from there to what a network reads.

One law holds everywhere: uint8 values are pixels as they rest, and float32 values are what a network reads. A table
is standardised as it is read, so that its rows rest as float32.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError

DTYPES = {"uint8": torch.uint8, "float32": torch.float32}
FLIP = "flip"  # a mirrored image still shows the same class


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Affine map of each channel or column from its own units to network input: (x - mean) / std.

    Units are pixels in [0, 1] for images, those of the file for a table.
    """

    mean: tuple[float, ...]  # one a channel or column
    std: tuple[float, ...]  # one a channel or column, all > 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != len(self.std) or not self.mean or not finite or min(self.std) <= 0:
            raise DataError(f"normalisation needs as many positive std as mean, got {self.mean} and {self.std}")

    def _columns(self, like: Tensor) -> tuple[Tensor, ...]:
        shape = (1, -1, *[1] * (like.ndim - 2))
        return tuple(torch.tensor(numbers, device=like.device).view(shape) for numbers in (self.mean, self.std))

    def apply(self, inputs: Tensor) -> Tensor:
        """uint8 pixels [N, C, ...] to normalised float32; floats are network input already and stay as they are."""
        if inputs.dtype != torch.uint8:
            return inputs
        mean, std = self._columns(inputs)
        return (inputs - mean * 255.0).div_(std * 255.0)

    def invert(self, inputs: Tensor) -> Tensor:
        """Network input [N, C, ...] back to its own units; pixels are nominally in [0, 1] but not clamped."""
        mean, std = self._columns(inputs)
        return inputs * std + mean


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Description of a data set's inputs: what clients, server and networks must agree on."""

    shape: tuple[int, ...]  # of one input: (C, H, W) of an image, (D,) of a table's row
    preprocess: Normalization  # from its own units to network input, one mean and std a channel or column
    dtype: str = "uint8"  # at rest: uint8 (pixels) or float32 (network input)
    invariances: tuple[str, ...] = ()  # changes that leave the class as it is: "flip"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        object.__setattr__(self, "invariances", tuple(sorted(self.invariances)))
        if self.dtype not in DTYPES:
            raise DataError(f"inputs rest as {' or '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def flips(self) -> bool:
        """Whether a mirrored input is of the same class."""
        return FLIP in self.invariances

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of one input at rest."""
        return math.prod(self.shape) * self.torch_dtype.itemsize

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs at rest [N, ...] to network input, float32 [N, ...]."""
        return self.preprocess.apply(inputs)

    def invert(self, inputs: Tensor) -> Tensor:
        """Network input [N, ...] back to its own units: pixels nominally in [0, 1], columns of a table."""
        return self.preprocess.invert(inputs)

    def to_json(self) -> dict[str, Any]:
        """Plain values for files and records."""
        return {
            "shape": list(self.shape),
            "normalization": {"mean": list(self.preprocess.mean), "std": list(self.preprocess.std)},
            "dtype": self.dtype,
            "invariances": list(self.invariances),
        }

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Self:
        """Undo `to_json`; files of 0.1 name only `shape` and `normalization`."""
        later = {key: about[key] for key in ("dtype", "invariances") if key in about}
        return cls(shape=about["shape"], preprocess=Normalization(**about["normalization"]), **later)


def check_parts(parts: Mapping[str, object], spec: InputSpec, unused: Collection[str] = ()) -> None:
    """Raise ConfigError for parts of a job that are about images, where its inputs are none: all that is to be typed.

    A part says so by an attribute `only_images`: what to type for inputs of any kind, "model=mlp".

    Args:
        parts: by their names on the command line; all that they hold is looked at, too.
        unused: dotted names of what decides nothing in this job.
    """
    if spec.is_image:
        return
    found = {}
    for path, part in _below("", parts):
        remedy = getattr(part, "only_images", None)
        if remedy and not any(path == name or path.startswith(f"{name}.") for name in unused):
            if path != "distiller.augmentation":  # the group is of that place, others say theirs
                remedy = remedy.replace("augmentation=", f"augmentation@{path}=").replace("augmentation.", f"{path}.")
            found[path] = (type(part).__name__, remedy)
    if found:
        what = ", ".join(f"{path} ({kind})" for path, (kind, _) in found.items())
        raise ConfigError(
            f"these parts are about images, and the inputs are rows of {math.prod(spec.shape)} numbers: {what}; "
            f"type {' '.join(dict.fromkeys(remedy for _, remedy in found.values()))}"
        )


def _below(path: str, part: object) -> Iterator[tuple[str, object]]:
    """Dotted name and value of a part and of all that it holds."""
    if path:
        yield path, part
    held = {field.name: getattr(part, field.name) for field in fields(part)} if is_dataclass(part) else part
    for name, value in held.items() if isinstance(held, Mapping) else ():
        yield from _below(f"{path}.{name}" if path else str(name), value)
