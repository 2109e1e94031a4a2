"""From configuration to objects: what is refused, and how it is said."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from fedcl.build import (
    VERBS,
    build_job,
    check_plugins,
    choose_folder,
    compose_config,
    compose_job,
    make,
    resolve,
)
from fedcl.checks import check_arguments, fits, nearest, similar
from fedcl.describe import describe, describe_job
from fedcl.distill.distiller import Distiller
from fedcl.errors import ConfigError, FedclError, ScenarioError
from fedcl.targets import check_values


@dataclass(frozen=True, kw_only=True)
class Sample:
    rate: float = 1.0
    count: int | None = None
    on: bool = False
    kind: Literal["a", "b"] = "a"
    widths: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (float("nan"), float, False),
        (True, int, False),
        (1.0, int, False),
        (None, int | None, True),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], tuple[int, ...], False),
        ([1], tuple[int, int], False),
        (3, tuple[int, ...], False),
        ("b", Literal["a", "b"], True),
        ("anything", Path, True),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, "part.rate=fast does not fit; it must be a number"),
        ({"count": 1.5}, "part.count=1.5 does not fit; it must be a whole number or null"),
        ({"on": 1}, "part.on=1 does not fit; it must be true or false"),
        ({"kind": "c"}, "part.kind=c does not fit; it must be a or b"),
        ({"widths": [1, None]}, "it must be a list [...] of which each is a whole number"),
    ],
)
def test_values_that_do_not_fit(values, message):
    with pytest.raises(ConfigError) as caught:
        check_values(Sample, values, "part")
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def composed():
    """The configuration of `fedcl federated`, resolved."""
    return resolve(compose_config("federated", []))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed=-1 is negative"),
        ("seed", 3.5, "seed=3.5 does not fit; it must be a whole number"),
        ("device", "gpu", "device=gpu"),
        ("device", "cuda:97", "device=cuda:97 is not there"),
        ("num_rounds", 0, "num_rounds=0"),
        ("distiller.ipc", "ten", "distiller.ipc=ten does not fit; it must be a whole number"),
        ("distiller.ipc", 0, "distiller.ipc=0"),
        ("scenario.alpha", float("nan"), "scenario.alpha=nan does not fit"),
        ("scenario.num_clients", 0, "num_clients"),
        ("model._target_", "os.system", "is not allowed"),
        ("model._target_", "fedcl.models.convnet.Nothing", "cannot be imported"),
    ],
)
def test_a_job_is_not_built_from_what_cannot_be(composed, key, value, message):
    config = deepcopy(composed)
    *groups, name = key.split(".")
    place = config[groups[0]] if groups else config
    assert name in place
    place[name] = value
    with pytest.raises(FedclError, match=re.escape(message)):
        build_job("federated", config, {}, Path("nowhere"), [])


def test_unknown_argument_names_the_nearest_and_lists_all():
    with pytest.raises(ConfigError, match=r"'rat' \(did you mean rate\?\); it takes count, kind, on, rate, widths"):
        check_arguments(Sample, {"rat": 1}, "part")
    check_arguments(lambda **values: values, {"anything": 1}, "part")
    with pytest.raises(ConfigError, match="nothing that takes values"):
        check_arguments(3, {"anything": 1}, "part")


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("alpah", ["alpha", "beta"]) == " (did you mean alpha?)"
    assert nearest("zzz", ["alpha", "beta"]) == ""
    assert nearest("alpha", ["alpha", "beta"]) == "", "what was typed is no proposal"


def test_similar_keys_end_alike_and_the_nearest_place_comes_first():
    known = ["distiller.optimizer.lr", "strategy.training.lr", "strategy", "seed", "lr_extra"]
    assert similar("lr", known) == " (did you mean distiller.optimizer.lr or strategy.training.lr?)"
    assert similar("strategy.lr", known) == " (did you mean strategy.training.lr or distiller.optimizer.lr?)"
    assert similar("sed", known) == " (did you mean seed?)"
    assert similar("strategy", known) == ""


def test_an_error_of_a_constructor_comes_out_unwrapped():
    config = {"_target_": "scenarios.dirichlet.Dirichlet", "num_clients": 2, "alpha": -1}
    with pytest.raises(ScenarioError, match="alpha"):
        make({"scenario": config}, "scenario")


def test_composed_configuration_has_no_clock(composed):
    assert "${now" not in str(composed)


def test_folders_are_fresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"out": None}
    first = choose_folder("federated", config, {"strategy": "fedavg"})
    assert first.parts[:2] == ("runs", "federated")
    assert first.name.endswith("-fedavg")
    assert choose_folder("federated", config, {"strategy": "a", "experiment": "e"}).name.endswith("-e")
    assert choose_folder("federated", {"out": "here"}, {}) == Path("here")
    assert not list(tmp_path.iterdir()), "choosing writes nothing"


def test_a_taken_folder_is_not_chosen_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Noon:
        @staticmethod
        def now():
            import datetime

            return datetime.datetime(2030, 1, 2, 12, 0, 0)

    monkeypatch.setattr("fedcl.build.datetime", Noon)
    names = []
    for _ in range(3):
        folder = choose_folder("federated", {"out": None}, {"strategy": "s"})
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names == ["20300102-120000-s", "20300102-120000-s-2", "20300102-120000-s-3"]


def test_plugins_beside_fedcl_pass_and_others_are_named(tmp_path):
    check_plugins()
    with pytest.raises(ConfigError, match="'strategies' belongs in"):
        check_plugins(tmp_path / "fedcl")


def test_a_job_from_presets_is_the_command_lines(tmp_path):
    job = compose_job("federated", ["strategy=fedavg", "num_rounds=2", "wire=uint8"], tmp_path / "a")
    assert (job.num_rounds, job.wire.dtype, job.out) == (2, "uint8", tmp_path / "a")
    assert job.command == ["fedcl", "federated", "strategy=fedavg", "num_rounds=2", "wire=uint8"]
    assert job.config["choices"]["strategy"] == "fedavg"
    assert "hydra" not in job.config
    assert not (tmp_path / "a").exists()


def test_a_described_job_is_the_configuration_that_made_it():
    """What objects say of themselves is what configs/ say: the defaults of Distiller are the preset dm."""
    for verb in VERBS:
        job = compose_job(verb, [], "nowhere")
        described = json.loads(json.dumps(describe_job(job)))
        for group in ("dataset", "model", "scenario"):
            assert described.get(group) == job.config.get(group), (verb, group)
        dm = describe(replace(job.distiller, published={}))
        assert dm == describe(Distiller()), verb
    choices = describe_job(compose_job("federated", ["strategy=fedavg", "wire=uint8"], "nowhere"))["choices"]
    assert (choices["strategy"], choices["wire"], choices["dataset"]) == ("fedavg", "uint8", "digits")
