"""No option of the engine is accepted and ignored: every field of every axis changes a distillation, or says why not.

The table below has a row for every class that an axis can hold and an entry for each of its fields; what is missing
in it fails. An entry is the value to change to, alone or with the configuration in which it shows.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from inspect import isabstract
from typing import Any

import pytest
import torch

import fedcl.distill
from fedcl.core.errors import ConfigError
from fedcl.core.inputs import Normalization
from fedcl.core.types import normalised
from fedcl.distill.crops import Crops
from fedcl.distill.distiller import Distiller
from fedcl.distill.initializers import ClassMean, Initializer, Mosaic, Noise, Real
from fedcl.distill.inner import InnerOptimizer
from fedcl.distill.labels import Hard, Kernel, Logits, TargetRule, Teacher
from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.base import Networks
from fedcl.distill.networks.experts import Experts
from fedcl.distill.networks.fixed import Fixed
from fedcl.distill.networks.fresh import Fresh
from fedcl.distill.networks.interpolated import Interpolated
from fedcl.distill.networks.none import NoNetworks
from fedcl.distill.networks.online import Online
from fedcl.distill.networks.queue import Queue
from fedcl.distill.networks.regression import OnlineRegression
from fedcl.distill.objectives.base import NoObjective, Objective
from fedcl.distill.objectives.characteristic import Characteristic
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.objectives.gradient import Gradient
from fedcl.distill.objectives.kernel import FeatureRegression
from fedcl.distill.objectives.mmd import MaximumMeanDiscrepancy
from fedcl.distill.objectives.ntk import TangentRegression
from fedcl.distill.objectives.trajectory import Trajectory
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.distill.parameterizations.frequency import Frequency
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.distill.samplers.base import Sampler, Uniform
from fedcl.distill.samplers.clusters import Clusters
from fedcl.models.convnet import ConvNet
from fedcl.training.augmentation import Augmentation, CutMix, NoAugmentation, OnlyMixed, Siamese

AXES = {
    "objective": Objective,
    "parameterization": Parameterization,
    "initializer": Initializer,
    "augmentation": Augmentation,
    "labels": TargetRule,
    "networks": Networks,
    "sampler": Sampler,
}


@dataclass(frozen=True)
class To:
    """The value to change to, and what else both sides need for it to show."""

    value: Any
    alike: bool = False  # speed, memory or a place on disk: the result is the same to rounding
    base: dict[str, Any] = field(default_factory=dict)


def to(value: Any, **base: Any) -> To:
    return To(value, base=base)


def alike(value: Any, **base: Any) -> To:
    return To(value, alike=True, base=base)


NAMED = alike({"mnist": {1: 0.5}})
ADAM = Unrolled(inner_steps=3, inner=InnerOptimizer(kind="adam"))
REGRESSION = {"objective": FeatureRegression(), "labels": Kernel(), "networks": OnlineRegression(size=2, norm="batch")}
CLOSED_FORM = {"objective": TangentRegression(), "labels": Kernel(), "networks": NoNetworks()}
FOLLOWED = {
    "objective": Trajectory(inner_steps=2),
    "networks": Experts(num_experts=1, max_start=1, stretch=1, batch_size=8),
    "lr_scalars": 1e-7,
}
LABELLED = {"objective": Unrolled(inner_steps=2), "labels": Logits()}
TRAINED = Interpolated(size=1, epochs=2, batch_size=8)
QUEUE = Queue(size=2, every=2, updates=2, batch_size=8, lr=0.1)
UNSURE = {"lr_labels": 1e4, "steps": 5}  # labels move until none is clear any more

# class -> what the distiller is besides -> its fields
ROWS: dict[type, tuple[dict[str, Any], dict[str, Any]]] = {
    Distiller: (
        {},
        {
            "name": alike("other"),
            "published": NAMED,
            "published_protocol": alike({"model.width": 128}),
            "batching": alike("together"),
            "objective": MaximumMeanDiscrepancy(),
            "parameterization": Zoom(),
            "initializer": Noise(),
            "augmentation": Siamese(),
            "labels": Kernel(learned=False),
            "networks": Fixed(),
            "sampler": to(Clusters(), real_batch=4),
            "ipc": 3,
            "steps": 4,
            "optimizer": partial(torch.optim.SGD, lr=0.2),
            "real_batch": 4,
            "reuse": 2,
            "optimise_images": to(False, **LABELLED),
            "lr_scalars": to(3.0, **LABELLED),
            "lr_labels": to(3.0, **LABELLED),
        },
    ),
    NoObjective: ({}, {}),
    Distribution: ({}, {"logits": True, "chunk": alike(3)}),
    Characteristic: (
        {"objective": Characteristic(frequencies=8)},
        {
            "frequencies": 9,
            "amplitude": 0.1,
            "phase": 0.1,
            "scale": 30.0,
            "calibration": to(1.0, networks=Interpolated(size=1, epochs=1)),
            "chunk": alike(3),
        },
    ),
    MaximumMeanDiscrepancy: (
        {"objective": MaximumMeanDiscrepancy()},
        {"widths": (1.0,), "scale": 10.0, "chunk": alike(3)},
    ),
    Gradient: (
        {"objective": Gradient()},
        {
            "distance": "l1",
            "per_class": False,
            "warm_up": to(1, objective=Gradient(per_class=False)),
            "layers": "convolutions",
            "vectorize": alike(True),
            "chunk": alike(3),
        },
    ),
    FeatureRegression: (REGRESSION, {"ridge": 0.1, "margin": to(9.0, **UNSURE), "chunk": alike(3)}),
    TangentRegression: (
        CLOSED_FORM,
        {"hidden": 2, "weight_std": 1.0, "bias_std": 1.0, "ridge": 0.1, "margin": to(9.0, **UNSURE)},
    ),
    Trajectory: (FOLLOWED, {"inner_steps": 3, "inner_batch": 1, "step_size": 0.1}),
    Unrolled: (
        {"objective": Unrolled(inner_steps=3)},
        {
            "inner_steps": 2,
            "inner_batch": 1,
            "window": 1,
            "step_size": 0.1,
            "learn_step_sizes": False,
            "inner": InnerOptimizer(momentum=0.5),
        },
    ),
    InnerOptimizer: (
        {"objective": Unrolled(inner_steps=3)},
        {
            "kind": "adam",
            "momentum": 0.5,
            "betas": to((0.5, 0.5), objective=ADAM),
            "eps": to(0.1, objective=ADAM),
        },
    ),
    Pixels: ({}, {"clamp": to(True, initializer=Noise(std=3.0))}),
    Zoom: ({"parameterization": Zoom()}, {"factor": 1, "clamp": to(False, initializer=Noise(std=3.0))}),
    Frequency: ({"parameterization": Frequency()}, {"kept": 0.5, "multiple": 1}),
    Noise: ({"initializer": Noise()}, {"std": 0.5}),
    Real: (
        {},
        {"select": "k_center", "space": to("features", initializer=Real(select="kmeans")), "pad": to(True, ipc=12)},
    ),
    Mosaic: (
        {"initializer": Mosaic()},
        {"factor": 1, "select": "k_center", "space": to("features", initializer=Mosaic(select="k_center"))},
    ),
    Crops: (
        {"initializer": Crops(), "networks": TRAINED},
        {"factor": 2, "crops": 1, "candidates": 5, "area": (0.5, 1.0)},
    ),
    Uniform: ({}, {}),
    Clusters: ({"sampler": Clusters(), "real_batch": 4}, {"every": 1}),
    ClassMean: ({"initializer": ClassMean()}, {"std": 0.1}),
    Hard: ({}, {}),
    Logits: (LABELLED, {"confidence": 0.5}),
    Kernel: (REGRESSION, {"learned": False}),
    Teacher: ({"labels": Teacher(), "networks": TRAINED}, {"per_view": False, "temperature": 2.0}),
    NoAugmentation: ({}, {}),
    Siamese: (
        {"augmentation": Siamese(groups=("color",))},
        {
            "groups": ("crop",),
            "always": ("cutout",),
            "cutmix": to(1.0, networks=QUEUE),
            "brightness": 2.0,
            "saturation": 1.0,
            "contrast": 0.1,
            "crop": to(0.4, augmentation=Siamese(groups=("crop",))),
            "cutout": to(0.2, augmentation=Siamese(groups=("cutout",))),
            "scale": to(2.0, augmentation=Siamese(groups=("scale",))),
            "rotate": to(90.0, augmentation=Siamese(groups=("rotate",))),
        },
    ),
    Fresh: ({}, {}),
    NoNetworks: ({}, {}),
    Fixed: ({"networks": Fixed()}, {"seed": 1}),
    AroundGlobal: ({"networks": AroundGlobal()}, {"radius": 0.5}),
    Online: (
        {"networks": Online(outer=3, inner=1)},
        {"outer": 2, "inner": 2, "lr": 0.1, "batch_size": 1},
    ),
    Queue: (
        {"networks": QUEUE},
        {
            "size": 1,
            "every": 1,
            "trained": to(2, networks=replace(QUEUE, size=3, every=1), steps=8),
            "updates": 1,
            "batch_size": 4,
            "lr": 0.01,
            "momentum": 0.0,
            "weight_decay": 0.1,
        },
    ),
    OnlineRegression: (
        REGRESSION,
        {
            "size": 1,
            "lifetime": to(1, steps=4),
            "lr": 0.01,
            "batch_size": 2,
            "norm": "none",
            "norm_first": True,
            "initialization": "lecun",
            "norm_momentum": 0.1,
        },
    ),
    Interpolated: (
        {"networks": Interpolated(size=1, epochs=2, batch_size=8)},
        {"size": 2, "epochs": 1, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.1, "batch_size": 4},
    ),
    Experts: (
        FOLLOWED,
        {
            "folder": alike("elsewhere"),
            "num_experts": 2,
            "max_start": 0,
            "stretch": 2,
            "lr": 0.1,
            "batch_size": 4,
            "seed": 1,
        },
    ),
}


def kinds(base: type) -> set[type]:
    """The concrete classes of an axis that fedcl has, and none that a test made."""
    below = {cls for kind in base.__subclasses__() for cls in {kind, *kinds(kind)}}
    return {cls for cls in below if not isabstract(cls) and cls.__module__.startswith("fedcl.")}


def test_the_table_has_every_class_and_every_field():
    for module in pkgutil.walk_packages(fedcl.distill.__path__, "fedcl.distill."):
        importlib.import_module(module.name)
    found = set().union(*(kinds(base) for base in AXES.values()))
    # Siamese is a CutMix, and callers make an OnlyMixed of what they were given
    public = {cls for cls in found if not cls.__name__.startswith("_")} - {CutMix, OnlyMixed}
    assert public == set(ROWS) - {Distiller, InnerOptimizer}
    for cls, (_, entries) in ROWS.items():
        assert is_dataclass(cls)
        assert set(entries) == {entry.name for entry in fields(cls)}, cls.__name__


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder for experts, and what was distilled already: most rows begin from the same."""
    return tmp_path_factory.mktemp("options"), {}


