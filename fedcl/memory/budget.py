"""Budgets of a continual learner's memory, and which rows stay under them.

Legend: N stored rows, B blocks of rows that are stored alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.coding import Wire
from fedcl.core.errors import ConfigError

BALANCES = ("classes", "steps", "none")
MOST = 2**62  # what tensors can be compared with


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limit of a buffer. Exactly one of `ipc`, `images` and `bytes` is a number.

    Bytes are those of the same summary on the wire. Real images cost one byte a channel value, as they are on disk.
    Synthetic ones cost what `storage` says: float32 (4), float16 (2) or uint8 (1, and 8 bytes of constants a summary
    and channel). Labels cost their smallest integer type, soft labels 4 bytes a class (2 unless storage is float32).
    """

    ipc: int | None = None  # stored images of each class
    images: int | None = None  # stored images in all
    bytes: int | None = None  # in all, labels and constants included
    balance: str = "classes"  # whose shares are equal: classes, steps, or none (whoever has the lowest rank)
    storage: str = "float32"  # of synthetic images

    def __post_init__(self) -> None:
        given = {"ipc": self.ipc, "images": self.images, "bytes": self.bytes}
        numbers = [value for value in given.values() if value is not None]
        if len(numbers) != 1:
            raise ConfigError(
                f"a buffer has one budget, got {given}; type buffer=per_class, buffer=images or buffer=bytes"
            )
        if numbers[0] < 0:
            raise ConfigError(f"a buffer of {numbers[0]} is less than nothing; type buffer.{self.unit}=100")
        if self.balance not in BALANCES:
            raise ConfigError(f"buffer.balance={self.balance} is unknown; choose one of {', '.join(BALANCES)}")
        if self.ipc is not None and self.balance == "steps":
            raise ConfigError(
                "buffer.ipc is a number of each class, so buffer.balance=steps would change nothing; "
                "type buffer.balance=classes, or buffer=images for equal shares of steps"
            )
        if self.storage not in ("float32", "float16", "uint8"):
            raise ConfigError(f"buffer.storage={self.storage} is unknown; choose float32, float16 or uint8")

    @property
    def unit(self) -> str:
        return "ipc" if self.ipc is not None else "images" if self.images is not None else "bytes"

    @property
    def size(self) -> int:
        """The one number, in `unit`."""
        return next(value for value in (self.ipc, self.images, self.bytes) if value is not None)

    @property
    def wire(self) -> Wire:
        return Wire(dtype=self.storage)

    def room(self, num_classes: int, image_bytes: int, shared_bytes: int = 0) -> int:
        """Images in all, of `num_classes` classes, if each costs `image_bytes` and all together `shared_bytes`."""
        if self.ipc is not None:
            return self.ipc * num_classes
        return self.images if self.images is not None else max(0, self.size - shared_bytes) // max(1, image_bytes)

    def share(self, num_classes: int, image_bytes: int, shared_bytes: int = 0) -> int:
        """Images of each class, at the same prices."""
        classes = max(1, num_classes)
        return self.room(classes, image_bytes, shared_bytes) // classes

    def require(self, row_bytes: int, who: str) -> None:
        """Raises ConfigError if not even one image fits, and `who` needs memory."""
        least = row_bytes if self.unit == "bytes" else 1
        if self.size < least:
            raise ConfigError(
                f"{who} needs memory, but buffer.{self.unit}={self.size} holds no image; "
                f"type buffer.{self.unit}={least} or more, or strategy=finetune"
            )

    def keep(self, rows: Rows, num_classes: int, rows_per_image: int) -> Tensor:
        """bool [N]: rows that stay. Groups have equal shares; what a small one leaves goes to the others.

        Args:
            rows_per_image: stored rows that count as one image.
        """
        label_N, step_N = rows.label_N, rows.step_N
        group_N = {"classes": label_N, "steps": step_N, "none": torch.zeros_like(label_N)}[self.balance]
        ranked = lexsort(rows.rank_N, label_N, step_N)
        place_N = torch.empty_like(label_N)
        place_N[ranked] = positions(group_N[ranked])
        if self.ipc is not None and self.balance != "none":
            return place_N < min(self.ipc * rows_per_image, MOST)
        # The first row of each group, then the second of each, and so on, as long as the budget lasts.
        order = lexsort(place_N, group_N)
        cost_N, limit = torch.ones_like(order), self.room(num_classes, 1) * rows_per_image
        if self.bytes is not None:  # what the rows of a block share comes with the first of them
            block_N, limit = rows.block_N[order], self.bytes
            cost_N = rows.row_bytes_B[block_N] + rows.shared_bytes_B[block_N] * (positions(block_N) == 0)
        keep_N = torch.zeros(len(order), dtype=torch.bool)
        keep_N[order[torch.cumsum(cost_N, 0) <= min(limit, MOST)]] = True
        return keep_N


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that a budget chooses from, in B blocks."""

    label_N: Tensor  # int64, class
    step_N: Tensor  # int64, step that it came at
    rank_N: Tensor  # float64; within its group the row of lowest rank stays longest
    block_N: Tensor  # int64, block that it lies in
    row_bytes_B: Tensor  # int64, bytes of a row of each block
    shared_bytes_B: Tensor  # int64, bytes of what its rows share


def positions(group_N: Tensor) -> Tensor:
    """int64 [N]: how many rows of the same group stand before each row."""
    order = torch.argsort(group_N, stable=True)
    ranked = group_N[order]
    starts = torch.searchsorted(ranked, ranked)
    place = torch.empty(len(group_N), dtype=torch.int64)
    place[order] = torch.arange(len(group_N)) - starts
    return place


def lexsort(*keys: Tensor) -> Tensor:
    """Row numbers in order of the first key, then the second, ..."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[torch.argsort(key[order], stable=True)]
    return order
