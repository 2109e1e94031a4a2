from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet
from fedcl.distill.networks import experts
from fedcl.distill.networks.base import NetworkSource
from fedcl.distill.networks.experts import Experts, path_of, read_weights, save_expert
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation

UNITS = InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.5,)))


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (12, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return LabeledSet(inputs=images, labels_N=torch.arange(12) % 3, num_classes=3)


def source(model=None, held=None, seed=1):
    model = model or MLP(hidden=(5,))
    return NetworkSource(
        new_model=lambda s: model.build((1, 4, 4), 3, s),
        seed=seed,
        augmentation=NoAugmentation(),
        sets=(held or data(),),
        inputs=UNITS,
    )


@pytest.fixture
def networks(tmp_path):
    return Experts(folder=str(tmp_path / "experts"), num_experts=2, max_start=2, stretch=2, batch_size=4, lr=0.1)


def test_every_step_is_a_stretch_of_one_expert(networks, tmp_path):
    networks = networks.open(source())
    from safetensors.torch import load_file

    weights = [load_file(path_of(tmp_path / "experts", e))["weights"] for e in range(2)]
    assert weights[0].shape == (5, 16 * 5 + 5 + 5 * 3 + 3)
    starts = set()
    for step in range(30):
        segment = networks.at(step)
        (at,) = [(e, t) for e in range(2) for t in range(5) if torch.equal(weights[e][t], segment.start_P)]
        assert torch.equal(weights[at[0]][at[1] + 2], segment.goal_P)
        starts.add(at)
    assert starts == {(e, t) for e in range(2) for t in range(3)}


def test_an_epoch_is_plain_sgd_on_the_real_data(networks, tmp_path):
    """With one batch an epoch, a row of the file is one gradient step from the row before."""
    whole = replace(networks, batch_size=12)
    whole.open(source())
    from safetensors.torch import load_file

    weights = load_file(path_of(tmp_path / "experts", 0))["weights"]
    network = source().new_model(0)
    with torch.no_grad():
        sizes = [p.numel() for p in network.parameters()]
        for p, values in zip(network.parameters(), weights[0].split(sizes), strict=True):
            p.copy_(values.view_as(p))
    images = UNITS.apply(data().inputs)
    loss = torch.nn.functional.cross_entropy(network(images), data().labels_N)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
    assert torch.allclose(weights[1], weights[0] - 0.1 * gradient, atol=1e-6)


def test_experts_are_shared_between_runs_and_an_interrupted_run_goes_on(networks, tmp_path, monkeypatch):
    networks.open(source(seed=1))
    first, second = (path_of(tmp_path / "experts", e).read_bytes() for e in range(2))
    path_of(tmp_path / "experts", 1).unlink()
    fits = []
    plain = experts.train
    monkeypatch.setattr(experts, "train", lambda *a, **k: fits.append(1) or plain(*a, **k))
    networks.open(source(seed=2))
    assert len(fits) == 4  # one expert of 4 epochs
    assert path_of(tmp_path / "experts", 0).read_bytes() == first
    assert path_of(tmp_path / "experts", 1).read_bytes() == second
    replace(networks, num_experts=1).open(source())
    assert len(fits) == 4


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"held": data(1)}, "another data set"),
        ({"model": MLP(hidden=(6,))}, "another model"),
        ({"lr": 0.2}, "other training"),
        ({"max_start": 3}, "other training"),
    ],
)
def test_a_folder_of_other_experts_is_refused(networks, other, word):
    networks.open(source())
    numbers = {k: v for k, v in other.items() if k in ("lr", "max_start")}
    rest = {k: v for k, v in other.items() if k not in numbers}
    with pytest.raises(DistillError, match=rf"{word}; type networks\.folder=null"):
        replace(networks, **numbers).open(source(**rest))


def test_no_folder_means_one_for_each_kind(networks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    free = replace(networks, folder=None)
    free.open(source())
    free.open(source(held=data(1)))
    free.open(source())
    assert len(list((tmp_path / "runs" / "experts").iterdir())) == 2


def test_damage_is_named(networks, tmp_path):
    networks.open(source())
    path_of(tmp_path / "experts", 0).write_bytes(b"no")
    path_of(tmp_path / "experts", 1).write_bytes(b"no")
    with pytest.raises(DistillError, match=r"expert-000\d\.safetensors is no readable.*remove the file"):
        networks.open(source()).at(0)
    for text in ("{", "[" * 100_000):
        (tmp_path / "experts" / "experts.json").write_text(text)
        with pytest.raises(DistillError, match="cannot be read"):
            networks.open(source())
    (tmp_path / "experts" / "experts.json").write_text(json.dumps([]))
    with pytest.raises(DistillError, match="another data set and another model"):
        networks.open(source())
    (tmp_path / "experts" / "experts.json").unlink()
    with pytest.raises(DistillError, match=r"no experts\.json"):
        networks.open(source())


def test_weights_of_an_expert_that_do_not_fit_are_refused(tmp_path):
    for weights, said in [
        (torch.zeros(3, 5), r"\[2, 5\] is not float32 \[2, 4\]"),
        (torch.zeros(3), "is not float32"),
        (torch.zeros(3, 4, dtype=torch.float64), "float64"),
        (torch.full((3, 4), float("nan")), "NaN"),
        (torch.zeros(2, 4), "IndexError|out of"),
    ]:
        save_expert(tmp_path, 0, weights)
        with pytest.raises(DistillError, match=rf"expert-0000.*({said}).*remove the file"):
            read_weights(tmp_path, 0, (0, 2), 4)


def test_what_cannot_work_is_refused_before_training(networks):
    with pytest.raises(DistillError, match=r"model\.norm=instance"):
        networks.open(source(model=ConvNet(width=2, depth=1, norm="batch")))
    with pytest.raises(DistillError, match=r"distiller\.batching=one_at_a_time"):
        networks.open(replace(source(), sets=(data(), data())))
    with pytest.raises(ConfigError, match=r"networks\.num_experts"):
        Experts(num_experts=0)
