"""A published accuracy stands beside the protocol that gave it, key by key, so that nobody compares unlike runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from fedcl.cli.build import compose_config, make, resolve
from fedcl.core.describe import describe
from fedcl.distill.published import protocol_at, with_protocol_at

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
AXES = ("objective", "parameterization", "initializer", "augmentation", "labels", "networks", "sampler")
# what a source did and fedcl has no key for: a run here can never be wholly like it
NO_KEY = {"dataset.zca", "evaluation.reported", "distiller.updates_of_a_step"}


def flat(config, prefix=""):
    found = {}
    for key, value in config.items():
        own = isinstance(value, Mapping) and value and not key.startswith("published")
        found |= flat(value, f"{prefix}{key}.") if own else {f"{prefix}{key}": value}
    return found


@cache
def preset(name):
    return resolve(compose_config("distill", [f"distiller={name}"]))


WITH_NUMBERS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((CONFIGS / "distiller").glob("*.yaml"))
    if "published:" in path.read_text()
}
CASES = [
    pytest.param(name, dataset, ipc, id=f"{name} {dataset} {ipc}")
    for name, distiller in WITH_NUMBERS.items()
    for dataset, table in distiller["published"].items()
    for ipc in table
]


def test_a_value_is_found_by_data_set_and_ipc_or_by_either():
    protocol = {
        "a": 1,
        "b": {1: 10, 10: 20},
        "c": {"mnist": 5, "cifar10": {"1": None, "10": [0.5]}},
        "d": {"mnist": {50: 7}},
    }
    assert protocol_at(protocol, "mnist", 1) == {"a": 1, "b": 10, "c": 5}
    assert protocol_at(protocol, "cifar10", 10) == {"a": 1, "b": 20, "c": [0.5]}
    assert protocol_at(protocol, "cifar10", 1) == {"a": 1, "b": 10, "c": None}
    assert protocol_at({}, "mnist", 1) == {}


def test_only_the_protocol_of_a_configuration_changes():
    config = {"seed": 3, "distiller": {"ipc": 1, "published_protocol": {"distiller.steps": {1: 5, 10: 6}}}}
    assert with_protocol_at(config, "mnist", 10) == {
        "seed": 3,
        "distiller": {"ipc": 1, "published_protocol": {"distiller.steps": 6}},
    }
    for other in ({"distiller": {"ipc": 1}}, {"distiller": "dm"}, {}):
        assert with_protocol_at(other, "mnist", 10) == other


def test_every_preset_with_numbers_has_a_protocol():
    assert WITH_NUMBERS.keys() >= {"dc", "dcc", "dm", "dsa", "frepo", "idc", "mtt"}
    for name, distiller in WITH_NUMBERS.items():
        keys = set(distiller["published_protocol"])
        least = {"model.width", "distiller.steps", "distiller.real_batch", "evaluation.training.updates"}
        assert keys >= (least - {"distiller.real_batch"} if name == "mtt" else least), name  # MTT has no real batch


@pytest.mark.parametrize(("name", "dataset", "ipc"), CASES)
def test_a_protocol_says_one_value_a_key_for_every_number(name, dataset, ipc):
    """No table has a gap, and every key is one that a configuration has, or stands in NO_KEY."""
    written = WITH_NUMBERS[name]["published_protocol"]
    found = protocol_at(written, dataset, ipc)
    assert set(found) == set(written)
    assert not any(isinstance(value, Mapping) for value in found.values())
    known = set(flat(preset(name)))
    assert {key for key in found if key not in known} <= NO_KEY


@pytest.mark.parametrize(
    ("name", "dataset", "ipc"),
    [("dm", "mnist", 1), ("dm", "cifar100", 50), ("dsa", "fashion_mnist", 10), ("dc", "cifar10", 1)],
)
def test_a_run_can_be_wholly_like_the_source(name, dataset, ipc):
    """The values, typed, make a configuration that differs from the protocol in nothing."""
    protocol = protocol_at(WITH_NUMBERS[name]["published_protocol"], dataset, ipc)
    typed = [f"distiller={name}", f"dataset={dataset}", f"distiller.ipc={ipc}", "evaluation=published"]
    if name == "dc":
        typed.append("augmentation@evaluation.training.augmentation=none")
    for key, value in protocol.items():
        first, _, rest = key.partition(".")
        axis = rest.partition(".")[0]
        path = rest if first == "distiller" and axis in AXES else key
        typed.append(f"{path}={json.dumps(value)}")
    config = resolve(compose_config("distill", typed))
    own = flat(config)
    assert {key: own.get(key, "absent") for key in protocol} == protocol
    objects = flat({"distiller": describe(make(config, "distiller"))})  # a run from Python has the same keys
    assert {key for key in protocol if key.startswith("distiller.")} <= objects.keys()


def test_a_small_run_differs_in_what_it_is_smaller_in():
    own = flat(resolve(compose_config("distill", ["distiller=dm", "dataset=mnist"])))
    protocol = protocol_at(WITH_NUMBERS["dm"]["published_protocol"], "mnist", 10)
    unlike = {key for key, value in protocol.items() if own[key] != value}
    assert unlike == {"model.width", "distiller.steps", "evaluation.training.updates"}


def test_numbers_that_were_wrong():
    assert WITH_NUMBERS["dc"]["published"]["mnist"] == {1: 0.917, 10: 0.974, 50: 0.988}
