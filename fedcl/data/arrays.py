"""Your own arrays: one npz file with x_train, y_train, x_test, y_test."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import DataError
from fedcl.core.paths import typed_path
from fedcl.core.rules import one_of
from fedcl.data.base import Dataset, DataSource, make_dataset

_USAGE = "np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CHANNELS = 4  # an axis of at most this length may be the channels when the layout is guessed
_CHUNK = 4096  # images scaled at a time
# What numpy raises on files that are no archives of plain arrays, are cut short, or promise too much.
_FAILURES = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Arrays(DataSource):
    """Images and labels of an npz file; nothing in it is ever unpickled.

    Images (`x_...`): uint8, or float in [0, 1] which becomes round(255 x). [N, H, W] is one channel.
    With four axes, `layout=auto` takes the one of the second and the last axis that is at most 4 long as the
    channels; if both or neither are, say which layout it is.
    Labels (`y_...`): any integer type, [N] or [N, 1], counting from 0 without gaps; any number of
    classes. Normalisation is measured on the training set.
    """

    path: str | None = None  # the npz file; a relative path starts at `root` if there is one
    layout: Annotated[str, one_of("auto", "NHWC", "NCHW")] = "auto"

    def load(self) -> Dataset:
        if self.path is None:
            raise DataError("dataset=npz needs a file; type dataset.path=FILE.npz")
        path = typed_path("dataset.path", self.root or "", self.path)
        arrays = _read(path)
        parts = {}
        for part in ("train", "test"):
            images = _images(arrays[f"x_{part}"], f"x_{part} of dataset.path={path}", self.layout)
            labels = _labels(arrays[f"y_{part}"], f"y_{part} of dataset.path={path}")
            if len(images) != len(labels):
                raise DataError(
                    f"dataset.path={path} has {len(images)} images in x_{part} but {len(labels)} labels in y_{part}; "
                    "save one label an image"
                )
            parts[part] = images, labels
        return make_dataset(name=path.stem, **parts, horizontal_flip=self.horizontal_flip)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"there is no file at dataset.path={path}; type dataset.path=FILE.npz")
    try:
        archive = np.load(path, allow_pickle=False)
    except _FAILURES as error:
        raise DataError(f"dataset.path={path} is not an npz file; write one with {_USAGE}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"dataset.path={path} holds a single array; write an npz with {_USAGE}")
    with archive:
        if missing := [key for key in KEYS if key not in archive.files]:
            raise DataError(
                f"dataset.path={path} has no {', '.join(missing)} (it has {', '.join(archive.files) or 'nothing'}); "
                f"write it with {_USAGE}"
            )
        arrays = {}
        for key in KEYS:
            try:
                arrays[key] = np.asanyarray(archive[key])  # a member that is no array comes as bytes
            except _FAILURES as error:
                raise DataError(
                    f"{key} of dataset.path={path} cannot be read ({' '.join(str(error).split())}); object arrays are "
                    "refused, because reading them runs code: save plain uint8 or float images and integer labels"
                ) from error
    return arrays


def _images(images: np.ndarray, where: str, layout: str) -> Tensor:
    if images.ndim not in (3, 4):
        raise DataError(f"{where} has shape {images.shape}; reshape it to [N, H, W], [N, H, W, C] or [N, C, H, W]")
    return torch.from_numpy(np.ascontiguousarray(_channels_first(_as_uint8(images, where), where, layout)))


def _as_uint8(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where} is {images.dtype}; save uint8 in 0..255 (.astype('uint8')) or float in [0, 1]")
    if images.size and not 0 <= images.min() <= images.max() <= 1:  # false for NaN too
        raise DataError(
            f"{where} is {images.dtype} in {images.min():g}..{images.max():g}; floats must lie in [0, 1]: divide by "
            "255 if they are pixels, undo the normalisation if they are normalised, or save .astype('uint8')"
        )
    scaled = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        scaled[rows] = np.rint(images[rows].astype(np.float64) * 255)
    return scaled


def _channels_first(images: np.ndarray, where: str, layout: str) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if layout == "auto":
        last, second = images.shape[3] <= _MAX_CHANNELS, images.shape[1] <= _MAX_CHANNELS
        if last == second:
            raise DataError(
                f"{where} has shape {images.shape}, which leaves open which axis holds the channels; "
                "type dataset.layout=NHWC or dataset.layout=NCHW"
            )
        layout = "NHWC" if last else "NCHW"
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images


def _labels(labels: np.ndarray, where: str) -> Tensor:
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where} is {labels.dtype} {labels.shape}; labels must be integers [N] that count the classes "
            "from 0 (one-hot rows: .argmax(1); floats: .astype('int64'))"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < 2**31:
        raise DataError(f"{where} has labels {labels.min()}..{labels.max()}; they must count the classes from 0")
    return torch.from_numpy(labels.astype(np.int64))
