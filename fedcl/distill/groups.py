"""Many data sets as one batch: classes and sets are segments of the same tensors.

Random streams are named by set (its origin's client and step) where they choose real examples, and shared
by all sets where they choose networks and augmentation. So what a set gets does not depend on which
other sets are in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.seeding import torch_rng
from fedcl.core.types import LabeledSet, Normalization
from fedcl.distill.objectives.base import MatchBatch


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The non-empty classes of a batch of sets, and their real images in that order."""

    sets: tuple[LabeledSet, ...]
    images_NCHW: Tensor  # uint8, all sets, each in class order, on the device
    label_S: Tensor  # int64 [segments], class of each segment, on the CPU
    set_S: Tensor  # int64 [segments], position of its set
    count_S: Tensor  # int64 [segments], real images
    offset_S: Tensor  # int64 [segments], first real image

    @classmethod
    def of(cls, sets: Sequence[LabeledSet], device: torch.device) -> Segments:
        ordered = [data.by_class() for data in sets]
        counts = torch.stack([data.counts_C.cpu() for data in ordered])
        set_S, label_S = torch.nonzero(counts, as_tuple=True)
        count_S = counts[set_S, label_S]
        return cls(
            sets=tuple(sets),
            images_NCHW=torch.cat([data.images_NCHW for data in ordered]).to(device),
            label_S=label_S,
            set_S=set_S,
            count_S=count_S,
            offset_S=torch.cumsum(count_S, 0) - count_S,
        )

    def __len__(self) -> int:
        return len(self.label_S)

    def images_of(self, segment: int) -> Tensor:
        """uint8 [n, C, H, W]: all real images of one segment, in the order of its set."""
        first = int(self.offset_S[segment])
        return self.images_NCHW[first : first + int(self.count_S[segment])]


class RealBatches:
    """The real images of each step: all of a class of at most `size`, else `size` uniform draws from it."""

    def __init__(self, segments: Segments, size: int, key: int, normalization: Normalization) -> None:
        self.segments, self.size, self.key, self.normalization = segments, size, key, normalization
        small = segments.count_S <= size
        first, count = segments.offset_S[small], segments.count_S[small]
        # rows of the small classes, the same at every step: first + 0, 1, ..., count - 1
        within = torch.arange(int(count.sum())) - (torch.cumsum(count, 0) - count).repeat_interleave(count)
        self.small_rows = first.repeat_interleave(count) + within
        self.large = [
            (data.origin, torch.nonzero((segments.set_S == position) & ~small)[:, 0])
            for position, data in enumerate(segments.sets)
        ]
        self.large = [(origin, large) for origin, large in self.large if len(large)]
        large_S = torch.cat([large for _, large in self.large]) if self.large else small.new_zeros(0).long()
        small_S = torch.nonzero(small)[:, 0]
        segment_N = torch.cat([small_S.repeat_interleave(count), large_S.repeat_interleave(size)])
        self.order = torch.argsort(segment_N, stable=True)  # the images of a segment lie together
        self.segment_N = segment_N[self.order]
        self.sizes = tuple(segments.count_S.clamp(max=size).tolist())
        self.label_N = segments.label_S[self.segment_N]
        device = segments.images_NCHW.device
        self.on_device = (self.label_N.to(device), self.segment_N.to(device))
        self.whole = None if self.large else self._images(self.small_rows[self.order])

    def _images(self, rows: Tensor) -> Tensor:
        return self.normalization.apply(self.segments.images_NCHW[rows.to(self.segments.images_NCHW.device)])

    def rows(self, step: int) -> Tensor:
        """int64: rows of `segments.images_NCHW` for one step, in the order of `segment_N`, on the CPU."""
        rows = [self.small_rows]
        for origin, large in self.large:
            generator = torch_rng(self.key, "real batches", client=origin.client, step=origin.step, round=step)
            drawn = torch.rand(len(large), self.size, generator=generator, dtype=torch.float64)
            drawn = (drawn * self.segments.count_S[large, None]).long() + self.segments.offset_S[large, None]
            rows.append(drawn.flatten())
        return torch.cat(rows)[self.order]

    def at(self, step: int, seed: int = 0) -> MatchBatch:
        """The real side of one step, not yet augmented; `label_N` names the class of each row (CPU)."""
        targets, segment_N = self.on_device
        return MatchBatch(
            images_NCHW=self._images(self.rows(step)) if self.whole is None else self.whole,
            targets=targets,
            segment_N=segment_N,
            num_segments=len(self.segments),
            sizes=self.sizes,
            seed=seed,
        )
