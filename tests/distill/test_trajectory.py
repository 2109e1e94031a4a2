from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.initializers import Real
from fedcl.distill.inner import call_flat, flatten
from fedcl.distill.labels import Hard
from fedcl.distill.networks.experts import Experts
from fedcl.distill.networks.fresh import Fresh
from fedcl.distill.objectives.trajectory import Trajectory
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation

LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def segment():
    network = MLP(hidden=(6,)).build((1, 4, 4), 3, seed=0).double()
    start_P = flatten(network)
    goal_P = start_P + torch.randn(len(start_P), generator=torch.Generator().manual_seed(3))
    return MatchStep(network=network, start_P=start_P, goal_P=goal_P)


def side():
    images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    where = torch.zeros(4, dtype=torch.int64)
    return MatchBatch(inputs=images, targets=LABELS, segment_N=where, num_segments=1)


def at_rate(segment, rate):
    return replace(segment, scalars={"step_size": torch.tensor([rate], dtype=torch.float64, requires_grad=True)})


def test_normalised_distance_and_its_gradient_equal_full_unrolling(segment):
    synthetic, segment = side(), at_rate(segment, 0.3)
    rate, images = segment.scalars["step_size"], synthetic.inputs
    weights = segment.start_P.clone().requires_grad_()
    for _ in range(8):
        loss = F.cross_entropy(call_flat(segment.network, weights, images), LABELS)
        weights = weights - rate * torch.autograd.grad(loss, weights, create_graph=True)[0]
    wanted = (weights - segment.goal_P).square().sum() / (segment.start_P - segment.goal_P).square().sum()
    found = Trajectory(inner_steps=8).loss(synthetic, None, segment)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)
    for a, b in zip(*(torch.autograd.grad(x, [images, rate]) for x in (found, wanted)), strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


def test_staying_costs_one_and_arriving_nothing(segment):
    assert float(Trajectory(inner_steps=2).loss(side(), None, at_rate(segment, 0.0)).detach()) == pytest.approx(1)
    start_P = segment.start_P.clone().requires_grad_()
    loss = F.cross_entropy(call_flat(segment.network, start_P, side().inputs), LABELS)
    arrived = replace(segment, goal_P=segment.start_P - 0.3 * torch.autograd.grad(loss, start_P)[0])
    loss = Trajectory(inner_steps=1).loss(side(), None, at_rate(arrived, 0.3))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-20)


def sets():
    generator = torch.Generator().manual_seed(0)
    for client, classes in enumerate(([0, 1, 2], [0, 2], [1])):
        labels = torch.tensor(classes * 4)
        images = torch.randint(0, 256, (len(labels), 1, 4, 4), generator=generator, dtype=torch.uint8)
        yield LabeledSet(inputs=images, labels_N=labels, num_classes=3, origin=Origin(client=client))


def distiller(**more):
    numbers = {
        "name": "mtt",
        "objective": Trajectory(inner_steps=2),
        "parameterization": Pixels(),
        "initializer": Real(),
        "augmentation": NoAugmentation(),
        "labels": Hard(),
        "networks": Experts(num_experts=1, max_start=1, stretch=1, batch_size=8),
        "ipc": 1,
        "steps": 3,
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=1.0),
        "lr_scalars": 1e-5,
    }
    return Distiller(**{**numbers, **more})


@pytest.fixture
def ctx():
    units = Normalization(mean=(0.5,), std=(0.5,))
    return Context(
        model=MLP(hidden=(6,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=units, invariances=("flip",)),
        num_classes=3,
    )


def test_the_step_size_is_learned_and_travels_and_a_batch_is_what_one_at_a_time_is(ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = list(sets())
    together = distiller(batching="together").distill(held, 7, ctx)
    for data, summary in zip(held, together, strict=True):
        (alone,) = distiller().distill([data], 7, ctx)
        assert alone.sha256() == summary.sha256()
        assert alone.targets.tolist() == data.labels_N.unique().tolist()
        assert alone.arrays["step_size"].shape == (1,)
        assert float(alone.arrays["step_size"]) != float(torch.tensor(0.01))
    assert len(list((tmp_path / "runs" / "experts").iterdir())) == 3
    (further,) = distiller(steps=1).distill(held[:1], 7, ctx, start=together[:1])
    assert float(further.arrays["step_size"]) != float(together[0].arrays["step_size"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="type networks=experts"):
        distiller(networks=Fresh())
    with pytest.raises(ConfigError, match=r"objective\.inner_steps=0 must be a whole number >= 1"):
        Trajectory(inner_steps=0)


def test_a_loss_that_is_no_number_is_named(ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wild = distiller(objective=Trajectory(inner_steps=60, step_size=1e30))
    with pytest.raises(DistillError, match=r"'mtt': the loss is .* lower distiller\.optimizer\.lr"):
        wild.distill(list(sets())[:1], 7, ctx)
