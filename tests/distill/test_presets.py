"""Every preset under one contract, found by globbing: a new YAML is tested the moment it exists."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from fedcl.cli.build import compose_config, make, resolve
from fedcl.distill.blobs import encode
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.initializers import Mosaic
from fedcl.distill.networks.interpolated import Interpolated
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.models.convnet import ConvNet

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = sorted(path.stem for path in (CONFIGS / "distiller").glob("*.yaml"))

SETS = [({0: 9, 1: 3}, 0), ({2: 5}, 1), ({1: 4, 2: 4, 3: 1}, 2)]  # different classes and sizes


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Some presets keep files below the current folder; what one test made serves the others."""
    folder = tmp_path_factory.getbasetemp() / "presets"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)


@cache
def distiller_of(name: str):
    config = resolve(compose_config("federated", [f"distiller={name}", "distiller.ipc=1"]))
    distiller = make(config, "distiller")
    networks = distiller.networks
    if "num_experts" in {field.name for field in fields(networks)}:  # trained beforehand: few are enough here
        networks = replace(networks, num_experts=1, max_start=0)
    if isinstance(networks, Interpolated):
        networks = replace(networks, size=2, epochs=1)
    return replace(distiller, networks=networks, steps=min(2, distiller.steps), real_batch=6)


@pytest.fixture(params=PRESETS)
def preset(request):
    return distiller_of(request.param)


def test_a_preset_is_named_after_its_file():
    for name in PRESETS:
        assert distiller_of(name).name == name


def test_a_mosaic_fits_its_zoom():
    for name in PRESETS:
        distiller = distiller_of(name)
        if isinstance(distiller.initializer, Mosaic) and isinstance(distiller.parameterization, Zoom):
            assert distiller.initializer.factor == distiller.parameterization.factor, name


@pytest.mark.parametrize(("typed", "rate"), [((), 0.1), ((1,), 0.01), ((50,), 0.5), ((1, 0.3), 0.3)])
def test_the_rate_of_idc_follows_the_images_a_class(typed, rate):
    """Kim et al., ICML 2022, public code: lr_img * ipc / 10; what is typed stays what it is."""
    keys = ("distiller.ipc", "distiller.optimizer.lr")
    overrides = [f"{key}={value}" for key, value in zip(keys, typed, strict=False)]
    distiller = make(resolve(compose_config("distill", ["distiller=idc", *overrides])), "distiller")
    assert distiller.optimizer.keywords["lr"] == pytest.approx(rate)


def test_published_numbers_are_fractions(preset):
    for table in preset.published.values():
        assert all(isinstance(ipc, int) and 0 < accuracy < 1 for ipc, accuracy in table.items())


def test_the_contract(preset, new_set, ctx, tmp_path):
    """One set and three, whatever classes they hold; bytes; files."""
    sets = [new_set(*spec) for spec in SETS]
    weights = ctx.new_model(0).state_dict()
    batch = replace(preset, batching="together").distill(sets, 3, ctx, weights=weights)
    assert len(batch) == 3
    for data, summary in zip(sets, batch, strict=True):
        alone = preset.distill([data], 3, ctx, weights=weights)[0]
        for name, array in alone.arrays.items():
            torch.testing.assert_close(summary.arrays[name], array, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(summary.targets, alone.targets, atol=1e-5, rtol=1e-5)
        images, targets = summary.decode()
        assert images.shape[1:] == (1, 8, 8)
        assert images.isfinite().all()
        assert len(images) == len(targets) == summary.num_images > 0
        classes = targets if not targets.is_floating_point() else targets.argmax(1)
        assert set(classes.tolist()) <= set(data.labels_N.tolist())
        assert encode(summary).num_bytes > 0
        path = tmp_path / "summary.safetensors"
        save_summary(summary, path)
        assert load_summary(path).sha256() == summary.sha256()


def test_a_preset_works_in_bfloat16(preset, new_set, ctx):
    narrow = replace(ctx, model=ConvNet(width=4, precision="bfloat16"))
    weights = narrow.new_model(0).state_dict()
    [summary] = preset.distill([new_set({0: 9, 1: 9})], 3, narrow, weights=weights)
    images, _ = summary.decode()
    assert images.dtype == torch.float32
    assert images.isfinite().all()


def test_steps_move_what_is_learned(preset, new_set, ctx):
    if preset.selects:
        pytest.skip("a selection moves nothing")
    data = new_set({0: 9, 1: 3})
    start, end = (replace(preset, steps=steps).distill([data], 3, ctx)[0] for steps in (0, 2))
    moved = [not torch.equal(start.arrays[name], end.arrays[name]) for name in start.arrays]
    assert any(moved) or not torch.equal(start.targets, end.targets)
