"""Networks between their first and their trained weights (DANCE, IJCAI 2024; NCFM, CVPR 2025).

Some networks are trained on the set's real images beforehand. A step draws one of them and a number l in [0, 1),
uniformly, and sees the weights l * first + (1 - l) * trained. The trained network itself is at hand for a
calibration (`Characteristic.calibration`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from fedcl.core.rules import number, whole
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.training.loop import train
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class Interpolated(Networks):
    """Trains its networks before the first step, with the distiller's augmentation."""

    provides = frozenset({"network", "embedding", "trained"})
    mixes = True

    size: Annotated[int, whole(1, example=20)] = 20  # networks
    epochs: Annotated[int, whole(0, example=60)] = 60  # passes of each over the real images
    lr: Annotated[float, number(above=0, example=0.01)] = 0.01  # of SGD, x 0.2 after 2/3 and 5/6 of the training
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: Annotated[int, whole(1, example=256)] = 256

    def estimate_only(self) -> Networks:
        return replace(self, size=1, epochs=0)

    def pretraining(self) -> Training:
        return Training(epochs=self.size * self.epochs, batch_size=self.batch_size)

    def open(self, source: NetworkSource) -> NetworkStream:
        source.only_set("interpolated")
        return _InterpolatedNetworks(source, self)


class _InterpolatedNetworks(NetworkStream):
    """Trains at the first `at`, so that a restored state need not."""

    def __init__(self, source: NetworkSource, recipe: Interpolated) -> None:
        self.source, self.recipe = source, recipe
        self.network = self._new()
        self.trained = nn.ModuleList()

    def _new(self) -> nn.Module:
        return self.source.new_model(self.source.seed).requires_grad_(False)

    def _first(self, network: nn.Module, number: int) -> nn.Module:
        reset_parameters(network, torch_rng(self.source.seed, "network", round=number))
        return network

    def _train(self) -> None:
        source, progress = self.source, self.source.progress
        training = self.recipe.training(milestones=(2 / 3, 5 / 6), decay=0.2, augmentation=source.augmentation)
        data, spec = source.only_set("interpolated")
        data = data.to(next(self.network.parameters()).device)
        more = {"spec": spec, "flip": source.flip, "progress": progress}
        progress.begin("pretraining", self.recipe.size)
        for index in range(self.recipe.size):
            network = self._first(self._new(), index).requires_grad_(True)
            seed = derive(source.seed, "pretraining", round=index)
            train(network, data.inputs, data.labels_N, training, seed=seed, **more)
            self.trained.append(network.requires_grad_(False))
            progress.advance("pretraining")
        progress.end("pretraining")

    @torch.no_grad()
    def at(self, step: int) -> Matched:
        if not len(self.trained):
            self._train()
        generator = torch_rng(self.source.seed, "between", round=step)
        number = int(torch.randint(self.recipe.size, (), generator=generator))
        share = float(torch.rand((), generator=generator))
        trained = self.trained[number]
        between, goals = self._first(self.network, number).state_dict(), trained.state_dict()
        for name, value in between.items():
            value.copy_(share * value + (1 - share) * goals[name] if value.is_floating_point() else goals[name])
        return Matched(network=self.network, trained=trained)

    def state(self) -> dict[str, Tensor]:
        return dict(self.trained.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.trained = nn.ModuleList(self._new() for _ in range(self.recipe.size if state else 0))
        self.trained.load_state_dict(dict(state))
