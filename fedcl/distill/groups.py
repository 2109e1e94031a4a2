"""Many data sets as one batch: classes and sets are segments of the same tensors.

Random streams are named by set (its origin's client and step) where they choose real examples, and shared
by all sets where they choose networks and augmentation. So what a set gets does not depend on which
other sets are in the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.inputs import InputSpec
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import NOTHING, MatchBatch, Matched
from fedcl.distill.samplers.base import LargeClasses, Sampler, Uniform

UNIFORM = Uniform()


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The non-empty classes of a batch of sets, and their real images in that order."""

    sets: tuple[LabeledSet, ...]
    inputs: Tensor  # uint8, all sets, each in class order, on the device
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
            inputs=torch.cat([data.inputs for data in ordered]).to(device),
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
        return self.inputs[first : first + int(self.count_S[segment])]


class RealBatches:
    """The real images of each step: all of a class of at most `size`, else `size` rows that the sampler picks."""

    def __init__(self, segments: Segments, size: int, key: int, spec: InputSpec, sampler: Sampler = UNIFORM) -> None:
        self.segments, self.size, self.spec, self.sampler = segments, size, spec, sampler
        small = segments.count_S <= size
        first, count = segments.offset_S[small], segments.count_S[small]
        # rows of the small classes, the same at every step: first + 0, 1, ..., count - 1
        within = torch.arange(int(count.sum())) - (torch.cumsum(count, 0) - count).repeat_interleave(count)
        self.small_rows = first.repeat_interleave(count) + within
        # the large classes, set by set: a sampler never sees two sets at once, nor draws from a stream of both
        found = [torch.nonzero((segments.set_S == position) & ~small)[:, 0] for position in range(len(segments.sets))]
        self.large = {position: large for position, large in enumerate(found) if len(large)}
        self.classes = {
            position: LargeClasses(
                images=tuple(segments.images_of(int(segment)) for segment in large),
                inputs=spec,
                origin=segments.sets[position].origin,
                key=key,
            )
            for position, large in self.large.items()
        }
        self.memory: dict[int, dict[str, Tensor]] = {position: {} for position in self.large}
        large_S = torch.cat([small.new_zeros(0).long(), *self.large.values()])
        small_S = torch.nonzero(small)[:, 0]
        # `rows` joins the small classes' rows and each set's drawn ones; `order` brings them into segment order
        segment_N = torch.cat([small_S.repeat_interleave(count), large_S.repeat_interleave(size)])
        self.order = torch.argsort(segment_N, stable=True)  # the images of a segment lie together
        self.segment_N = segment_N[self.order]
        self.sizes = tuple(segments.count_S.clamp(max=size).tolist())
        self.label_N = segments.label_S[self.segment_N]
        device = segments.inputs.device
        self.on_device = (self.label_N.to(device), self.segment_N.to(device))

    @functools.cached_property
    def whole(self) -> Tensor | None:
        """All real images, where no class is large: the same at every step."""
        return None if self.large else self._images(self.small_rows[self.order])

    def _images(self, rows: Tensor) -> Tensor:
        return self.spec.apply(self.segments.inputs[rows.to(self.segments.inputs.device)])

    def images_of(self, segment: int) -> Tensor:
        """float32 [n, C, H, W]: all real images of one segment, for `Objective.prepare`."""
        return self.spec.apply(self.segments.images_of(segment))

    def rows(self, index: int, matched: Matched = NOTHING) -> Tensor:
        """int64: rows of `segments.inputs` for one real batch, in the order of `segment_N`, on the CPU."""
        rows = [self.small_rows]
        for position, large in self.large.items():
            drawn = self.sampler.rows(self.classes[position], self.size, index, matched, self.memory[position])
            rows.append((drawn + self.segments.offset_S[large, None]).flatten())
        return torch.cat(rows)[self.order]

    def at(self, index: int, matched: Matched = NOTHING) -> MatchBatch:
        """The real side of one step, not yet augmented; `label_N` names the class of each row (CPU)."""
        targets, segment_N = self.on_device
        return MatchBatch(
            inputs=self._images(self.rows(index, matched)) if self.whole is None else self.whole,
            targets=targets,
            segment_N=segment_N,
            num_segments=len(self.segments),
            sizes=self.sizes,
        )

    def nothing(self) -> MatchBatch:
        """A real side without images, for a step that reads none."""
        targets, segment_N = (tensor[:0] for tensor in self.on_device)
        images = self.spec.apply(self.segments.inputs[:0])
        return MatchBatch(inputs=images, targets=targets, segment_N=segment_N, num_segments=len(self.segments))

    def state(self) -> dict[str, Tensor]:
        """Tensors that the sampler keeps, by "<set>.<name>"."""
        return {f"{position}.{name}": value for position, kept in self.memory.items() for name, value in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            position, _, own = name.partition(".")
            self.memory[int(position)][own] = value.clone()
