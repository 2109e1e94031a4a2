"""Image files in folders, ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png: torchvision's ImageFolder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from fedcl.data.base import Dataset, DataSource, make_dataset
from fedcl.errors import ConfigError, DataError

_GRAY = ("1", "L")
_WIDE = ("I", "F")  # first letter of the modes with more than 8 bits a channel, which PIL would clip


@dataclass(frozen=True, kw_only=True)
class Folder(DataSource):
    """Every image that torchvision's ImageFolder finds, held in memory as uint8 [N, C, H, W].

    One channel if all files are grayscale, else all are read as RGB. Classes are numbered in the order of
    their sorted folder names. Normalisation is measured on the training set.
    """

    size: int | None = None  # pixels: resize all to size x size (bilinear, smoothed, aspect not kept); None: as is

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and not (isinstance(self.size, int) and self.size >= 1):
            raise ConfigError(f"dataset.size={self.size} must be a whole number of pixels, or null for no resizing")

    def load(self) -> Dataset:
        if self.root is None:
            raise DataError("dataset=image_folder needs a folder with train/ and test/ in it; type dataset.root=FOLDER")
        root = Path(str(self.root)).expanduser()
        train, test = (_find(root / part) for part in ("train", "test"))
        if train.classes != test.classes:
            only = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(
                f"dataset.root={root} has different classes in train/ and test/: {', '.join(only)} in one "
                "of them only; make the same class folders in both"
            )
        files = [Path(file) for part in (train, test) for file, _ in part.samples]
        height, width, mode = self._format(files)
        return make_dataset(
            name=root.name,
            train=_read(train, height, width, mode),
            test=_read(test, height, width, mode),
            horizontal_flip=self.horizontal_flip,
            class_names=train.classes,
        )

    def _format(self, files: list[Path]) -> tuple[int, int, str]:
        """Height, width and PIL mode that all images are read in, from the headers alone."""
        headers = [_header(file) for file in files]
        mode = "L" if all(mode in _GRAY for _, mode in headers) else "RGB"
        if self.size is not None:
            return self.size, self.size, mode
        (width, height), _ = headers[0]
        for file, (found, _) in zip(files, headers, strict=True):
            if found != (width, height):
                raise DataError(
                    f"images of differing sizes: {files[0]} is {width}x{height} and {file} is "
                    f"{found[0]}x{found[1]}; resize them, "
                    "or type dataset.size=PIXELS to have them resized as they are read"
                )
        return height, width, mode


def _find(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(folder)
    except OSError as error:
        raise DataError(
            f"no image folders at {folder} ({' '.join(str(error).split())}); type dataset.root=FOLDER, where "
            "FOLDER holds train/CLASS/ and test/CLASS/ with image files"
        ) from error


def _header(file: Path) -> tuple[tuple[int, int], str]:
    """(width, height) and mode."""
    try:
        with Image.open(file) as image:
            size, mode = image.size, image.mode
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error
    if mode.startswith(_WIDE):
        raise DataError(f"{file} has more than 8 bits a pixel (mode {mode}); save it as 8-bit grayscale or RGB")
    return size, mode


def _read(part: ImageFolder, height: int, width: int, mode: str) -> tuple[Tensor, Tensor]:
    channels = 1 if mode == "L" else 3
    images_NHWC = np.empty((len(part.samples), height, width, channels), dtype=np.uint8)
    for row, (file, _) in enumerate(part.samples):
        try:
            with Image.open(file) as image:
                pixels = image.convert(mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _unreadable(file, error) from error
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
        images_NHWC[row] = np.asarray(pixels).reshape(height, width, channels)
    labels_N = torch.tensor([label for _, label in part.samples], dtype=torch.int64)
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2), labels_N


def _unreadable(file: Path | str, error: BaseException) -> DataError:
    return DataError(f"{file} cannot be read as an image ({' '.join(str(error).split())}); replace or delete it")
