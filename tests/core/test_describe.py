"""One setting is one configuration, from words or from objects; what decides nothing is no part of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
import torch
from flwr.serverapp.strategy import FedAvg, FedProx

from fedcl.cli.build import compose_job
from fedcl.core.describe import defaults_of, describe, settings_of, short_name, target
from fedcl.core.paths import config_dir
from fedcl.core.record import read_record
from fedcl.data.digits import Digits
from fedcl.distill.distiller import Distiller
from fedcl.flower.bridge import FlowerStrategy
from fedcl.memory.budget import Budget
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.models.resnet import ResNet
from fedcl.protocol.evaluation import Evaluation
from fedcl.runs.checkpoint import differences
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.distill import DistillJob
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from scenarios.grid import Grid

NOWHERE = "nowhere"


@pytest.fixture(scope="module")
def composed():
    """verb and option of strategy -> the job of that command; of Flower's algorithms one stands for all."""
    found = {}
    for verb in ("federated", "continual"):
        for path in sorted((config_dir() / "strategy" / verb).glob("*.yaml")):
            if path.stem == "fedavg" or "fedcl.flower.bridge" not in path.read_text():
                found[verb, path.stem] = compose_job(verb, [f"strategy={path.stem}"], NOWHERE)
    return found


def strategy_from_objects(strategy):
    """As somebody writes it in Python who knows the class and nothing else."""
    return type(strategy)(algorithm=type(strategy.algorithm)()) if hasattr(strategy, "algorithm") else type(strategy)()


def words(job):
    """What a record keeps of it, as JSON has it, without names for people."""
    return json.loads(json.dumps({key: value for key, value in settings_of(job).items() if key != "choices"}))


def test_every_strategy_from_objects_is_the_one_of_the_command_line(composed):
    common = {"source": Digits(), "model": ConvNet(), "out": NOWHERE}
    for (verb, name), typed in composed.items():
        strategy = strategy_from_objects(typed.strategy)
        if verb == "federated":
            made = FederatedJob(**common, strategy=strategy, recipe=Dirichlet(num_clients=10, alpha=0.5))
        else:
            recipe = ClassIncremental(num_steps=5)
            made = ContinualJob(**common, strategy=strategy, recipe=recipe, budget=Budget(ipc=10))
        assert words(made) == words(typed), name
        assert settings_of(made)["choices"].items() <= settings_of(typed)["choices"].items(), name


def test_a_distillation_from_objects_is_the_one_of_the_command_line():
    typed = compose_job("distill", ["evaluation.architectures=[mlp]"], NOWHERE)
    made = DistillJob(
        source=Digits(),
        model=ConvNet(),
        evaluation=Evaluation(training=typed.evaluation.training, cache=typed.evaluation.cache, architectures=("mlp",)),
        architectures={"mlp": MLP()},
        out=NOWHERE,
    )
    mine, theirs = words(made), words(typed)
    for name in ("published", "published_protocol"):  # what others measured belongs to the preset
        assert mine["distiller"].pop(name) == {}
        assert theirs["distiller"].pop(name)
    assert mine == theirs


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_from_objects_is_the_run_of_the_command_line(command, tmp_path, timeless):
    arguments = ["strategy=fedavg", "strategy.training.epochs=1", "num_rounds=1", "model=mlp", "model.hidden=[8]"]
    few = ("scenario.num_clients=3", "scenario.alpha=5.0", "device=cpu")
    assert command("federated", *arguments, *few, "out=typed", "quiet=true") == (0, "", "")
    flower = FlowerStrategy(algorithm=FedAvg())
    job = FederatedJob(
        device="cpu",
        source=Digits(),
        model=MLP(hidden=(8,)),
        recipe=Dirichlet(num_clients=3, alpha=5.0),
        strategy=replace(flower, training=replace(flower.training, epochs=1)),
        num_rounds=1,
        out=tmp_path / "made",
    )
    made = run_federated(job)
    typed = read_record(tmp_path / "typed")
    for record in (made, typed):
        del record["command"], record["config"]["choices"]
    assert timeless(json.loads(json.dumps(made))) == timeless(typed)


def with_distiller(job, **changes):
    return replace(job, distiller=replace(job.distiller, **changes))


def test_a_distiller_that_nobody_calls_tells_no_runs_apart(composed):
    fedavg, one_shot = composed["federated", "fedavg"], composed["federated", "one_shot"]
    assert words(with_distiller(fedavg, ipc=1)) == words(fedavg)
    assert "distiller" not in words(fedavg)
    assert not {"distiller", "objective", "networks"} & set(settings_of(fedavg)["choices"])
    assert words(with_distiller(one_shot, ipc=1)) != words(one_shot)
    replaying = composed["federated", "fedavg_replay"]
    forgetful = replace(replaying, strategy=replace(replaying.strategy, replay=False))
    assert words(with_distiller(forgetful, ipc=1)) == words(forgetful)
    assert words(with_distiller(replaying, ipc=1)) != words(replaying)


def test_what_the_strategy_sets_itself_tells_no_runs_apart(composed):
    feddm = composed["federated", "feddm"]
    assert words(with_distiller(feddm, steps=7)) == words(feddm)  # strategy.steps counts
    its_own = replace(feddm, strategy=replace(feddm.strategy, steps=None))
    assert words(with_distiller(its_own, steps=7)) != words(its_own)
    # a selection that FedDM goes on to optimise has an optimiser, too
    chosen = with_distiller(feddm, steps=0)
    assert words(replace(chosen, distiller=replace(chosen.distiller, real_batch=3))) != words(chosen)


