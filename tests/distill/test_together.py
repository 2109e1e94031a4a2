"""Every preset: sets that may share a batch get what they get alone, to rounding; the others never share one."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from fedcl.cli.build import compose_config, make, resolve

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

SETS = [({0: 9, 1: 5}, 0), ({2: 7}, 1), ({1: 4, 2: 12, 3: 1}, 2), ({}, 3)]  # other classes and sizes, and none


@cache
def preset(name: str):
    return make(resolve(compose_config("federated", [f"distiller={name}", "distiller.ipc=2"])), "distiller")


def why_apart(name: str) -> set[str]:
    """What keeps a preset's sets apart, of the facts that decide it."""
    distiller = preset(name)
    found = {
        "networks of their own": not distiller.networks.shared,
        "an objective of a whole set": not distiller.objective.batched,
        "numbers of a whole set": bool(distiller.objective.learned_scalars()),
        "arrays of a whole set": not distiller.parameterization.rowwise,
    }
    return {reason for reason, yes in found.items() if yes}


PRESETS = sorted(path.stem for path in (CONFIGS / "distiller").glob("*.yaml"))


def test_reasons_of_published_methods():
    """Selections and DM share everything; for each reason a method that is known to have it, and no other."""
    for name in ("dm", "random", "kmeans", "herding", "k_center"):
        assert not why_apart(name)
    assert why_apart("ncfm") == why_apart("idc") == {"networks of their own"}
    assert why_apart("kip") == {"an objective of a whole set"}
    assert why_apart("dd") == {"an objective of a whole set", "numbers of a whole set"}
    assert why_apart("fred") == {"arrays of a whole set"}


@pytest.mark.parametrize("name", PRESETS)
def test_together_is_apart(name, new_set, ctx):
    """Two updates from real batches, some of a whole class and some drawn; none where something keeps sets apart."""
    distiller = replace(preset(name), batching="together", real_batch=6)
    if why_apart(name):
        assert not distiller.together(torch.device("cpu"))
        return
    distiller = replace(distiller, steps=min(2, distiller.steps))
    assert distiller.together(torch.device("cpu"))
    sets = [new_set(*spec) for spec in SETS]
    batch = distiller.distill(sets, 3, ctx)
    starts = replace(distiller, steps=0).distill(sets, 3, ctx)
    for data, summary, start in zip(sets, batch, starts, strict=True):
        alone = distiller.distill([data], 3, ctx)[0]
        assert summary.origin == alone.origin
        assert set(summary.arrays) == set(alone.arrays)
        for name_, array in alone.arrays.items():
            torch.testing.assert_close(summary.arrays[name_], array, rtol=1e-4, atol=1e-5)
            if len(array) and not distiller.selects:  # updates that are told apart from rounding
                assert float((array - start.arrays[name_]).abs().max()) > 1e-3
        torch.testing.assert_close(summary.targets, alone.targets, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_who_may_share_a_batch_does_so_on_an_accelerator_unless_told_otherwise(name):
    ways = {b: replace(preset(name), batching=b) for b in ("auto", "together", "one_at_a_time")}
    cuda, cpu = ({b: way.together(torch.device(device)) for b, way in ways.items()} for device in ("cuda", "cpu"))
    may = not why_apart(name)
    assert cuda == {"auto": may, "together": may, "one_at_a_time": False}
    assert cpu == {"auto": False, "together": may, "one_at_a_time": False}


@pytest.mark.parametrize("name", ["dc", "fred", "sldd"])
def test_what_stays_apart_is_bit_for_bit_what_it_is_alone(name, new_set, ctx):
    """A kind for each of the reasons that two updates can show quickly, asked to work together all the same."""
    distiller = replace(preset(name), batching="together", steps=2, real_batch=6)
    if "inner" in {field.name for field in fields(distiller.networks)}:
        distiller = replace(distiller, networks=replace(distiller.networks, outer=2, inner=1))
    sets = [new_set(*spec) for spec in SETS[:2]]
    batch = distiller.distill(sets, 3, ctx)
    assert [s.sha256() for s in batch] == [distiller.distill([data], 3, ctx)[0].sha256() for data in sets]
