"""Networks to match: a recipe, and the stream that it opens, one network a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from fedcl.core.errors import DistillError
from fedcl.core.progress import SILENT, Progress
from fedcl.core.types import LabeledSet, Normalization
from fedcl.distill.objectives.base import MatchBatch
from fedcl.training.augmentation import Augmentation, NoAugmentation
from fedcl.training.loop import Training

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """Everything a stream of networks may draw on."""

    new_model: Callable[..., nn.Module]  # seed, changes to the recipe -> network on the device
    seed: int  # names the networks; the same for all sets of a batch
    ipc: int = 1  # of the distiller: some published loops depend on it
    weights: Weights | None = None  # the caller's network, where there is one (the global model)
    augmentation: Augmentation = field(
        default_factory=NoAugmentation
    )  # of the distiller, for network streams that train
    flip: bool = True  # whether it may mirror
    sets: Sequence[LabeledSet] = ()  # whose data is distilled, for network streams that train on all of it beforehand
    normalization: Normalization | None = None  # of those images
    progress: Progress = SILENT

    def only_set(self, networks: str) -> tuple[LabeledSet, Normalization]:
        """The one set and its units, for a stream that trains on all of it.

        Raises:
            DistillError: there are several sets, or none.
        """
        if len(self.sets) != 1 or self.normalization is None:
            raise DistillError(
                f"networks={networks} trains on one data set, and there are several or none; "
                "type distiller.batching=one_at_a_time"
            )
        return self.sets[0], self.normalization


class NetworkStream(ABC):
    """The stream of one distillation."""

    @abstractmethod
    def at(self, step: int) -> nn.Module:
        """The network of that step, valid until the next call. Steps come in order, each once."""

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:  # noqa: B027 (many do not train)
        """The images of that step were updated; a stream that trains its networks does so now.

        `synthetic` holds the updated images, decoded, not augmented and detached; `real` the step's real
        batch, augmented. Called after the last of the `reuse` updates of each network.
        """

    def state(self) -> dict[str, Tensor]:
        """What has to be saved to go on exactly from here, besides what `at(step)` derives from the step."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (many have no state)
        """Go on from what `state` gave."""


class Networks(ABC):
    """Recipe of a stream of networks: a frozen dataclass of its numbers."""

    mixes: ClassVar[bool] = False  # whether it trains networks on batches mixed as the augmentation says (CutMix)

    @property
    @abstractmethod
    def shared(self) -> bool:
        """Whether the networks depend on nothing that differs between sets: a batch can share them."""

    def estimate_only(self) -> Networks:
        """A networks whose steps cost the same, without what this one trains beforehand: for an estimate of time."""
        return self

    def pretraining(self) -> Training | None:
        """All that is trained on the real images before the first step, as one training; None for most."""
        return None

    @abstractmethod
    def open(self, source: NetworkSource) -> NetworkStream:
        """Start the stream."""
