"""The public face: every name resolves, says what it is, and is one that a type checker sees; importing is free."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fedcl
from fedcl.core.errors import FedclError, RunError

pytestmark = pytest.mark.usefixtures("blank_pictures")
ROOT = Path(fedcl.__file__).resolve().parents[1]
TINY = ("distiller=random", "distiller.ipc=1", "model=mlp", "model.hidden=[8]", "device=cpu", "quiet=true")


@pytest.mark.parametrize("name", fedcl.PUBLIC)
def test_a_name_resolves_and_has_a_docstring(name):
    found = getattr(fedcl, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{found.__name__}("), "a dataclass has a docstring of its own"
    assert name in dir(fedcl)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(fedcl))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            renamed = alias.asname is not None
            seen[alias.asname or alias.name] = f"{node.module}:{alias.name}" if renamed else node.module
    assert seen == fedcl.PUBLIC


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match=r"fedcl has no 'run'; it has .*run_federated"):
        fedcl.run  # noqa: B018


def test_importing_fedcl_imports_nothing():
    code = "import sys, fedcl; print(*{name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names}, "
    code += "*[name for name in sys.modules if name.startswith('fedcl.')])"
    bare = "import sys; print(*{name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names})"
    found, before = (
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for text in (code, bare)
    )
    assert {*found.split()} - {*before.split()} == {"fedcl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One tiny run of every verb."""
    from fedcl.cli.main import main

    place = tmp_path_factory.mktemp("runs")
    updates = ("strategy.training.updates=3", "strategy.training.epochs=null")
    judged = ("evaluation.nets=1", "evaluation.training.updates=2", "evaluation.cache=null", "evaluation.plain=false")
    runs = {
        "federated": ("scenario.num_clients=2", "scenario.alpha=5.0", "strategy.training.updates=3"),
        "averaged": ("strategy=fedavg", "num_rounds=1", "scenario.num_clients=2", "scenario.alpha=5.0", *updates),
        "continual": ("scenario.num_steps=2", "strategy=icarl", "buffer.ipc=1", *updates),
        "finetune": ("scenario.num_steps=2", "strategy=finetune", *updates),
        "distill": judged,
    }
    for name, typed in runs.items():
        verb = {"averaged": "federated", "finetune": "continual"}.get(name, name)
        assert main([verb, *TINY, *typed, f"out={place / name}"]) == 0
    return place


@pytest.mark.parametrize("name", ["federated", "averaged", "continual", "finetune"])
def test_a_loaded_model_has_the_accuracy_of_the_record(name, folder):
    run = fedcl.load_run(folder / name)
    test = run.job().source.load().test
    model = run.model().eval()
    with torch.no_grad():
        scores = model(run.job().source.load().inputs.apply(test.inputs))
    accuracy = float((scores.argmax(1) == test.labels_N).float().mean())
    assert accuracy == pytest.approx(run.record["accuracy"]["last"], abs=1e-6)


def test_a_loaded_job_has_the_settings_of_the_record(folder):
    from fedcl.core.describe import settings_of
    from fedcl.runs.checkpoint import differences

    for path in sorted(folder.iterdir()):
        run = fedcl.load_run(path)
        assert differences(run.record["config"], settings_of(run.job())) == []


def test_summaries_and_their_export(folder, tmp_path):
    for name, count in (("federated", 2), ("distill", 1), ("continual", 1)):
        found = fedcl.load_run(folder / name).summaries()
        assert len(found) == count
        images, targets = found[0].decode()
        fedcl.export_summary(found[0], tmp_path / "some" / "it.npz")
        with np.load(tmp_path / "some" / "it.npz") as file:
            assert file["images"].shape == tuple(images.shape)
            assert file["images"].dtype == np.uint8
            back = found[0].inputs.apply(torch.from_numpy(file["images"]))
            assert torch.allclose(back, images, atol=0.5 / 255 / min(found[0].inputs.preprocess.std) + 1e-6)
            assert file["labels"].tolist() == targets.tolist()
        assert fedcl.export_summary(found[0], tmp_path / "it.png").is_file()
        pairs = fedcl.torch_dataset(found[0])
        assert len(pairs) == len(targets)
        assert torch.equal(pairs[0][0], images[0])
    with pytest.raises(FedclError, match=r"name the file \.png or \.npz"):
        fedcl.export_summary(found[0], tmp_path / "it.csv")


def test_what_a_run_does_not_have_is_said(folder, tmp_path):
    with pytest.raises(RunError, match="no network"):
        fedcl.load_run(folder / "distill").model()
    with pytest.raises(RunError, match="has no summaries"):
        fedcl.load_run(folder / "averaged").summaries()
    with pytest.raises(RunError, match="no record"):
        fedcl.load_run(tmp_path)


def test_a_record_makes_no_foreign_class(folder):
    run = fedcl.load_run(folder / "averaged")
    run.record["config"]["model"]["_target_"] = "os.system"
    with pytest.raises(FedclError, match=r"model._target_=os.system is not allowed"):
        run.job()
