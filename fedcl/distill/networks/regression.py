"""FRePo's networks: networks of different ages, each trained on the synthetic images as they are being learned.

Zhou, Nezhadarya & Ba, NeurIPS 2022, section 3.2: a random network of the pool is matched, takes one Adam step of
regression on a synthetic batch, and begins anew when it has taken `lifetime` of them. First ages are staggered.
As in the public code, batch norm is in eval mode while a network is matched: real and synthetic features are
divided by the same running statistics, those of the synthetic images it was trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import number, whole
from fedcl.core.seeding import derive, torch_rng
from fedcl.distill.batch import MatchBatch, Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream
from fedcl.models.base import reset_parameters
from fedcl.models.norms import batch_norms
from fedcl.training.loop import train
from fedcl.training.moments import load_training, save_training, under


@dataclass(frozen=True, kw_only=True)
class OnlineRegression(Networks):
    size: Annotated[int, whole(1, example=10)] = 10  # networks
    lifetime: Annotated[int, whole(1, example=100)] = 100  # updates after which a network begins anew
    lr: Annotated[float, number(above=0, example=3e-4)] = 3e-4  # of Adam
    batch_size: Annotated[int, whole(1, example=512)] = 512  # synthetic images an update; fewer give all
    norm: str | None = None  # of these networks, where the model lets one choose; None: the model's own
    norm_first: bool | None = None  # likewise
    initialization: str | None = None  # likewise
    # weight of the last batch in running statistics of batch norm
    norm_momentum: Annotated[float, number(above=0, most=1, example=0.9)] = 0.9

    @property
    def changes(self) -> Mapping[str, object]:
        return {name: getattr(self, name) for name in ("norm", "norm_first", "initialization")}

    def open(self, source: NetworkSource) -> NetworkStream:
        return _OnlineNetworks(self, source)


class _OnlineNetworks(NetworkStream):
    def __init__(self, recipe: OnlineRegression, source: NetworkSource) -> None:
        self.recipe, self.source = recipe, source
        # one update of regression on a synthetic batch
        adam = {"optimizer": "adam", "weight_decay": 0.0, "schedule": "constant"}
        self.training = recipe.training(updates=1, loss="mse", **adam)
        seeds = [derive(source.seed, "pool", client=i) for i in range(recipe.size)]
        modules = [source.new_model(seed, **recipe.changes) for seed in seeds]
        for layer in (layer for module in modules for layer in batch_norms(module)):
            layer.momentum = recipe.norm_momentum
        self.networks = [(module, self.training.new_optimizer(module.parameters())) for module in modules]
        self.age_P = torch.arange(recipe.size) * recipe.lifetime // recipe.size
        self.births_P = torch.zeros(recipe.size, dtype=torch.int64)
        self.chosen = 0

    def at(self, step: int) -> Matched:
        generator = torch_rng(self.source.seed, "choice of network", round=step)
        self.chosen = int(torch.randint(self.recipe.size, (), generator=generator))
        return Matched(network=self.networks[self.chosen][0].requires_grad_(False).eval())

    def after(self, step: int, synthetic: MatchBatch, real: MatchBatch) -> None:
        i, (module, optimizer) = self.chosen, self.networks[self.chosen]
        images, targets = synthetic.inputs, synthetic.targets
        generator = torch_rng(self.source.seed, "pool batch", round=step)
        train(module.requires_grad_(True), images, targets, self.training, seed=generator, optimizer=optimizer)
        self.age_P[i] += 1
        if self.age_P[i] >= self.recipe.lifetime:
            self.age_P[i] = 0
            self.births_P[i] += 1
            reset_parameters(module, torch_rng(self.source.seed, "rebirth", client=i, round=int(self.births_P[i])))
            optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        pairs = enumerate(self.networks)
        trained = {f"{i}/{name}": value for i, pair in pairs for name, value in save_training(*pair).items()}
        return {"age": self.age_P, "births": self.births_P, **trained}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.age_P, self.births_P = state["age"].clone(), state["births"].clone()
        for i, pair in enumerate(self.networks):
            load_training(*pair, under(f"{i}/", state))
