"""Parts that do not fit are refused before anything is distilled, and rooms of the engine import each other one way."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fedcl.cli.build import compose_config, make, resolve
from fedcl.core.errors import ConfigError, DistillError, FedclError
from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.online import Online
from fedcl.distill.objectives.gradient import Gradient
from fedcl.models.convnet import ConvNet
from strategies.federated.feddm import FedDM
from strategies.federated.one_shot import OneShot

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "configs" / "distiller").glob("*.yaml"))


@cache
def preset(name):
    return make(resolve(compose_config("federated", [f"distiller={name}", "distiller.ipc=1"])), "distiller")


@pytest.mark.parametrize("own", [True, False], ids=["its objective", "the preset's"])
@pytest.mark.parametrize("name", PRESETS)
def test_feddm_refuses_before_the_first_round_what_no_round_could_do(name, own, new_set, ctx):
    strategy = FedDM(steps=1) if own else FedDM(steps=1, objective=None)
    job = replace(ctx, distiller=preset(name))
    try:
        strategy.init(job)
    except FedclError:
        with pytest.raises(FedclError):
            strategy.distiller(job).distill([new_set({0: 3, 1: 3})], 0, ctx, weights=ctx.new_model(0).state_dict())
        return
    small = replace(strategy.distiller(job), real_batch=3)
    assert small.distill([new_set({0: 3, 1: 3})], 0, ctx, weights=ctx.new_model(0).state_dict())[0].num_images


@pytest.mark.parametrize(
    ("name", "objective", "message"),
    [
        ("idc", FedDM().objective, r"augmentation\.cutmix"),
        ("idc", None, r"augmentation\.cutmix"),
        ("ncfm", None, "Characteristic needs a network that was trained"),
        ("mtt", None, "Trajectory needs stretches of experts' training"),
        ("mtt", FedDM().objective, r"distiller\.lr_scalars"),
    ],
)
def test_what_feddm_says_of_it(name, objective, message, ctx):
    with pytest.raises(ConfigError, match=message):
        FedDM(objective=objective).init(replace(ctx, distiller=preset(name)))


def test_a_model_and_weights_that_cannot_work_are_refused_before_the_first_round(new_distiller, ctx):
    mixing = replace(ctx, model=ConvNet(width=4, norm="batch"))
    matching = new_distiller(objective=Gradient(), networks=Online())
    with pytest.raises(DistillError, match=r"model\.norm=instance"):
        OneShot().init(replace(mixing, distiller=matching))
    around = new_distiller(networks=AroundGlobal())
    with pytest.raises(DistillError, match="type networks=fresh"):
        OneShot().init(replace(ctx, distiller=around))
    replace(around, steps=0).check(ctx)  # a selection asks no network


def test_the_loop_knows_no_method():
    """What was made for RDED and DREAM stands in files of its own: the loop and its stages name none of it."""
    for name in ("distiller.py", "stages.py", "state.py", "journal.py", "groups.py"):
        text = (ROOT / "fedcl" / "distill" / name).read_text().lower()
        assert not [word for word in ("rded", "dream", "crops", "clusters", "teacher") if word in text], name
    assert len((ROOT / "fedcl" / "distill" / "distiller.py").read_text().splitlines()) <= 150
