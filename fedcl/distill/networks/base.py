"""Networks to match: a recipe, and the stream that it opens, one network a step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from fedcl.core.errors import DistillError
from fedcl.core.inputs import InputSpec
from fedcl.core.progress import SILENT, Progress
from fedcl.core.rules import Checked
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.models.base import Network
from fedcl.training.augmentation import Augmentation, NoAugmentation
from fedcl.training.recipe import Training

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """Everything a stream of networks may draw on."""

    new_model: Callable[..., Network]  # seed, changes to the recipe -> network on the device
    seed: int  # names the networks; the same for all sets of a batch
    ipc: int = 1  # of the distiller: some published loops depend on it
    weights: Weights | None = None  # the caller's network, where there is one (the global model)
    augmentation: Augmentation = field(default_factory=NoAugmentation)  # of the distiller, for streams that train
    flip: bool = True  # whether it may mirror
    sets: Sequence[LabeledSet] = ()  # whose data is distilled, for network streams that train on all of it beforehand
    inputs: InputSpec | None = None  # of those images
    progress: Progress = SILENT

    def only_set(self, networks: str) -> tuple[LabeledSet, InputSpec]:
        """The one set and its units, for a stream that trains on all of it; DistillError for several sets, or none."""
        if len(self.sets) != 1 or self.inputs is None:
            raise DistillError(
                f"networks={networks} trains on one data set, and there are several or none; "
                "type distiller.batching=one_at_a_time"
            )
        return self.sets[0], self.inputs


class NetworkStream(ABC):
    """The stream of one distillation."""

    @abstractmethod
    def at(self, step: int) -> Matched:
        """The network of that step and what goes with it, valid until the next call.

        Steps come in order; the first may be asked for twice.
        """

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:  # noqa: B027 (many do not train)
        """The images of that step were updated; a stream that trains its networks does so now.

        `synthetic` holds the updated images, decoded, not augmented and detached; `real` the step's real
        batch, augmented. Called after the last of the `reuse` updates of each network.
        """

    def state(self) -> dict[str, Tensor]:
        """Tensors to save, by name, to go on exactly from here: all that `at(step)` does not derive from the step."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (many have no state)
        """Go on from what `state` gave."""


class Stateless(NetworkStream):
    """Networks that follow from the number of the step alone."""

    def __init__(self, of_step: Callable[[int], Matched]) -> None:
        self.of_step = of_step

    def at(self, step: int) -> Matched:
        return self.of_step(step)


class Networks(Checked, ABC):
    """Recipe of a stream of networks: a frozen dataclass of its numbers."""

    config_key = "networks"

    provides: frozenset[str] = frozenset({"network", "embedding"})  # see `fedcl.distill.fit.NEEDS`
    shared: bool = False  # the networks depend on nothing that differs between sets: a batch can share them
    mixes: bool = False  # it trains networks on batches mixed as the augmentation says (CutMix)
    needs_weights: bool = False  # of the caller: `NetworkSource.weights`
    needs_real: bool = False  # `after` reads the step's real images

    @property
    def changes(self) -> Mapping[str, object]:
        """Changes to the model's recipe for these networks (`Model.varied`); nothing for most."""
        return {}

    def estimate_only(self) -> "Networks":
        """Networks whose steps cost the same, without what these train beforehand: for an estimate of time."""
        return self

    def pretraining(self) -> Training | None:
        """All that is trained on the real images before the first step, as one training; None for most."""
        return None

    def training(self, **more: Any) -> Training:
        """Training with the numbers of this recipe that have the same name there (lr, batch_size, ...), and `more`."""
        shared = {f.name for f in fields(Training)} & vars(self).keys()
        return Training(**{name: getattr(self, name) for name in shared} | more)

    @abstractmethod
    def open(self, source: NetworkSource) -> NetworkStream:
        """Start the stream."""