@pytest.fixture
def distill(new_set, ctx, shelf, monkeypatch):
    """distill(Distiller) -> the numbers of its summary."""
    folder, known = shelf
    monkeypatch.chdir(folder)
    units = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3)
    colored = replace(ctx, model=ConvNet(width=4), inputs=replace(ctx.inputs, shape=(3, 8, 8), preprocess=units))
    data, weights = new_set({0: 20, 1: 9}, channels=3), colored.new_model(5).state_dict()

    def run(distiller: Distiller) -> dict[str, torch.Tensor]:
        if repr(distiller) not in known:
            [summary] = distiller.distill([data], 3, colored, weights=weights)
            images, targets = summary.decode()
            known[repr(distiller)] = {**normalised(summary.arrays, units), "targets": targets, "decoded": images}
        return known[repr(distiller)]

    return run


def changed(distiller: Distiller, owner: type, name: str, value: Any) -> Distiller:
    if owner is Distiller:
        return replace(distiller, **{name: value})
    if owner is InnerOptimizer:
        objective = distiller.objective
        assert isinstance(objective, Unrolled)
        return replace(distiller, objective=replace(objective, inner=replace(objective.inner, **{name: value})))
    axis = next(axis for axis, base in AXES.items() if issubclass(owner, base))
    held: Any = getattr(distiller, axis)
    assert isinstance(held, owner)
    return replace(distiller, **{axis: replace(held, **{name: value})})


