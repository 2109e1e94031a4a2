"""Networks that learn from the synthetic images while these change (DC, ICLR 2021, algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from fedcl.core.rules import whole
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.loop import train

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}  # ipc -> (outer, inner)


@dataclass(frozen=True, kw_only=True)
class Online(Networks):
    """A new network every `outer` steps; between two steps it is trained on the synthetic images."""

    mixes = True

    # steps with one network; None = as the public code has it for the ipc
    outer: Annotated[int | None, whole(1, example=10)] = None
    # epochs on the synthetic images after each step but the last; None likewise
    inner: Annotated[int | None, whole(0, example=50)] = None
    lr: float = 0.01  # of the network, plain SGD
    batch_size: int = 256

    def open(self, source: NetworkSource) -> NetworkStream:
        return _OnlineNetworks(source, self)


class _OnlineNetworks(NetworkStream):
    def __init__(self, source: NetworkSource, recipe: Online) -> None:
        outer, inner = LOOPS[max(ipc for ipc in LOOPS if ipc <= max(1, source.ipc))]
        self.source, self.outer = source, outer if recipe.outer is None else recipe.outer
        epochs = inner if recipe.inner is None else recipe.inner
        plain = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        self.training = recipe.training(epochs=epochs, augmentation=source.augmentation, **plain)
        self.network = source.new_model(source.seed).requires_grad_(False)

    def at(self, step: int) -> Matched:
        if step % self.outer == 0:
            reset_parameters(self.network, torch_rng(self.source.seed, "network", round=step // self.outer))
        return Matched(network=self.network)

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        if (step + 1) % self.outer:
            seed = derive(self.source.seed, "training on synthetic images", round=step)
            images, targets, flip = synthetic.inputs, synthetic.targets, self.source.flip
            train(self.network.requires_grad_(True), images, targets, self.training, seed=seed, flip=flip)
            self.network.requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(state))
