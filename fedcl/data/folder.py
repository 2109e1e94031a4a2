"""Image files in folders, found as torchvision's ImageFolder does: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png.

Without a test folder, ROOT/CLASS/*.png or ROOT/train/CLASS/*.png, a part of each class becomes the test set.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes

from fedcl.core.errors import DataError
from fedcl.core.paths import typed_path
from fedcl.core.rules import number, whole
from fedcl.core.seeding import numpy_rng
from fedcl.data.base import Dataset, DataSource, make_dataset, split_rows

_GRAY = {"1", "L"}
_WIDE = ("I", "F")  # first letter of the modes with more than 8 bits a channel, which PIL would clip


@dataclass(frozen=True)
class _Part:
    """What train/ or test/ holds."""

    classes: tuple[str, ...]
    samples: list[tuple[Path, int]]  # file and label
    folders: frozenset[str]  # all that were looked into, with links resolved

    @property
    def labels_N(self) -> Tensor:
        return torch.tensor([label for _, label in self.samples])


@dataclass(frozen=True, kw_only=True)
class Folder(DataSource):
    """Every image below the class folders, held in memory as uint8 [N, C, H, W].

    One channel if all files are grayscale, else all are read as RGB. Classes are numbered in the order of
    their sorted folder names. Links to folders are followed, and each folder is read once. Normalisation is
    measured on the training set.
    """

    # of each class, where there is no test folder; None: ROOT/test holds the test
    test_fraction: Annotated[float | None, number(above=0, below=1, example=0.2)] = None
    split_seed: int = 0  # which images those are; the seed of a run does not move them
    # pixels: resize all to size x size (bilinear, smoothed, aspect not kept); None: as is
    size: Annotated[int | None, whole(1, example=32)] = None

    def load(self) -> Dataset:
        if self.root is None:
            raise DataError("dataset=image_folder needs a folder with train/ and test/ in it; type dataset.root=FOLDER")
        root = typed_path("dataset.root", self.root)
        train, test = self._parts(root)
        if train.classes != test.classes:
            only = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(
                f"dataset.root={root} has different classes in train/ and test/: {', '.join(only)} in one of them "
                "only; make the same class folders in both"
            )
        if self.test_fraction is None and (both := sorted(train.folders & test.folders)):
            raise DataError(f"{both[0]} is reached from train/ and from test/ of dataset.root={root}; remove the link")
        shape, mode = self._format([file for part in (train, test) for file, _ in part.samples])
        return make_dataset(
            name=root.name,
            train=_read(train, shape, mode),
            test=_read(test, shape, mode),
            horizontal_flip=self.horizontal_flip,
            class_names=train.classes,
        )

    def _parts(self, root: Path) -> tuple[_Part, _Part]:
        """Training files and test files."""
        if self.test_fraction is None:
            if root.is_dir() and not (root / "train").exists() and any(place.is_dir() for place in root.iterdir()):
                raise DataError(
                    f"dataset.root={root} has no train/ and test/ folders; where its folders are the classes, type "
                    "dataset.test_fraction=0.2, and that part of each class is the test set"
                )
            return _find(root / "train"), _find(root / "test")
        if (root / "test").exists():
            raise DataError(f"dataset.root={root} has a test folder; type dataset.test_fraction=null to use it")
        whole = _find(root / "train" if (root / "train").is_dir() else root)
        rng = numpy_rng(self.split_seed, "test split")
        kept, taken = split_rows(whole.labels_N, self.test_fraction, rng, whole.classes, f"dataset.root={root}")
        first, second = ([whole.samples[row] for row in rows.tolist()] for rows in (kept, taken))
        return replace(whole, samples=first), replace(whole, samples=second)

    def _format(self, files: list[Path]) -> tuple[tuple[int, int, int], str]:
        """(H, W, C) and PIL mode that all images are read in, from the headers alone."""
        sizes, modes = [], set()
        for file in files:
            with _opened(file) as image:
                sizes.append(image.size)
                modes.add(image.mode)
            if image.mode.startswith(_WIDE):
                raise DataError(
                    f"{file} has more than 8 bits a pixel (mode {image.mode}); save it as 8-bit grayscale or RGB"
                )
        width, height = sizes[0] if self.size is None else (self.size, self.size)
        for file, found in zip(files, sizes, strict=True):
            if self.size is None and found != (width, height):
                raise DataError(
                    f"images of differing sizes: {files[0]} is {width}x{height} and {file} is {found[0]}x{found[1]}; "
                    "resize them, or type dataset.size=PIXELS to have them resized as they are read"
                )
        mode = "L" if modes <= _GRAY else "RGB"
        shape = (height, width, 1 if mode == "L" else 3)
        needed, there = len(files) * math.prod(shape), math.inf
        if hasattr(os, "sysconf"):  # Windows does not say
            there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise DataError(
                f"{len(files)} of {height}x{width} pixels take {needed / 1e9:.0f} GB, and this machine has "
                f"{there / 1e9:.0f} GB; type a smaller dataset.size=PIXELS"
            )
        return shape, mode


def _find(folder: Path) -> _Part:
    try:
        classes, label_of = find_classes(folder)
        own = {os.path.realpath(folder / name): name for name in classes}
        if len(own) < len(classes):
            raise FileNotFoundError(f"two of {', '.join(classes)} are one folder")
        visited = {os.path.realpath(folder), *own}  # no link leads from one class into another
        samples = [(file, label_of[name]) for name in classes for file in _images_below(folder / name, visited)]
        if empty := sorted(set(classes) - {classes[label] for _, label in samples}):
            raise FileNotFoundError(f"no image in {', '.join(empty)}; known endings are {', '.join(IMG_EXTENSIONS)}")
        return _Part(tuple(classes), samples, frozenset(visited))
    except OSError as error:
        raise DataError(
            f"no image folders at {folder} ({' '.join(str(error).split())}); type dataset.root=FOLDER, where "
            "FOLDER holds train/CLASS/ and test/CLASS/ with image files, or CLASS/ beside dataset.test_fraction=0.2"
        ) from error


def _images_below(folder: Path, visited: set[str]) -> list[Path]:
    """Image files of a folder and those inside it, in order of their names; a folder that is known ends there."""
    found = []
    for place, inside, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited and place != str(folder):
            inside.clear()
            continue
        visited.add(real)
        inside.sort()  # real folders and links come as the disk has them
        found.append((place, sorted(name for name in names if name.lower().endswith(IMG_EXTENSIONS))))
    files = [Path(place, name) for place, names in sorted(found) for name in names]
    for file in files:
        if file.exists() and not file.is_file():
            raise DataError(f"{file} is no file but a pipe or a device; delete it")
    return files


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as an image ({reason}); replace or delete it") from error


def _read(part: _Part, shape: tuple[int, int, int], mode: str) -> tuple[Tensor, Tensor]:
    height, width, _ = shape
    images_NHWC = np.empty((len(part.samples), *shape), dtype=np.uint8)
    for row, (file, _) in enumerate(part.samples):
        with _opened(file) as image:
            pixels = image.convert(mode)
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
        images_NHWC[row] = np.asarray(pixels).reshape(shape)
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2), part.labels_N