@pytest.mark.parametrize(
    ("owner", "name"),
    [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, (_, entries) in ROWS.items() for name in entries],
)
def test_a_field_changes_the_result(distill, new_distiller, owner, name):
    axes, entries = ROWS[owner]
    entry = entries[name] if isinstance(entries[name], To) else To(entries[name])
    distiller = new_distiller(**(axes | entry.base))
    before, after = distill(distiller), distill(changed(distiller, owner, name, entry.value))
    bound = 1e-4 if entry.alike else 0.0
    same = before.keys() == after.keys() and all(
        before[key].shape == after[key].shape and torch.allclose(before[key], after[key], atol=bound, rtol=0)
        for key in before
    )
    assert same == entry.alike


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"lr_labels": 0.1}, r"distiller\.lr_labels=0\.1 .* these are fixed; type distiller\.lr_labels=null"),
        ({"lr_labels": 0.1, "labels": Kernel(learned=False)}, r"distiller\.lr_labels=0\.1"),
        ({"lr_scalars": 0.1}, r"distiller\.lr_scalars=0\.1 .* learns none; type distiller\.lr_scalars=null"),
        ({"lr_scalars": 0.1, "objective": Unrolled(learn_step_sizes=False)}, r"distiller\.lr_scalars=0\.1"),
        ({"optimise_images": False}, r"distiller\.optimise_images=false leaves nothing to learn; type labels=logits"),
    ],
)
def test_a_rate_of_what_is_not_learned_is_refused(new_distiller, axes, message):
    with pytest.raises(ConfigError, match=message):
        new_distiller(**axes)


