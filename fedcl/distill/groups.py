"""Many data sets as one batch: classes and sets are segments of the same tensors.

Random streams are named by set (its origin's client and step) where they choose real examples, and shared by all sets
where they choose networks and augmentation: what a set gets does not depend on which others are in the batch.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedcl.core.inputs import InputSpec
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import NOTHING, MatchBatch, Matched
from fedcl.distill.samplers.base import LargeClasses, Sampler, Uniform

UNIFORM = Uniform()


class Segments:
    """The non-empty classes of a batch of sets, and their real images in that order. Legend: S segments."""

    def __init__(self, sets: Sequence[LabeledSet], device: torch.device) -> None:
        ordered = [data.by_class() for data in sets]
        counts = torch.stack([data.counts_C.cpu() for data in ordered])
        self.sets = tuple(sets)
        self.inputs = torch.cat([data.inputs for data in ordered]).to(device)  # uint8, all sets, each in class order
        self.set_S, self.label_S = torch.nonzero(counts, as_tuple=True)  # int64 on the CPU: position of the set; class
        self.count_S = counts[self.set_S, self.label_S]  # real images
        self.offset_S = torch.cumsum(self.count_S, 0) - self.count_S  # first real image

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
        taken_S = segments.count_S.clamp(max=size)
        self.sizes = tuple(taken_S.tolist())
        self.segment_N = torch.arange(len(segments)).repeat_interleave(taken_S)  # images of a segment lie together
        self.label_N = segments.label_S[self.segment_N]
        # the first rows of each class: all of a small one, and the places of those that are drawn of a large one
        before_S = torch.cumsum(taken_S, 0) - taken_S
        self.first_rows = torch.arange(len(self.segment_N)) + (segments.offset_S - before_S)[self.segment_N]
        # the large classes, set by set: a sampler never sees two sets at once, nor draws from a stream of both
        self.large: dict[int, tuple[LargeClasses, Tensor, Tensor]] = {}
        for position, data in enumerate(segments.sets):
            large = torch.nonzero((segments.set_S == position) & (segments.count_S > size))[:, 0]
            if len(large):
                images = tuple(segments.images_of(int(segment)) for segment in large)
                classes = LargeClasses(images=images, inputs=spec, origin=data.origin, key=key)
                places = torch.nonzero(torch.isin(self.segment_N, large))[:, 0]
                self.large[position] = classes, places, segments.offset_S[large, None]
        self.memory: dict[int, dict[str, Tensor]] = {position: {} for position in self.large}
        device = segments.inputs.device
        self.on_device = (self.label_N.to(device), self.segment_N.to(device))

    @functools.cached_property
    def whole(self) -> Tensor | None:
        """All real images, where no class is large: the same at every step."""
        return None if self.large else self._images(self.first_rows)

    def _images(self, rows: Tensor) -> Tensor:
        return self.spec.apply(self.segments.inputs[rows.to(self.segments.inputs.device)])

    def images_of(self, segment: int) -> Tensor:
        """float32 [n, C, H, W]: all real images of one segment, for `Objective.prepare`."""
        return self.spec.apply(self.segments.images_of(segment))

    def rows(self, index: int, matched: Matched = NOTHING) -> Tensor:
        """int64: rows of `segments.inputs` for one real batch, in the order of `segment_N`, on the CPU."""
        rows = self.first_rows.clone()
        for position, (classes, places, offset) in self.large.items():
            drawn = self.sampler.rows(classes, self.size, index, matched, self.memory[position])
            rows[places] = (drawn + offset).flatten()
        return rows

    def at(self, index: int, matched: Matched = NOTHING) -> MatchBatch:
        """The real side of one step, not yet augmented; `label_N` names the class of each row (CPU)."""
        inputs = self._images(self.rows(index, matched)) if self.whole is None else self.whole
        return self._batch(inputs, self.sizes)

    def nothing(self) -> MatchBatch:
        """A real side without images, for a step that reads none."""
        return self._batch(self._images(self.first_rows[:0]), ())

    def _batch(self, inputs: Tensor, sizes: tuple[int, ...]) -> MatchBatch:
        targets, segment_N = (tensor[: len(inputs)] for tensor in self.on_device)
        count = len(self.segments)
        return MatchBatch(inputs=inputs, targets=targets, segment_N=segment_N, num_segments=count, sizes=sizes)

    def state(self) -> dict[str, Tensor]:
        """Tensors that the sampler keeps, by "<set>.<name>"."""
        return {f"{position}.{name}": value for position, kept in self.memory.items() for name, value in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            position, _, own = name.partition(".")
            self.memory[int(position)][own] = value.clone()
