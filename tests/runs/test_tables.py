"""`dataset=csv` in all three verbs, from the command line: an MLP, its controls, and no pictures."""

import csv
import json

import numpy as np
import pytest
from sklearn.datasets import load_iris

from fedcl.core.errors import ConfigError
from fedcl.distill.files import load_summary
from fedcl.runs.export import export_summary
from fedcl.runs.results import load_run

ROW = 4 * 4 + 1  # bytes of one flower: four float32 and a label


@pytest.fixture
def iris(tmp_path):
    flowers = load_iris()
    with (tmp_path / "iris.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*flowers.feature_names, "species"])
        writer.writerows([*row, flowers.target_names[label]] for row, label in zip(*flowers_of(flowers), strict=True))
    return ("dataset=csv", "dataset.path=iris.csv", "dataset.label=species", "model.hidden=[16]", "quiet=true")


def flowers_of(flowers):
    return flowers.data.tolist(), flowers.target.tolist()


SMALL = ("model=mlp", "distiller.ipc=2", "distiller.steps=3")


@pytest.fixture
def run(command, iris, tmp_path):
    def run(verb: str, *arguments: str) -> dict:
        status, _, err = command(verb, *iris, *arguments, "out=run")
        assert status == 0, err
        return json.loads((tmp_path / "run/record.json").read_text())

    return run


def test_distillation_with_all_controls(run, command, tmp_path):
    record = run("distill", *SMALL, "evaluation.nets=1", "evaluation.controls=[random,herding,kmeans]")
    part = record["distillation"]
    assert part["payload_bytes"] == {"images": 6 * 16, "labels": 6}
    assert set(part["controls"]) == {"random", "herding", "kmeans"}
    for control in part["controls"].values():
        assert (control["images"], control["bytes"]) == (6, 6 * ROW)
    assert part["accuracy"]["mean"] > 0.6  # a third is chance
    augmentation = {"_target_": "fedcl.training.augmentation.NoAugmentation"}
    assert record["config"]["distiller"]["augmentation"] == augmentation  # as if it had been typed
    assert record["config"]["evaluation"]["training"]["augmentation"] == augmentation
    summary = load_summary(tmp_path / "run/summaries/summary.safetensors")
    assert (summary.inputs.shape, summary.inputs.dtype) == ((4,), "float32")
    lengths = np.load(export_summary(summary, "flowers.npz"))["rows"][:, 0]
    assert 4 < lengths.min() < lengths.max() < 8  # centimetres
    with pytest.raises(ConfigError, match=r"make no picture; name flowers\.npz"):
        export_summary(summary, "flowers.png")
    assert not (tmp_path / "run/summaries.png").exists()
    assert command("report", "run", "out=page")[0] == 0


@pytest.mark.parametrize("wire", ["float32", "uint8"])
def test_real_rows_in_one_round(run, wire, tmp_path):
    rows = run("federated", *SMALL, "distiller=random", "scenario.num_clients=2", f"wire={wire}")["rounds"]
    (entry,) = rows
    assert entry["accuracy"] > 0.6
    ledger = list(csv.DictReader((tmp_path / "run/ledger.csv").open()))
    sent = [dict(p.split(":") for p in line["parts"].split(";")) for line in ledger if "images" in line["parts"]]
    assert sum(int(part["labels"]) for part in sent) == entry["summaries"]["decoded_images"]
    if wire == "float32":
        assert all(int(part["images"]) == 16 * int(part["labels"]) for part in sent)
    else:  # a byte a number, and two float32 a column and client
        assert all((int(p["images"]), int(p["constants"])) == (4 * int(p["labels"]), 4 * 2 * 4) for p in sent)
    assert (tmp_path / "run/partition.png").exists()
    assert not (tmp_path / "run/summaries.png").exists()


def test_weights_are_averaged(run):
    record = run("federated", "model=mlp", "strategy=fedavg", "num_rounds=2", "scenario.num_clients=2")
    assert record["rounds"][-1]["accuracy"] > 0.6


@pytest.mark.parametrize("strategy", ["replay", "distilled_replay"])
def test_a_stream_of_classes(run, command, strategy, tmp_path):
    record = run("continual", *SMALL, f"strategy={strategy}", "scenario.num_steps=3", "buffer.ipc=2")
    assert record["accuracy"]["last"] > 0.6
    assert record["memory"]["stored_images"] == 6
    assert record["memory"]["bytes"] == 6 * ROW
    (memory,) = load_run("run").summaries()
    assert (memory.inputs.shape, memory.inputs.dtype, len(memory.targets)) == ((4,), "float32", 6)
    assert not (tmp_path / "run/buffer.png").exists()
    assert command("report", "run", "out=page")[0] == 0


def test_a_model_and_augmentations_for_rows_are_the_defaults(command, iris, tmp_path):
    """Without a word about the network; `model.hidden` of the fixture is about an MLP, and left out here."""
    arguments = [argument for argument in iris if not argument.startswith("model.")]
    status, _, err = command(
        "federated", *arguments, "strategy=one_shot", "distiller=random", "scenario.num_clients=2",
        "strategy.training.updates=5", "out=run",
    )  # fmt: skip
    assert status == 0, err
    config = json.loads((tmp_path / "run/record.json").read_text())["config"]
    assert config["model"] == {"_target_": "fedcl.models.mlp.MLP", "hidden": [400, 400]}
    assert config["strategy"]["training"]["augmentation"] == {"_target_": "fedcl.training.augmentation.NoAugmentation"}


@pytest.mark.parametrize(
    ("verb", "typed", "words"),
    [
        ("distill", ("model=convnet", "model.width=8"), "model (ConvNet); type model=mlp"),
        ("federated", ("model=mlp", "augmentation=siamese"), "type augmentation=none"),
        ("distill", ("model=mlp", "distiller=idc"), "type parameterization=pixels initializer=real"),
        ("distill", ("model=mlp", "distiller=fred"), "type parameterization=pixels"),
        ("distill", ("model=mlp", "evaluation.architectures=[convnet]"), "ConvNet reads images"),
        ("continual", ("model=mlp", "strategy=gdumb"), "type strategy.crop=0"),
        ("continual", ("model=mlp", "scenario=domain_incremental"), "changes images"),
        ("distill", ("model=mlp", "dataset.label=genus"), "iris.csv has no column 'genus'; it has sepal length (cm)"),
    ],
)
def test_what_is_about_images_is_one_line_and_exit_2(command, iris, tmp_path, verb, typed, words):
    arguments = [argument for argument in iris if not (argument.startswith("model.") and "model=convnet" in typed)]
    status, _, err = command(verb, *arguments, *typed, "out=run")
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
