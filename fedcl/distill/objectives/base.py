"""What an objective is: the real side of a comparison, and the loss of the synthetic side against it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedcl.core.errors import DistillError
from fedcl.training.augmentation import Augmentation, NoAugmentation


@dataclass(frozen=True, kw_only=True)
class MatchBatch:
    """Images of one side of the comparison, augmented, with the segments that they belong to.

    A segment is one class of one data set; segments of all sets of a batch are numbered through, and the
    images of a segment lie together, segments in order.
    """

    images_NCHW: Tensor  # float32, normalised
    targets: Tensor  # int64 [N] or float32 [N, C]
    segment_N: Tensor  # int64 [N]
    num_segments: int
    sizes: tuple[int, ...] = ()  # images of each segment, as the loop knows them without asking the device
    seed: int = 0  # names the objective's own random numbers of this step; one for both sides and all sets
    network_index: int = 0  # number of the real batch, from 0: the step, where each batch is used once
    scalars: Mapping[str, Tensor] = field(default_factory=dict)  # the objective's own learned numbers (synthetic)
    augmentation: Augmentation = field(default_factory=NoAugmentation)  # for an objective that `augments`
    flip: bool = True  # whether that may mirror

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


class Objective(ABC):
    """A frozen dataclass of the objective's numbers. Losses are sums over segments."""

    @property
    @abstractmethod
    def batched(self) -> bool:
        """Whether several data sets may be one batch: the loss is a sum of terms of single segments."""

    def learned_scalars(self) -> dict[str, Tensor]:
        """Starting values of numbers that are learned beside the images and travel with them (a step size).

        They become arrays of the summary, under these names, which no parameterization uses.
        """
        return {}

    @property
    def augments(self) -> bool:
        """Whether it augments by itself (a draw for every inner step): then the loop does not."""
        return False

    def check(self, network: nn.Module) -> None:  # noqa: B027 (most can use any network)
        """Raise DistillError if this objective cannot use such a network; asked before the first step."""

    @abstractmethod
    def target(self, real: MatchBatch, network: nn.Module) -> Any:
        """The real side's statistics under `network`; no gradient flows through them."""

    @abstractmethod
    def loss(self, synthetic: MatchBatch, target: Any, network: nn.Module) -> Tensor:
        """Scalar, differentiable in `synthetic.images_NCHW`; 0 where both sides are equal, if that is so."""


@dataclass(frozen=True, kw_only=True)
class NoObjective(Objective):
    """No objective: the summary is what the initializer chose."""

    @property
    def batched(self) -> bool:
        return True

    def target(self, real: MatchBatch, network: nn.Module) -> Any:
        return None

    def loss(self, synthetic: MatchBatch, target: Any, network: nn.Module) -> Tensor:
        return synthetic.images_NCHW.sum() * 0


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Layers that, in train mode, normalise an image by those that share its pass."""
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


def mixes_images(network: nn.Module) -> bool:
    """Whether what `network` makes of an image depends on the others of its pass."""
    return any(layer.training for layer in batch_norms(network))


def features(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    """[N, D]: what `network` gives to its classifier, all images in one pass.

    Raises:
        DistillError: the network has no features, or batch norm has one image to normalise by.
    """
    if not hasattr(network, "embed"):
        raise DistillError(
            "this objective compares features, and the matched network has no embed(images); type networks=fresh, "
            "or choose another model"
        )
    if len(images_NCHW) == 1 and mixes_images(network):
        raise DistillError(
            "batch norm cannot normalise a single image; type a larger distiller.ipc, or choose a model without "
            "batch norm (model.norm=instance)"
        )
    return cast(Any, network).embed(images_NCHW)


def features_of(side: MatchBatch, network: nn.Module, chunk: int) -> Tensor:
    """[N, D], without gradients: `chunk` images a pass, which bounds memory and is fastest on the CPU.

    Where the network mixes the images of a pass, all share one, as the synthetic side does: statistics of a part,
    which in class order is one class, would be another network's.
    """
    size = max(1, len(side.images_NCHW)) if mixes_images(network) else chunk
    with torch.no_grad():
        return torch.cat([features(network, part) for part in side.images_NCHW.split(size)])
