"""No option of a training or of an evaluation is accepted and ignored: every field changes what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.models.mlp import MLP
from fedcl.models.resnet import ResNet
from fedcl.protocol.controls import make_control
from fedcl.protocol.evaluation import Evaluation, Evaluator
from fedcl.protocol.scores import evaluate_summary
from fedcl.training.augmentation import NoAugmentation, Siamese
from fedcl.training.loop import train
from fedcl.training.recipe import Training

UNITS = Normalization(mean=(0.5,), std=(0.5,))


@dataclass(frozen=True)
class To:
    """The value to change to, and what else both sides need for it to show."""

    value: Any
    base: dict[str, Any] = field(default_factory=dict)


TRAINING = {
    "updates": To(5),
    "epochs": To(2, {"updates": None, "epochs": 1}),
    "batch_size": To(3),
    "min_batch": To(4, {"batch_size": 5}),
    "optimizer": To("adam"),
    "lr": To(0.05),
    "momentum": To(0.5),
    "weight_decay": To(0.1),
    "clip": To(0.01),
    "schedule": To("cosine"),
    "lr_min": To(0.05, {"schedule": "cosine"}),
    "milestones": To((0.25,)),
    "decay": To(0.5),
    "rates": To((1.0, 0.5, 0.25, 0.1)),
    "average": To(0.5),
    "loss": To("mse"),
    "augmentation": To(Siamese()),
}
EVALUATION = {
    "training": To(Training(updates=100, batch_size=4, lr=0.1, augmentation=Siamese())),
    "nets": To(2),
    "plain": To(False),
    "controls": To(("herding",)),
    "control_pixels": To("uint8"),
    "architectures": To(("resnet",)),
    "full": To(True),
}
ELSEWHERE = {
    "held_out": "tests/runs/test_distill.py::test_hyper_parameters_are_chosen_on_a_part_of_the_training_set",
    "cache": "tests/protocol/test_cache.py",
}


def test_the_tables_have_every_field():
    assert set(TRAINING) == {entry.name for entry in fields(Training)}
    assert set(EVALUATION) | set(ELSEWHERE) == {entry.name for entry in fields(Evaluation)}


def labelled(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 200, (count, 1, 4, 4), generator=generator) + 55 * labels[:, None, None, None]
    return LabeledSet(inputs=images.to(torch.uint8), labels_N=labels, num_classes=2)


@pytest.mark.parametrize("name", TRAINING)
def test_a_field_of_a_training_changes_the_weights(name):
    data, model, entry = labelled(8, 0), MLP(hidden=(5,)), TRAINING[name]

    def weights(training):
        network = train(model.build((1, 4, 4), 2, 0), data.inputs, data.labels_N, training, seed=1, spec=UNITS)
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    training = Training(**({"updates": 4, "batch_size": 4, "lr": 0.1, "augmentation": NoAugmentation()} | entry.base))
    assert not torch.equal(weights(training), weights(replace(training, **{name: entry.value})))


@pytest.mark.parametrize("name", EVALUATION)
def test_a_field_of_an_evaluation_changes_what_is_found(name):
    train, test = labelled(24, 0), labelled(300, 1)
    ctx = Context(
        model=MLP(hidden=(5,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=UNITS, invariances=("flip",)),
        num_classes=2,
    )
    [summary] = Distiller(steps=0, ipc=2).distill([train], 0, ctx)
    summary = replace(summary, arrays={"images": summary.decode()[0]})  # numbers, not the pixels that were chosen
    models = {"resnet": ResNet(width=2, blocks=(1,))}

    def found(evaluation):
        evaluator = Evaluator(ctx=ctx, test=test, seed=0)
        controls = [
            make_control(
                kind,
                summary,
                train,
                InputSpec(shape=train.shape, preprocess=UNITS),
                seed=3,
                nets=evaluation.nets,
                pixels=evaluation.control_pixels,
            )
            for kind in evaluation.controls
        ]
        chosen = {name: models[name] for name in evaluation.architectures}
        record: dict[str, Any] = {}
        for part in evaluate_summary(
            summary, controls, evaluator, evaluation, chosen, train if evaluation.full else None
        ):
            record |= part
        return record

    training = Training(updates=3, batch_size=4, augmentation=Siamese())
    evaluation = Evaluation(training=training, nets=1, controls=("random",))
    assert found(evaluation) == found(evaluation)
    assert found(evaluation) != found(replace(evaluation, **{name: EVALUATION[name].value}))
