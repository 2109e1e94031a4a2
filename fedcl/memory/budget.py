"""Budgets of a continual learner's memory."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.coding import Wire
from fedcl.core.errors import ConfigError
from fedcl.core.rules import Checked, one_of, whole

UNITS = ("ipc", "images", "bytes")


@dataclass(frozen=True, kw_only=True)
class Budget(Checked):
    """Limit of a buffer. Exactly one of `ipc`, `images` and `bytes` is a number.

    Bytes are those of the same summary on the wire. Real images cost one byte a channel value, as they are on disk.
    Synthetic ones cost what `storage` says: float32 (4), float16 (2) or uint8 (1, and 8 bytes of constants a summary
    and channel). Labels cost their smallest integer type, soft labels 4 bytes a class (2 unless storage is float32).
    """

    config_key = "buffer"

    ipc: Annotated[int | None, whole(0, example=10)] = None  # stored images of each class
    images: Annotated[int | None, whole(0, example=100)] = None  # stored images in all
    bytes: Annotated[int | None, whole(0, example=100_000)] = None  # in all, labels and constants included
    # whose shares are equal: classes, steps, or none (whoever has the lowest rank)
    balance: Annotated[str, one_of("classes", "steps", "none")] = "classes"
    storage: Annotated[str, one_of("float32", "float16", "uint8")] = "float32"  # of synthetic images

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {unit: getattr(self, unit) for unit in UNITS}
        if sum(number is not None for number in given.values()) != 1:
            raise ConfigError(
                f"a buffer has one budget, got {given}; type buffer=per_class, buffer=images or buffer=bytes"
            )
        if self.ipc is not None and self.balance == "steps":
            raise ConfigError(
                "buffer.ipc is a number of each class, so buffer.balance=steps would change nothing; "
                "type buffer.balance=classes, or buffer=images for equal shares of steps"
            )

    @property
    def unit(self) -> str:
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def size(self) -> int:
        """The one number, in `unit`."""
        return getattr(self, self.unit)

    @property
    def wire(self) -> Wire:
        return Wire(dtype=self.storage)

    def room(self, num_classes: int, image_bytes: int, shared_bytes: int = 0) -> int:
        """Images in all, of `num_classes` classes, if each costs `image_bytes` and all together `shared_bytes`."""
        if self.unit == "bytes":
            return max(0, self.size - shared_bytes) // max(1, image_bytes)
        return self.size * (num_classes if self.unit == "ipc" else 1)

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


def positions(group_N: Tensor) -> Tensor:
    """int64 [N]: how many rows of the same group stand before each row."""
    order = torch.argsort(group_N, stable=True)
    ranked = group_N[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - torch.searchsorted(ranked, ranked)
    return place
