"""Memory of a continual learner: stored images under a budget in images per class, in images, or in bytes.

A buffer is a value: `add` gives a new one that is never over its budget, `replay` gives images and targets.
What is replayed was decoded from storage, so that coarse storage costs accuracy where it saves bytes.

Legend: N stored rows (images; a decoder may make several of one), M decoded images, K constants a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from fedcl.core.coding import Coded, Wire
from fedcl.core.errors import ConfigError
from fedcl.core.types import Decoder, LabeledSet, Normalization, Summary, label_dtype
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.distill.parameterizations.pixels import Pixels

BALANCES = ("classes", "steps", "none")
PIXELS = "pixels"  # coding of real images: the uint8 pixels that they are


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be kept. Exactly one of `ipc`, `images` and `bytes` is a number.

    Real images cost one byte a channel value, as they are on disk. Synthetic ones cost what `storage` says:
    float32 (4), float16 (2) or uint8 (1, and 8 bytes of constants an image and channel). Labels cost their
    smallest integer type, soft labels 4 bytes a class (2 unless storage is float32).
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


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that are stored in the same way."""

    decoder: Decoder
    shape_CHW: tuple[int, int, int]
    normalization: Normalization
    num_classes: int
    coding: str  # of the images: "pixels", "float32", "float16" or "uint8"
    codes: Mapping[str, Tensor]  # name -> [N, ...] as stored, on the CPU
    constants: Mapping[str, Tensor]  # name -> float32 [N, 2, K], of uint8 codes that are no pixels
    shared: Mapping[str, Tensor]  # name -> arrays that all rows are decoded with, counted once
    rows_per_image: int  # stored rows that the budget counts as one image
    targets: Tensor  # smallest integer type [N], or soft labels [N, C], float32 or float16
    label_N: Tensor  # int64 [N], class of a row (the likeliest, where labels are soft); not counted
    step_N: Tensor  # int64 [N], when it came; not counted
    rank_N: Tensor  # float64 [N]; within its group the row of lowest rank stays longest; not counted

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def layout(self) -> tuple[Any, ...]:
        """Blocks of equal layout can be one."""
        dtypes = tuple((name, code.dtype, tuple(code.shape[1:])) for name, code in self.codes.items())
        about = (self.shape_CHW, self.normalization, self.num_classes, self.coding)
        return (repr(self.decoder.spec()), *about, dtypes, self.targets.dtype)

    def joins(self, other: Block) -> bool:
        """Whether rows of the two can lie in one block."""
        same = self.layout == other.layout and set(self.shared) == set(other.shared)
        return same and all(torch.equal(array, other.shared[name]) for name, array in self.shared.items())

    @property
    def row_bytes(self) -> int:
        parts = (*self.codes.values(), *self.constants.values(), self.targets)
        return sum(part.element_size() * prod(part.shape[1:]) for part in parts)

    @property
    def shared_bytes(self) -> int:
        return sum(array.nbytes for array in self.shared.values())

    def _map(self, change: Any) -> Block:
        tensors = {name: change(getattr(self, name)) for name in ("targets", "label_N", "step_N", "rank_N")}
        codes = {name: change(code) for name, code in self.codes.items()}
        return replace(self, codes=codes, constants={k: change(v) for k, v in self.constants.items()}, **tensors)

    def select(self, rows_N: Tensor) -> Block:
        return self._map(lambda tensor: tensor[rows_N])

    def join(self, other: Block) -> Block:
        pairs = {name: torch.cat([code, other.codes[name]]) for name, code in self.codes.items()}
        constants = {name: torch.cat([part, other.constants[name]]) for name, part in self.constants.items()}
        names = ("targets", "label_N", "step_N", "rank_N")
        rest = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names}
        return replace(self, codes=pairs, constants=constants, **rest)

    def array(self, name: str) -> Tensor:
        """float32 [N, ...] as decoded from storage."""
        code = self.codes[name]
        if self.coding == PIXELS and name == "images":
            return self.normalization.apply(code)
        wire = next(key for key in ("float32", "float16", "uint8") if Wire(dtype=key).torch_dtype == code.dtype)
        constants = self.constants.get(name)
        rows = code.reshape(num_scales(code), -1) if code.numel() else code.reshape(0, 1)
        known = torch.zeros(2, 0) if constants is None else constants.transpose(0, 1).reshape(2, -1)
        return Wire(dtype=wire).decode(Coded(values=rows, constants=known), 0).reshape(code.shape)

    def decode(self) -> tuple[Tensor, Tensor]:
        """Normalised float32 images [M, C, H, W]; int64 labels [M] or float32 soft labels [M, C]."""
        targets = self.targets.float() if self.targets.is_floating_point() else self.targets.long()
        arrays = {name: self.array(name) for name in self.codes}
        arrays |= {name: array.float() for name, array in self.shared.items()}
        return self.decoder.decode(arrays, self.shape_CHW), self.decoder.expand(targets)


