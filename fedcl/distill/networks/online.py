"""Networks that learn from the synthetic images while these change (DC, ICLR 2021, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.loop import train
from fedcl.training.recipe import Training

LOOPS = {
    1: (1, 1),
    10: (10, 50),
    20: (20, 25),
    30: (30, 20),
    40: (40, 15),
    50: (50, 10),
}  # ipc -> (outer, inner)


@dataclass(frozen=True, kw_only=True)
class Online(Networks):
    """A new network every `outer` steps; between two steps it is trained on the synthetic images."""

    mixes = True

    outer: int | None = None  # steps with one network; None = as the public code has it for the ipc
    inner: int | None = None  # epochs on the synthetic images after each step but the last; None likewise
    lr: float = 0.01  # of the network, plain SGD
    batch_size: int = 256

    def __post_init__(self) -> None:
        if (self.outer is not None and self.outer < 1) or (self.inner is not None and self.inner < 0):
            raise ConfigError("networks.outer must be at least 1, networks.inner at least 0; null takes them from ipc")

    def open(self, source: NetworkSource) -> NetworkStream:
        outer, inner = LOOPS[max(ipc for ipc in LOOPS if ipc <= max(1, source.ipc))]
        training = Training(
            epochs=inner if self.inner is None else self.inner,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            augmentation=source.augmentation,
        )
        return _OnlineNetworks(source, outer if self.outer is None else self.outer, training)


class _OnlineNetworks(NetworkStream):
    def __init__(self, source: NetworkSource, outer: int, training: Training) -> None:
        self.source, self.outer, self.training = source, outer, training
        self.network = source.new_model(source.seed).requires_grad_(False)

    def at(self, step: int) -> Matched:
        if step % self.outer == 0:
            reset_parameters(self.network, torch_rng(self.source.seed, "network", round=step // self.outer))
        return Matched(network=self.network)

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        if (step + 1) % self.outer == 0:
            return
        train(
            self.network.requires_grad_(True),
            synthetic.inputs,
            synthetic.targets,
            self.training,
            seed=derive(self.source.seed, "training on synthetic images", round=step),
            flip=self.source.flip,
        ).requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(state))
