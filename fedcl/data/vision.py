"""The usual benchmarks, read by torchvision: MNIST, Fashion-MNIST, KMNIST, SVHN, CIFAR-10, CIFAR-100.

The CIFAR files are pickles. torchvision opens them only after their published MD5 has matched, so nothing
but the original files is ever unpickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from torchvision import datasets

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import Normalization
from fedcl.core.paths import typed_path
from fedcl.core.rules import one_of
from fedcl.data.base import Dataset, DataSource, make_dataset

DEFAULT_ROOT = "~/.cache/fedcl"

_IDX = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_CIFAR10 = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
# name -> torchvision class, folder under the root, files in it
_SETS = {
    "mnist": ("MNIST", "MNIST/raw", _IDX),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw", _IDX),
    "kmnist": ("KMNIST", "KMNIST/raw", _IDX),
    "svhn": ("SVHN", "", ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": ("CIFAR10", "cifar-10-batches-py", _CIFAR10),
    "cifar100": ("CIFAR100", "cifar-100-python", ("train", "test", "meta")),
}
# What torchvision raises on a failed download and on files that are truncated or something else.
_FAILURES = (RuntimeError, OSError, ValueError, TypeError, LookupError, AssertionError, EOFError)


@dataclass(frozen=True, kw_only=True)
class Vision(DataSource):
    """One of torchvision's data sets by name, as uint8 [N, C, H, W], with its own training and test part.

    Without `root` the files are looked for, and downloaded to, `~/.cache/fedcl`.
    """

    name: Annotated[str, one_of(*_SETS)]
    mean: Sequence[float] | None = None  # one a channel, of pixels in [0, 1]; None for both measures them
    std: Sequence[float] | None = None  # one a channel, of pixels in [0, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._given()

    def _given(self) -> Normalization | None:
        """The constants that were given, if they were."""
        if self.mean is None and self.std is None:
            return None
        try:
            return Normalization(mean=tuple(self.mean or ()), std=tuple(self.std or ()))
        except (TypeError, ValueError, DataError) as error:
            raise ConfigError(
                f"dataset.mean={self.mean} and dataset.std={self.std} must be lists of numbers, one a channel, all std "
                "positive; or null for both to measure them"
            ) from error

    def load(self) -> Dataset:
        class_name, folder, files = _SETS[self.name]
        root = typed_path("dataset.root", self.root or DEFAULT_ROOT)
        where = root / folder
        missing = [file for file in files if not (where / file).is_file()]
        if missing and not self.download:
            raise DataError(
                f"{self.name} is not at {where}: {', '.join(missing)} missing. Type dataset.root=FOLDER, where FOLDER "
                f"holds {folder or ' and '.join(files)}, or dataset.download=true to fetch it into {root}"
            )
        try:
            train, test = (_read(class_name, root, part, self.download) for part in ("train", "test"))
        except _FAILURES as error:
            verb = "fetched into" if missing else "read from"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.name} could not be {verb} {where}: {reason}. Put the original files there, type "
                "another dataset.root=FOLDER, or delete the files and type dataset.download=true"
            ) from error
        return make_dataset(
            name=self.name,
            train=_arrays(train),
            test=_arrays(test),
            horizontal_flip=self.horizontal_flip,
            class_names=getattr(train, "classes", None),  # SVHN names none: its labels are the digits
            normalization=self._given(),
        )


def _read(class_name: str, root: Path, part: str, download: bool) -> Any:
    if class_name == "SVHN":
        return datasets.SVHN(root, split=part, download=download)
    kind = getattr(datasets, class_name)
    if issubclass(kind, datasets.MNIST):  # never its old processed/*.pt, which may hold anything and would win
        kind = type(kind.__name__, (kind,), {"_check_legacy_exist": lambda self: False})
    return kind(root, train=part == "train", download=download)


def _arrays(part: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, C, H, W] and labels int64 [N], straight from the arrays that torchvision holds."""
    images = torch.as_tensor(part.data)
    labels = part.labels if isinstance(part, datasets.SVHN) else part.targets
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif isinstance(part, datasets.CIFAR10):  # and its subclass CIFAR100: [N, H, W, C]
        images = images.permute(0, 3, 1, 2)
    return images, torch.as_tensor(labels, dtype=torch.int64)
