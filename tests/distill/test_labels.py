from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.distill.labels import Hard, Kernel, Logits
from fedcl.models.mlp import MLP
from fedcl.training.loop import train
from fedcl.training.losses import probabilities, regression
from fedcl.training.recipe import Training

LABELS = torch.tensor([0, 3, 1])


def test_hard_labels_stay():
    assert not Hard().learnable
    assert torch.equal(Hard().decode(Hard().initial(LABELS, 4)), LABELS)


def test_logits_start_with_the_confidence_that_was_asked_for():
    rule = Logits(confidence=0.7)
    targets = rule.decode(rule.initial(LABELS, 4))
    wanted = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0.1, 0.7, 0.1, 0.1]])
    assert torch.allclose(targets, wanted)
    with pytest.raises(ConfigError, match=r"labels\.confidence=1"):
        Logits(confidence=1)


def test_kernel_labels_start_centred_and_scaled_and_decode_to_one_hot():
    rule = Kernel()
    values = rule.initial(LABELS, 40)
    assert values[0, 0] == pytest.approx((1 - 1 / 40) / 2)
    assert values[0, 1] == pytest.approx(-1 / 80)
    assert torch.allclose(rule.decode(values), F.one_hot(LABELS, 40).float(), atol=1e-7)


@pytest.mark.parametrize("rule", [Logits(), Kernel()], ids=["logits", "kernel"])
def test_a_distillation_can_go_on_from_its_targets(rule):
    targets = rule.decode(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(rule.decode(rule.encode(targets)), targets, atol=1e-6)


def test_regression_on_one_hot_rows_and_on_classes_agrees():
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(regression(scores, LABELS), regression(scores, F.one_hot(LABELS, 4).float()))
    assert float(regression(torch.tensor([[-0.25, -0.25, -0.25, 0.75]]), LABELS[1:2])) == 0


def test_probabilities_are_projected_only_where_they_are_none():
    soft = torch.tensor([[0.2, 0.8], [1.5, -0.5], [0.6, 0.6], [-1.0, -1.0]])
    assert probabilities(soft).tolist() == [pytest.approx(r) for r in ([0.2, 0.8], [1.0, 0.0], [0.5, 0.5], [0, 0])]
    assert torch.equal(probabilities(soft[:1]), soft[:1])
    assert probabilities(LABELS) is LABELS


def test_regression_is_half_the_squared_distance_to_centred_labels():
    scores = torch.tensor([[0.5, -0.5], [0.0, 0.0]])
    assert float(regression(scores, torch.tensor([0, 1]))) == pytest.approx(0.125)  # (0 + (0.25 + 0.25) / 2) / 2
    assert float(regression(scores, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))) == pytest.approx(0.125)


def test_training_by_regression_reaches_the_scores():
    images = torch.eye(4).view(4, 1, 2, 2)
    targets = torch.tensor([[1.2, 0.1, -0.3], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]])
    model = MLP(hidden=(32,)).build((1, 2, 2), 3, seed=0)
    training = Training(updates=200, optimizer="adam", lr=0.02, weight_decay=0, schedule="cosine", loss="mse")
    train(model, images, targets, training, seed=0)
    assert torch.allclose(model(images), targets - 1 / 3, atol=1e-2)
    with pytest.raises(ConfigError, match=r"training\.loss=l1 must be one of cross_entropy, mse; type"):
        Training(updates=1, loss="l1")
