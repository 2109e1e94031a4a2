"""What a configuration may name: the classes that each field expects, and no other callable, at any depth."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedcl.cli.build import build_job, check_config, compose_config, make, resolve
from fedcl.cli.verbs import VERBS
from fedcl.core.checks import FromEnvironment
from fedcl.core.describe import describe
from fedcl.core.errors import ConfigError
from fedcl.core.targets import ALLOWED, Expected, check_value, expected_by
from fedcl.models.base import Model

WRITER = {
    "_target_": "fedcl.core.record.write_atomically",
    "path": {"_target_": "fedcl.core.paths.Path", "_args_": ["written"]},
}


@pytest.fixture(scope="module")
def composed():
    for verb in VERBS.values():
        importlib.import_module(verb.module)
    return {verb: resolve(compose_config(verb, [])) for verb in VERBS}


def put(config, key, value):
    """A copy of a configuration with one (new) key set."""
    changed = deepcopy(config)
    *above, last = key.split(".")
    node = changed
    for part in above:
        node = node[part]
    node[last] = value
    return changed


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Model, [Expected(Model, False)]),
        (Model | None, [Expected(Model, False)]),
        (Callable[[list], torch.optim.Optimizer], [Expected(torch.optim.Optimizer, True)]),
        (int | None, []),
        (Path, []),
        (dict[str, Any], []),
        (torch.Tensor, []),
        (Callable[..., str], []),
        (Any, []),
    ],
)
def test_annotations_say_which_classes_fit(hint, expected):
    assert expected_by(hint) == expected


REFUSED = [  # verb, key, value, part of the message
    ("federated", "wire", WRITER | {"data": "x"}, "wire._target_=fedcl.core.record.write_atomically is not allowed"),
    (
        "federated",
        "wire.dtype",
        WRITER,
        "wire.dtype._target_=fedcl.core.record.write_atomically is not allowed: nothing",
    ),
    ("federated", "distiller.published", {"a": [WRITER]}, "distiller.published.a[0]._target_="),
    ("federated", "seed", WRITER, "seed._target_="),
    ("federated", "out", WRITER, "out._target_="),
    ("federated", "stop.accuracy", {"_target_": "fedcl.cli.main.main"}, "stop.accuracy._target_="),
    ("federated", "strategy._target_", "fedcl.cli.main.main", "derives from Strategy (fedcl.federated.contract)"),
    (
        "federated",
        "strategy._target_",
        "strategies.continual.replay.Replay",
        "derives from Strategy (fedcl.federated.contract)",
    ),
    ("continual", "strategy._target_", "strategies.federated.one_shot.OneShot", "Strategy (fedcl.continual.contract)"),
    ("federated", "model._target_", "scenarios.iid.IID", "derives from Model (fedcl.models.base)"),
    ("federated", "dataset._target_", "fedcl.models.mlp.MLP", "derives from DataSource"),
    ("federated", "scenario._target_", "scenarios.iid.np.save", "cannot be imported"),
    ("federated", "scenario._target_", "fedcl.core.record.Path", "derives from Recipe"),
    ("federated", "runtime._target_", "fedcl.core.coding.Wire", "derives from Runtime"),
    ("federated", "stop._target_", "fedcl.core.coding.Wire", "derives from Stop"),
    ("federated", "tracker", {"_target_": "fedcl.models.mlp.MLP"}, "derives from Tracker"),
    ("federated", "objective._target_", "fedcl.distill.networks.fresh.Fresh", "derives from Objective"),
    (
        "federated",
        "distiller.networks._target_",
        "fedcl.core.coding.Wire",
        "distiller.networks._target_=fedcl.core.coding.Wire is not",
    ),
    ("federated", "distiller.optimizer._target_", "fedcl.models.mlp.MLP", "derives from Optimizer"),
    ("federated", "distiller.optimizer._partial_", False, "distiller.optimizer._partial_=false cannot be"),
    ("federated", "model._partial_", True, "model._partial_=true cannot be"),
    ("federated", "strategy.training.augmentation._target_", "fedcl.core.coding.Wire", "derives from Augmentation"),
    ("continual", "buffer._target_", "fedcl.core.coding.Wire", "derives from Budget"),
    ("distill", "evaluation._target_", "fedcl.core.coding.Wire", "derives from Evaluation"),
    (
        "distill",
        "architectures.mlp._target_",
        "fedcl.core.coding.Wire",
        "architectures.mlp._target_=fedcl.core.coding.Wire is not",
    ),
    ("federated", "model", {"width": 3}, "model={'width': 3} does not fit; it must be Model"),
    ("federated", "model", "mlp", "model=mlp does not fit"),
    ("federated", "model._args_", [1], "model._args_ is not allowed"),
    ("federated", "model._recursive_", False, "model._recursive_ is not allowed"),
    ("federated", "model._convert_", "none", "model._convert_ is not allowed"),
    ("federated", "model._target_", "os.system", "it must begin with fedcl."),
    ("federated", "model._target_", ["os.system"], "it must begin with fedcl."),
    ("federated", "model._target_", "fedclx.models.M", "it must begin with fedcl."),
    ("federated", "foo", 1, "there is no key 'foo'"),
    ("federated", "foo", WRITER, "there is no key 'foo'"),
    ("federated", "device", {}, "device={} does not fit; it must be a text"),
    ("federated", "stop.accuracy", 10**400, "stop.accuracy=a number of 1329 bits is too large"),
]


@pytest.mark.parametrize(("verb", "key", "value", "part"), REFUSED)
def test_what_no_field_expects_is_refused_before_anything_is_made(verb, key, value, part, composed, monkeypatch):
    imported = []
    watched = SimpleNamespace(import_module=lambda name: imported.append(name) or importlib.import_module(name))
    monkeypatch.setattr("fedcl.core.targets.importlib", watched)
    monkeypatch.setattr("fedcl.cli.build.make", lambda *_: pytest.fail("made before all was checked"))
    with pytest.raises(ConfigError) as caught:
        build_job(verb, put(composed[verb], key, value), {}, Path("nowhere"), [])
    assert part in str(caught.value)
    assert imported, "the watch hears"
    assert all(f"{name}.".startswith(ALLOWED) for name in imported), imported


def test_flowers_algorithms_are_flowers_strategies():
    config = resolve(compose_config("federated", ["strategy=federated/fedavg"]))
    for target in ("fedcl.core.coding.Wire", "flwr.serverapp.strategy.Result", "flwr.serverapp.strategy.fedavg.log"):
        with pytest.raises(ConfigError, match="derives from FedAvg"):
            check_config("federated", put(config, "strategy.algorithm._target_", target))
    foreign = put(config, "strategy.algorithm.train_metrics_aggr_fn", {"_target_": "fedcl.cli.main.main"})
    with pytest.raises(ConfigError, match=r"train_metrics_aggr_fn._target_=fedcl.cli.main.main is not allowed"):
        check_config("federated", foreign)


def test_nothing_foreign_is_imported(composed, tmp_path, monkeypatch):
    (tmp_path / "fedcl_evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        check_config("federated", put(composed["federated"], "model._target_", "fedcl_evil.Model"))
    assert "fedcl_evil" not in sys.modules


def test_a_text_is_never_read_again_as_configuration(composed):
    """An escaped interpolation stays a text: it cannot turn into a class after the check."""
    text = "${oc.create:{_target_:fedcl.core.record.write_atomically}}"
    config = put(composed["federated"], "distiller.published", {"digits": text})
    check_config("federated", config)
    assert make(config, "distiller").published == {"digits": text}


def test_what_is_made(composed):
    distiller = make(composed["federated"], "distiller")
    assert isinstance(distiller.optimizer, partial)
    assert distiller.optimizer.func is torch.optim.SGD
    models = make(composed["distill"], "architectures")
    assert all(isinstance(model, Model) for model in models.values())
    assert make({"a": None}, "a") is None


def test_a_mapping_of_parts_is_checked_by_its_values():
    check_value({"a": {"_target_": "fedcl.models.mlp.MLP"}}, Mapping[str, Model], "models")
    with pytest.raises(ConfigError, match=r"models.a=3 does not fit; it must be Model"):
        check_value({"a": 3}, Mapping[str, Model], "models")


def test_a_text_of_the_environment_is_used_as_it_is_and_shown_by_its_name(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("IPC", "3")
    typed = [
        "dataset.root=${oc.env:SECRET}/x",
        "+rows=[a,${oc.env:SECRET},1]",
        "+seconds='${times:2,${distiller.ipc}}'",
        "distiller.ipc='${oc.decode:${oc.env:IPC}}'",
        "device=${oc.env:NO,cpu}",
    ]
    values = resolve(compose_config("federated", typed))
    root = values["dataset"]["root"]
    assert root == "hunter2/x"
    assert values["distiller"]["ipc"] == 3
    shown = describe(values)
    assert shown["dataset"]["root"].startswith("${oc.env:SECRET}/x (")
    assert values["seconds"] == 6
    assert shown["rows"][::2] == ["a", 1]
    assert "hunter2" not in str(shown)
    assert FromEnvironment.named("a", "x").shown != FromEnvironment.named("b", "x").shown, "values are told apart"
    with pytest.raises(ConfigError, match=r"distiller.name is written into every summary"):
        check_config("federated", resolve(compose_config("federated", ["distiller.name=${oc.env:SECRET}"])))
    assert resolve(compose_config("federated", ["dataset.root=${oc.env:SECRET}"]))["dataset"]["root"] == "hunter2"