def test_a_memory_that_nobody_fills_tells_no_runs_apart(composed):
    for name in ("finetune", "joint", "lwf", "ewc"):
        own = composed["continual", name]
        assert words(replace(own, budget=Budget(images=3))) == words(own)
    replay, distilled = composed["continual", "replay"], composed["continual", "distilled_replay"]
    assert words(replace(replay, budget=Budget(images=3))) != words(replay)
    assert words(with_distiller(distilled, ipc=3)) == words(distilled)  # the budget says how many
    assert words(with_distiller(distilled, steps=3)) != words(distilled)


def test_a_selection_has_no_optimiser():
    chosen = Distiller(name="random", steps=0)
    for changes in ({"real_batch": 7}, {"optimizer": partial(torch.optim.SGD, lr=3.0)}, {"reuse": 2}):
        assert set(changes) <= chosen.idle
    assert Distiller().idle == set()
    assert "steps" not in chosen.idle  # 0 is what makes it a selection
    assert {"ipc", "initializer", "parameterization", "labels"}.isdisjoint(chosen.idle)


@dataclass(frozen=True, kw_only=True)
class Untouched(Distiller):
    def distill(self, *_, **__):
        raise AssertionError("called")


@pytest.mark.usefixtures("blank_pictures")
def test_who_says_that_the_distiller_is_unused_does_not_call_it(composed, tmp_path):
    """The law behind `unused`: with a distiller that breaks on use, these runs end, and only these."""
    brief = Training(updates=1, batch_size=4, momentum=0.0)
    for (verb, name), typed in composed.items():
        strategy = typed.strategy
        short = {"training": brief, "epochs": 1, "fisher_examples": 4}
        strategy = replace(strategy, **{k: v for k, v in short.items() if k in {f.name for f in fields(strategy)}})
        common = {"model": MLP(hidden=(4,)), "strategy": strategy, "distiller": Untouched(), "out": tmp_path / name}
        if verb == "federated":
            run, made = (
                run_federated,
                replace(typed, **common, num_rounds=1, recipe=Dirichlet(num_clients=2, alpha=9.0)),
            )
        else:
            run, made = run_continual, replace(typed, **common, recipe=ClassIncremental(num_steps=2))
        if "distiller" in strategy.unused:
            assert run(made)["finished"], name
        else:
            with pytest.raises(Exception, match="called"):
                run(made)


def test_an_older_record_with_fewer_keys_is_the_same_run(composed):
    """Records of 0.1 kept what the YAML said: fewer keys of every part, and groups that only others refer to."""
    new = words(composed["continual", "distilled_replay"])
    old = json.loads(json.dumps(new))
    del old["_target_"], old["scenario"]["seed"], old["strategy"]["training"]["milestones"]
    del old["strategy"]["training"]["augmentation"], old["distiller"]["lr_labels"]
    old |= {"objective": {"any": 1}, "networks": {"any": 1}, "choices": {"model": "convnet"}}
    old["distiller"]["ipc"] = 10  # the budget has it now
    assert differences(old, new) == []
    # a key that an older record lacks is the same at its default alone
    new["scenario"]["seed"] = 3
    new["strategy"]["training"]["milestones"] = [0.3]
    assert differences(old, new) == [
        "scenario.seed was absent, is 3",
        "strategy.training.milestones was absent, is [0.3]",
    ]


def test_a_key_that_was_added_or_taken_away_is_seen(composed):
    def made(**options):
        optimizer = partial(torch.optim.SGD, lr=1.0, momentum=0.5, **options)
        return words(with_distiller(composed["federated", "one_shot"], optimizer=optimizer))

    plain, nesterov, explicit = made(), made(nesterov=True), made(nesterov=False)
    assert differences(plain, nesterov) == ["distiller.optimizer.nesterov was absent, is true"]
    assert differences(nesterov, plain) == ["distiller.optimizer.nesterov was true, is absent"]
    assert differences(plain, explicit) == differences(explicit, plain) == []


def test_names_of_classes_are_those_of_the_files():
    assert target(torch.optim.SGD) == "torch.optim.SGD"
    assert target(FedProx) == "flwr.serverapp.strategy.FedProx"
    assert target(ConvNet) == "fedcl.models.convnet.ConvNet"
    assert describe(FlowerStrategy(algorithm=FedProx(proximal_mu=0.5)).algorithm)["proximal_mu"] == 0.5
    assert defaults_of("fedcl.models.mlp.MLP") == {"hidden": [400, 400]}
    assert defaults_of("nowhere.at.all") == defaults_of("None") == {}


def test_short_names_are_those_of_the_options():
    stream, partition = ClassIncremental(num_steps=2), Dirichlet(num_clients=2, alpha=1.0)
    for group, part, name in [
        ("model", ConvNet(width=8), "convnet"),
        ("model", ResNet(), "resnet18"),
        ("scenario", Dirichlet(num_clients=3, alpha=1.0, recipe="balanced"), "dirichlet_balanced"),
        ("scenario", Grid(stream=stream, partition=partition), "class_incremental_dirichlet"),
        ("buffer", Budget(images=7), "images"),
        ("buffer", Budget(bytes=7), "bytes"),
        ("distiller", Distiller(name="mine"), "mine"),
        ("model", Unheard(), "unheard"),
    ]:
        assert short_name(group, part) == name


@dataclass(frozen=True)
class Unheard:
    pass
