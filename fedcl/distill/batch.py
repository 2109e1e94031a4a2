"""Batches and steps of a comparison: what networks, samplers and objectives hand to each other.

Legend of axes: N images of one side, S segments (one class of one data set each), P parameters of a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedcl.training.augmentation import Augmentation, NoAugmentation


@dataclass(frozen=True, kw_only=True)
class MatchBatch:
    """Images of one side of the comparison, augmented, with the segments that they belong to.

    Segments of all sets of a batch are numbered through, and the images of a segment lie together, segments in order.
    """

    inputs: Tensor  # float32, normalised
    targets: Tensor  # int64 [N] or float32 [N, C]
    segment_N: Tensor  # int64 [N]
    num_segments: int
    sizes: tuple[int, ...] = ()  # images of each segment, as the loop knows them without asking the device

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each segment; asks the device where `sizes` is not given."""
        return self.sizes or tuple(torch.bincount(self.segment_N, minlength=self.num_segments).tolist())

    def mean(self, values_ND: Tensor) -> Tensor:
        """[segments, D]: mean of the rows of each segment."""
        total = values_ND.new_zeros(self.num_segments, values_ND.shape[1]).index_add(0, self.segment_N, values_ND)
        ones = values_ND.new_ones(len(values_ND))
        count = values_ND.new_zeros(self.num_segments).index_add(0, self.segment_N, ones)
        return total / count.clamp(min=1)[:, None]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Network of a step and what its stream provides beside it (`Networks.provides`); the rest is left empty."""

    network: nn.Module  # "network", with "embedding" also embed(images) and classifier
    trained: nn.Module = field(default_factory=nn.Identity)  # "trained": the same network, trained on the real images
    start_P: Tensor = field(default_factory=lambda: torch.zeros(0))  # "trajectory": float32, an expert's weights
    goal_P: Tensor = field(default_factory=lambda: torch.zeros(0))  # and those some epochs later


NOTHING = Matched(network=nn.Identity())  # where nobody asked for a network


@dataclass(frozen=True, kw_only=True)
class MatchStep(Matched):
    """Everything that both sides of a step share."""

    seed: int = 0  # names the objective's own random numbers of this step; one for both sides and all sets
    network_index: int = 0  # of the network and the real batch, from 0: the step, where each is used once
    scalars: Mapping[str, Tensor] = field(default_factory=dict)  # the objective's own learned numbers
    memory: dict[str, Tensor] = field(default_factory=dict)  # what the objective prepared; it may replace entries
    augmentation: Augmentation = field(default_factory=NoAugmentation)  # for an objective that `augments`
    flip: bool = True  # whether that may mirror
