"""What a pool is: the networks that are matched, as a stream, one a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from fedcl.augmentation import Augmentation, NoAugmentation
from fedcl.distill.objectives.base import Side
from fedcl.errors import DistillError
from fedcl.progress import SILENT, Progress
from fedcl.training import Training
from fedcl.types import LabeledSet, Normalization

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PoolSource:
    """What a pool may draw on."""

    new_model: Callable[..., nn.Module]  # seed, changes to the recipe -> network on the device
    seed: int  # names the networks; the same for all sets of a batch
    ipc: int = 1  # of the distiller: some published loops depend on it
    weights: Weights | None = None  # the caller's network, where there is one (the global model)
    augmentation: Augmentation = field(default_factory=NoAugmentation)  # of the distiller, for pools that train
    flip: bool = True  # whether it may mirror
    sets: Sequence[LabeledSet] = ()  # whose data is distilled, for pools that train on all of it beforehand
    normalization: Normalization | None = None  # of those images
    progress: Progress = SILENT

    def only_set(self, pool: str) -> tuple[LabeledSet, Normalization]:
        """The one set and its units, for a pool that trains on all of it.

        Raises:
            DistillError: there are several sets, or none.
        """
        if len(self.sets) != 1 or self.normalization is None:
            raise DistillError(
                f"pool={pool} trains on one data set, and there are several or none; type distiller.batching=apart"
            )
        return self.sets[0], self.normalization


class Networks(ABC):
    """The stream of one distillation."""

    @abstractmethod
    def at(self, step: int) -> nn.Module:
        """The network of that step, valid until the next call. Steps come in order, each once."""

    def after(self, step: int, synthetic: Side, real: Side) -> None:  # noqa: B027 (many do not train)
        """The images of that step were updated; a pool that trains its networks does so now.

        `synthetic` holds the updated images, decoded, not augmented and detached; `real` the step's real
        batch, augmented. Called after the last of the `reuse` updates of each network.
        """

    def state(self) -> dict[str, Tensor]:
        """What has to be saved to go on exactly from here, besides what `at(step)` derives from the step."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (many have no state)
        """Go on from what `state` gave."""


class Pool(ABC):
    """A frozen dataclass of the pool's numbers."""

    mixes: ClassVar[bool] = False  # whether it trains networks on batches mixed as the augmentation says (CutMix)

    @property
    @abstractmethod
    def shared(self) -> bool:
        """Whether the networks depend on nothing that differs between sets: a batch can share them."""

    def brief(self) -> Pool:
        """A pool whose steps cost the same, without what this one trains beforehand: for an estimate of time."""
        return self

    def beforehand(self) -> Training | None:
        """All that is trained on the real images before the first step, as one training; None for most."""
        return None

    @abstractmethod
    def open(self, source: PoolSource) -> Networks:
        """Start the stream."""