def store(summary: Summary, rank_N: Tensor, wire: Wire) -> Block:
    """A summary as rows of memory. Arrays whose first axis is no row (bases, places) are kept once, as floats."""
    decoder, arrays, targets = summary.decoder, dict(summary.arrays), summary.targets
    own = (*decoder.row_arrays, "logits") if isinstance(decoder, Parameterization) else tuple(arrays)
    shared = {name: arrays.pop(name) for name in list(arrays) if name not in own}
    shared = {name: wire.for_labels().encode(array).values for name, array in shared.items()}
    coding, codes, constants = wire.dtype, {}, {}
    pixels = _as_pixels(arrays["images"], summary.normalization) if isinstance(decoder, Pixels) else None
    if pixels is not None:
        coding, codes["images"] = PIXELS, pixels
    for name, values in arrays.items():
        if name in codes:
            continue
        coarse = wire if values.ndim == 4 else wire.for_labels()
        rows = values.reshape(num_scales(values), -1) if values.numel() else values.reshape(0, 1)
        coded = coarse.encode(rows, 0)
        codes[name] = coded.values.reshape(values.shape)
        if coarse.dtype == "uint8":
            constants[name] = coded.constants.reshape(2, len(values), -1).transpose(0, 1).contiguous()
    if targets.is_floating_point():
        label_N, targets = targets.argmax(1), wire.for_labels().encode(targets).values
    else:
        label_N, targets = targets, targets.to(label_dtype(summary.num_classes))
    return Block(
        decoder=decoder,
        shape_CHW=summary.shape_CHW,
        normalization=summary.normalization,
        num_classes=summary.num_classes,
        coding=coding,
        codes=dict(sorted(codes.items())),
        constants=constants,
        shared=shared,
        rows_per_image=decoder.num_initial(1) if isinstance(decoder, Parameterization) else 1,
        targets=targets.cpu(),
        label_N=label_N.cpu(),
        step_N=torch.full((len(label_N),), summary.origin.step),
        rank_N=rank_N.double().cpu(),
    )


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """What is kept. Never over its budget."""

    budget: Budget
    blocks: tuple[Block, ...] = ()

    def __len__(self) -> int:
        """Stored rows."""
        return sum(len(block) for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        return sum(len(block) * block.row_bytes + block.shared_bytes for block in self.blocks)

    @property
    def num_images(self) -> int:
        """Decoded images."""
        return sum(len(block.decoder.expand(block.targets)) for block in self.blocks)

    @property
    def memory(self) -> dict[str, int]:
        """The record's `memory` part."""
        return {"bytes": self.num_bytes, "images": self.num_images, "stored_images": len(self)}

    def add(self, summary: Summary, rank_N: Tensor | None = None) -> Buffer:
        """A buffer with this summary's rows; whatever is over the budget is dropped, old rows and new alike.

        Args:
            rank_N: a number a stored row; of each group those of lowest rank stay. Without it, the position
                of the row within its class. Uniform random ranks make the buffer a uniform sample of
                all that was ever added (a reservoir).
        """
        if not len(summary.targets):
            return self
        if rank_N is None:
            labels = summary.targets.argmax(1) if summary.is_soft else summary.targets
            rank_N = positions(labels).double()
        new = store(summary, rank_N, self.budget.wire)
        blocks = list(self.blocks)
        for index, block in enumerate(blocks):
            if block.joins(new):
                blocks[index] = block.join(new)
                break
        else:
            blocks.append(new)
        return replace(self, blocks=tuple(blocks))._within_budget()

    def _within_budget(self) -> Buffer:
        if not self.blocks:
            return self
        label_N, step_N, rank_N = (
            torch.cat([getattr(block, name) for block in self.blocks]) for name in ("label_N", "step_N", "rank_N")
        )
        budget, rows_per_image = self.budget, max(block.rows_per_image for block in self.blocks)
        per_class = budget.ipc is not None and budget.balance != "none"
        group_N = label_N if budget.balance == "classes" else step_N
        group_N = torch.zeros_like(label_N) if budget.balance == "none" else group_N
        order = _lexsort(rank_N, label_N, step_N)
        place_N = torch.empty_like(label_N)
        place_N[order] = positions(group_N[order])
        if per_class:
            keep_N = place_N < min(budget.size * rows_per_image, 2**62)
        elif budget.bytes is not None:
            cost_N = torch.cat([torch.full((len(block),), block.row_bytes) for block in self.blocks])
            shared = sum(block.shared_bytes for block in self.blocks)
            keep_N = _fill(place_N, group_N, cost_N, budget.size - shared)
        else:
            images = budget.size if budget.ipc is None else budget.size * self.blocks[0].num_classes
            keep_N = _fill(place_N, group_N, torch.ones_like(label_N), images * rows_per_image)
        if bool(keep_N.all()):
            return self
        kept, start = [], 0
        for block in self.blocks:
            rows = torch.nonzero(keep_N[start : start + len(block)])[:, 0]
            start += len(block)
            if len(rows):
                kept.append(block.select(rows))
        return replace(self, blocks=tuple(kept))

    def replay(self) -> tuple[Tensor, Tensor]:
        """Normalised float32 images [M, C, H, W], and int64 labels [M]; float32 [M, C] if any label is soft.

        Raises:
            ConfigError: there is nothing in it.
        """
        if not len(self):
            raise ConfigError("the buffer is empty: nothing can be replayed; give it a larger budget")
        decoded = [block.decode() for block in self.blocks]
        targets = [target for _, target in decoded]
        if any(target.is_floating_point() for target in targets):
            classes = self.blocks[0].num_classes
            targets = [t if t.is_floating_point() else torch.nn.functional.one_hot(t, classes).float() for t in targets]
        return torch.cat([images for images, _ in decoded]), torch.cat(targets)

    def column(self, name: str) -> Tensor:
        """float32 [N, ...]: one array of all rows, as decoded from storage (logits beside images)."""
        return torch.cat([block.array(name) for block in self.blocks])

    @property
    def steps_M(self) -> Tensor:
        """int64 [M]: the step that every replayed image came from."""
        return torch.cat([block.decoder.expand(block.step_N) for block in self.blocks])

    @property
    def labels_N(self) -> Tensor:
        """int64 [N]: the class of every stored row."""
        return torch.cat([block.label_N for block in self.blocks]) if self.blocks else torch.zeros(0, dtype=torch.int64)


def positions(group_N: Tensor) -> Tensor:
    """int64 [N]: how many rows of the same group stand before each row."""
    order = torch.argsort(group_N, stable=True)
    ranked = group_N[order]
    starts = torch.searchsorted(ranked, ranked)
    place = torch.empty(len(group_N), dtype=torch.int64)
    place[order] = torch.arange(len(group_N)) - starts
    return place


def _fill(place_N: Tensor, group_N: Tensor, cost_N: Tensor, limit: int) -> Tensor:
    """bool [N]: the fairest rows that cost at most `limit`: the first L of each group, L as large as fits,
    then one more of each group, in their order, as long as it fits. Groups smaller than L leave their room."""
    limit = min(limit, 2**62)  # what tensors can be compared with
    level_costs = torch.zeros(int(place_N.max()) + 1, dtype=torch.int64).index_add_(0, place_N, cost_N)
    spent = torch.cumsum(level_costs, 0)
    level = int((spent <= limit).sum())  # costs are positive: a prefix
    keep_N = place_N < level
    if level < len(level_costs):
        rest = limit - (int(spent[level - 1]) if level else 0)  # below 0: nothing fits
        candidates = torch.nonzero(place_N == level)[:, 0]
        candidates = candidates[torch.argsort(group_N[candidates], stable=True)]
        keep_N[candidates[torch.cumsum(cost_N[candidates], 0) <= rest]] = True
    return keep_N


def _lexsort(*keys: Tensor) -> Tensor:
    """Row numbers in order of the first key, then the second, ..."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def num_scales(values: Tensor) -> int:
    """Rows of constants: one a channel of an image, one a stored row of anything else."""
    is_image = values.ndim == 4 and values.shape[2] * values.shape[3] > 1
    return values.shape[0] * values.shape[1] if is_image else values.shape[0]


def _as_pixels(images_NCHW: Tensor, normalization: Normalization) -> Tensor | None:
    """uint8 pixels if these are real images, exactly; None if they are anything else."""
    pixels = (normalization.invert(images_NCHW.cpu()) * 255).round_()
    if not len(pixels) or pixels.min() < 0 or pixels.max() > 255:
        return None
    coded = pixels.to(torch.uint8)
    return coded if torch.allclose(normalization.apply(coded), images_NCHW.cpu(), atol=1e-5) else None


def chosen(data: LabeledSet, normalization: Normalization, method: str, **arrays: Tensor) -> Summary:
    """Real images that were chosen, as a summary; `arrays` are kept beside them, float32 [N, ...]."""
    return Summary(
        arrays={"images": normalization.apply(data.images_NCHW).cpu(), **arrays},
        targets=data.labels_N.cpu(),
        num_source_C=data.counts_C.cpu(),
        shape_CHW=data.shape_CHW,
        normalization=normalization,
        decoder=Pixels(),
        method=method,
        origin=data.origin,
    )
