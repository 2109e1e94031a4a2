"""Fair evaluation: a summary's own unrolled training, and the published schedules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fedcl.cli.build import compose_config, make, resolve
from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.inner import InnerOptimizer, call_flat, flatten
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.models.mlp import MLP
from fedcl.protocol.evaluation import Evaluator, TrainSet, unrolled_training
from fedcl.training.loop import train
from fedcl.training.recipe import Training

UNITS = Normalization(mean=(0.5,), std=(0.25,))
ANY = Training(updates=200, lr=0.3, loss="mse")


def summary(soft=False, **arrays):
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3
    return Summary(
        arrays={"images": images, **arrays},
        targets=F.one_hot(labels, 3).float() * 0.7 + 0.1 if soft else labels,
        num_source_C=torch.tensor([9, 9, 9]),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=UNITS),
        decoder=Pixels(),
        method="dd",
    )


@pytest.mark.parametrize("soft", [False, True])
def test_an_unrolled_training_is_the_one_that_the_objective_went_through(soft):
    """Three steps of gradient descent at the learned sizes, written out, on whatever labels were learned."""
    raw = torch.tensor([-1.0, 0.5, 1.0])
    one = summary(soft, raw_step_sizes=raw)
    training = unrolled_training(Training(updates=200), one)
    model = MLP(hidden=(6,)).build((1, 4, 4), 3, seed=0)
    weights = flatten(model).requires_grad_()
    images, targets = one.decode()
    for rate in F.softplus(raw):
        loss = F.cross_entropy(call_flat(model, weights, images), targets)
        weights = weights - rate * torch.autograd.grad(loss, weights)[0]
    assert training is not None
    train(model, images, targets, training, seed=5)
    torch.testing.assert_close(flatten(model), weights.detach(), atol=1e-6, rtol=1e-5)


def test_what_an_unrolled_training_holds():
    training = unrolled_training(ANY, summary(raw_step_sizes=torch.zeros(4)))
    assert training is not None
    assert training.rates == pytest.approx([0.6931472] * 4)  # ln 2
    assert (training.updates, training.batch_size, training.loss) == (4, 6, "mse")
    assert (training.lr, training.momentum, training.weight_decay, training.optimizer) == (1.0, 0.0, 0.0, "sgd")
    assert unrolled_training(ANY, summary()) is None
    assert unrolled_training(ANY, summary(step_size=torch.tensor([0.1]))) is None


def test_only_plain_descent_gives_its_step_sizes_that_name():
    assert list(Unrolled().learned_scalars()) == ["raw_step_sizes"]
    for other in (
        Unrolled(inner_batch=4),
        Unrolled(inner=InnerOptimizer(kind="adam")),
        Unrolled(inner=InnerOptimizer(momentum=0.9)),
    ):
        assert list(other.learned_scalars()) == ["raw_inner_rates"]
    assert Unrolled(learn_step_sizes=False).learned_scalars() == {}


def test_a_judge_uses_the_learned_steps():
    """Steps of almost nothing leave chance; steps that suit the images classify them."""
    one = summary()
    test = LabeledSet(
        inputs=((one.arrays["images"] * 0.25 + 0.5) * 255).clamp(0, 255).to(torch.uint8),
        labels_N=one.targets,
        num_classes=3,
    )
    ctx = Context(
        model=MLP(hidden=(32,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=UNITS, invariances=("flip",)),
        num_classes=3,
    )
    evaluator = Evaluator(ctx=ctx, test=test, seed=0)
    still, moving = (
        unrolled_training(Training(updates=1), summary(raw_step_sizes=torch.full((20,), size))) for size in (-30.0, 1.0)
    )
    train_set = TrainSet(make=one.decode)
    assert still is not None
    assert moving is not None
    assert evaluator.score([train_set], moving, 3).mean == 1.0
    assert evaluator.score([train_set], still, 3).mean < 0.7


def test_rates_take_the_place_of_a_schedule():
    training = Training(updates=3, lr=2.0, rates=[0.5, 0.1, 0.4])
    assert [training.factor(t, 3) for t in range(3)] == [0.5, 0.1, 0.4]
    for wrong in ({"updates": 2}, {"epochs": 3}, {"updates": 3, "rates": (1.0, 0.0, 1.0)}):
        with pytest.raises(ConfigError, match=r"training\.rates"):
            Training(**({"rates": (1.0, 1.0, 1.0)} | wrong))


def test_milestones():
    """IDC: x 0.2 after 2/3 and 5/6; everybody else x 0.1 at the middle."""
    evaluation = make(resolve(compose_config("distill", ["evaluation=idc"])), "evaluation")
    training = evaluation.training
    factors = [training.factor(t, 12) for t in range(12)]
    assert factors == pytest.approx([1.0] * 8 + [0.2] * 2 + [0.04] * 2)
    assert training.augmentation.cutmix == 0.5
    assert "cutout" not in training.augmentation.groups + training.augmentation.always
    usual = make(resolve(compose_config("distill", [])), "evaluation").training
    assert [usual.factor(t, 9) for t in range(9)] == [1.0] * 5 + [0.1] * 4
    assert usual.augmentation.cutmix == 0
    for wrong in ({"milestones": (2.0,)}, {"decay": 0.0}):
        with pytest.raises(ConfigError, match=f"training.{next(iter(wrong))}"):
            Training(updates=3, **wrong)
