"""fedcl.testing: every strategy, objective, scenario and data set that has a YAML keeps its contract, and the checks
see who does not. A new YAML is under contract the moment it exists."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcl.cli.build import compose_job
from fedcl.core.describe import options
from fedcl.data.digits import Digits
from fedcl.distill.objectives.base import NoObjective
from fedcl.distill.objectives.distribution import Distribution
from fedcl.federated.contract import client_work
from fedcl.scenario.base import Labels
from fedcl.testing import ToyData, ToyGrid, check_dataset, check_objective, check_scenario, check_strategy
from fedcl.training.loop import Training
from scenarios.iid import IID
from strategies.continual.finetune import Finetune
from strategies.continual.replay import Replay
from strategies.federated.one_shot import OneShot

GOLDEN = runpy.run_path(str(Path(__file__).resolve().parent.parent / "scripts" / "golden.py"))
STRATEGIES = [f"{verb}/{name}" for verb in ("federated", "continual") for name in GOLDEN["options"](f"strategy/{verb}")]
PRESETS = [name for name, values in options("distiller").items() if values.get("steps") != 0]
TRAINING = Training(updates=3, batch_size=8)

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_its_contract(name):
    verb, typed = GOLDEN["cases"]()[name]
    job = compose_job(verb, typed, "nowhere")
    check_strategy(job.strategy, distiller=job.distiller, num_clients=8)


@pytest.mark.parametrize("name", options("compress"))
def test_every_compression_keeps_the_contract_of_what_it_compresses(name):
    verb, typed = GOLDEN["cases"]()["federated/fedavg"]
    job = compose_job(verb, [*typed, f"compress={name}"], "nowhere")
    check_strategy(job.strategy, compress=job.compress)


@pytest.mark.parametrize("name", PRESETS)
def test_every_objective_keeps_its_contract(name, tmp_path, monkeypatch):
    """As the preset has it that names it: with its networks, labels and parameterization."""
    monkeypatch.chdir(tmp_path)  # experts lie below the current folder
    verb, typed = GOLDEN["cases"]()[f"distill/{name}"]
    typed = ["networks.folder=null" if text.startswith("networks.folder=") else text for text in typed]
    distiller = compose_job(verb, typed, "nowhere").distiller
    if not distiller.selects:
        check_objective(distiller.objective, distiller=distiller)


@pytest.mark.parametrize("name", sorted({*options("scenario")} - {"from_file"}))
def test_every_scenario_keeps_its_contract(name):
    labels = Labels(train_N=np.arange(1000) // 100, test_N=np.arange(100) // 10, num_classes=10)
    check_scenario(compose_job("federated", [f"scenario={name}"], "nowhere").recipe, labels)


@pytest.mark.parametrize("source", [Digits(), ToyData()])
def test_data_sets_keep_their_contract(source):
    check_dataset(source)


def test_toy_grid_keeps_its_contract():
    scenario = check_scenario(ToyGrid(num_clients=3))
    assert [len(share) for share in scenario.shares[0]][-1] == 0, "a client without examples"


# Who breaks a law is told which. Each of these has one mistake that somebody made or could make.


@dataclass(frozen=True, kw_only=True)
class Drawing(Finetune):
    """Draws from the global generator."""

    def learn(self, state, step, ctx):
        torch.rand(1)
        return super().learn(state, step, ctx)


@dataclass(frozen=True, kw_only=True)
class Noisy(Finetune):
    """Depends on the global generator and puts it back."""

    def learn(self, state, step, ctx):
        kept = torch.get_rng_state()
        noise = torch.rand(())
        torch.set_rng_state(kept)
        after = super().learn(state, step, ctx)
        return replace(after, weights={name: value + noise for name, value in after.weights.items()})


@dataclass(frozen=True, kw_only=True)
class Hidden(Replay):
    """Remembers beside its state."""

    def learn(self, state, step, ctx):
        object.__setattr__(self, "past", getattr(self, "past", 0) + 1)
        after = super().learn(state, step, ctx)
        return replace(after, weights={name: value + self.past for name, value in after.weights.items()})


@dataclass(frozen=True, kw_only=True)
class Crowded(OneShot):
    """Gives another summary in company."""

    @client_work(batch=True, sends=["summaries"])
    def distill(self, ask, sets, mine, contexts):
        return super().distill(ask, sets, mine, [replace(ctx, seed=len(sets)) for ctx in contexts])


@dataclass(frozen=True, kw_only=True)
class Hungry(OneShot):
    """Cannot work without examples."""

    @client_work(batch=True, sends=["summaries"])
    def distill(self, ask, sets, mine, contexts):
        [data.inputs[0] for data in sets]
        return super().distill(ask, sets, mine, contexts)


@dataclass(frozen=True, kw_only=True)
class Blind(Finetune):
    """Gives scores for one class too few."""

    def model(self, state, ctx):
        return torch.nn.Sequential(super().model(state, ctx), torch.nn.AdaptiveAvgPool1d(3))


class Thawed(Finetune):
    """Is no dataclass of its own, which is fine; but holds what cannot be sent."""

    def __reduce__(self):
        raise TypeError("cannot pickle it")


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Drawing(training=TRAINING), "draws from the global random state"),
        (Noisy(training=TRAINING), "Noisy: two runs of one seed differ"),
        (Hidden(training=TRAINING), "Hidden: a run that was killed and went on ends elsewhere"),
        (Crowded(training=TRAINING), "Crowded: clients in a batch give something else than one at a time"),
        (Hungry(training=TRAINING), r"Hungry fails at clients: (.|\n)*in distill(.|\n)*IndexError"),
        (Blind(training=TRAINING), r"Blind.model gives \[2, 3\], expected \[N, num_classes\]"),
        (Thawed(training=TRAINING), "Thawed cannot be sent to a worker"),
    ],
)
def test_a_strategy_that_breaks_a_law_is_told_which(strategy, said):
    with pytest.raises(AssertionError, match=said):
        check_strategy(strategy)


@dataclass(frozen=True, kw_only=True)
class Flat(Distribution):
    """Has a loss that the images do not change."""

    def loss(self, synthetic, target, network):
        return super().loss(synthetic, target, network) * 0


@dataclass(frozen=True, kw_only=True)
class Shaken(Distribution):
    """Depends on the global generator."""

    def loss(self, synthetic, target, network):
        return super().loss(synthetic, target, network) * torch.rand(())


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (Flat(), "the images do not move"),
        (NoObjective(), "the images do not move"),
        (Shaken(), "draws from the global random state"),
    ],
)
def test_an_objective_that_breaks_a_law_is_told_which(objective, said):
    with pytest.raises(AssertionError, match=said):
        check_objective(objective)


@dataclass(frozen=True, kw_only=True)
class Shuffled(IID):
    def split(self, labels_N, num_classes, rng):
        return super().split(labels_N, num_classes, np.random.default_rng())


@dataclass(frozen=True, kw_only=True)
class Beyond(IID):
    def split(self, labels_N, num_classes, rng):
        return [part + 1 for part in super().split(labels_N, num_classes, rng)]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Shuffled(num_clients=2), "two grids of one seed differ"),
        (Beyond(num_clients=2), r"indices of training examples must be int64 in \[0, 200\)"),
    ],
)
def test_a_scenario_that_breaks_a_law_is_told_which(recipe, said):
    with pytest.raises(AssertionError, match=said):
        check_scenario(recipe)


@dataclass(frozen=True, kw_only=True)
class Flickering(ToyData):
    def load(self):
        data = super().load()
        brighter = data.train.inputs + torch.randint(2, data.train.inputs.shape).to(torch.uint8)
        return replace(data, train=replace(data.train, inputs=brighter))


def test_a_data_set_that_changes_is_told_so():
    with pytest.raises(AssertionError, match="draws from the global random state"):
        check_dataset(Flickering())