@pytest.mark.parametrize("networks", [Fresh(), Fixed(), AroundGlobal(), OnlineRegression()])
def test_mixing_that_no_network_is_trained_with_is_refused(new_distiller, networks):
    with pytest.raises(ConfigError, match=r"augmentation\.cutmix .* type augmentation\.cutmix=0"):
        new_distiller(networks=networks, augmentation=Siamese(cutmix=0.5))


FEATURES = (Distribution(), Characteristic(), MaximumMeanDiscrepancy(), FeatureRegression())
UNFIT = [
    *(({"objective": objective, "networks": NoNetworks()}, "type networks=fresh") for objective in FEATURES),
    ({"objective": TangentRegression(), "labels": Kernel()}, "type networks=none"),
    ({"objective": Gradient(), "networks": NoNetworks()}, "Gradient needs a network, .* type networks=fresh"),
    ({"objective": Gradient(), "networks": Experts()}, "Gradient needs a network, .* type networks=fresh"),
    ({"objective": Trajectory()}, "Trajectory needs stretches .* Fresh provide none; type networks=experts"),
    ({"objective": Characteristic(calibration=1.0)}, "Characteristic needs a network that was trained .*=interpolated"),
    ({"sampler": Clusters(), **CLOSED_FORM}, "sampler Clusters needs features of a network"),
    ({"labels": Logits()}, "Logits are learned, and objective Distribution does not read .* type labels=hard"),
    ({"objective": FeatureRegression()}, "FeatureRegression is a regression on scores, .* type labels=kernel"),
    ({"labels": Teacher(), "steps": 0}, "labels Teacher needs a network that was trained .* networks=trained"),
    ({"initializer": Crops(), "steps": 0}, "initializer Crops needs a network that was trained"),
    ({"initializer": Real(select="kmeans", space="features"), **CLOSED_FORM}, "initializer Real needs features"),
]


@pytest.mark.parametrize(("axes", "message"), UNFIT)
def test_parts_that_do_not_fit_are_refused_when_they_are_put_together(new_distiller, axes, message):
    with pytest.raises(ConfigError, match=message):
        new_distiller(**axes)


def test_what_a_plug_in_needs_is_named_and_selections_need_no_networks(new_distiller):
    odd = type("Odd", (Distribution,), {"needs": frozenset({"tail"})})()
    with pytest.raises(ConfigError, match=r"Odd needs 'tail', .* whose class provides 'tail'"):
        new_distiller(objective=odd)
    assert "networks" in new_distiller(objective=odd, steps=0).idle
    taught = new_distiller(labels=Teacher(), networks=Interpolated(size=1), steps=0)
    assert not {"networks", "augmentation"} & taught.idle
