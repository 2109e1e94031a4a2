"""Accuracy on hand-made networks, and the laws of the fair protocol."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import Normalization
from fedcl.core.types import LabeledSet
from fedcl.protocol.evaluation import Evaluation, Score
from fedcl.training.augmentation import Siamese
from fedcl.training.evaluation import accuracy, correct
from fedcl.training.recipe import Training

PLAIN = Normalization(mean=(0.0,), std=(1.0,))


class Brightest(nn.Module):
    """Scores are the first three pixels: the class is the place of the brightest."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, :3]


def four_images():
    pixels = torch.tensor([[9, 1, 1, 0], [1, 9, 1, 0], [1, 1, 9, 0], [9, 1, 1, 0]], dtype=torch.uint8)
    return LabeledSet(inputs=pixels.view(4, 1, 2, 2), labels_N=torch.tensor([0, 1, 2, 2]), num_classes=3)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_three_of_four_are_right_and_the_mode_is_restored(chunk):
    network = Brightest().train()
    assert correct(network, four_images(), PLAIN, chunk).tolist() == [True, True, True, False]
    assert accuracy(network, four_images(), PLAIN) == 0.75
    assert network.training


def test_an_empty_set_has_no_right_answers():
    assert len(correct(Brightest(), four_images().select([]), PLAIN)) == 0


def test_score_is_mean_and_sample_deviation():
    score = Score(values=(0.5, 0.75, 1.0))
    assert score.part() == {"mean": 0.75, "std": 0.25, "nets": 3, "values": [0.5, 0.75, 1.0]}
    assert score.std == pytest.approx(statistics.stdev(score.values))
    assert Score(values=(0.5,)).std is None


def test_trainings_by_name():
    both = Evaluation(training=Training(updates=1, augmentation=Siamese()))
    assert list(both.trainings()) == ["augmented", "plain"]
    assert list(replace(both, plain=False).trainings()) == ["augmented"]
    assert list(Evaluation(training=Training(updates=1)).trainings()) == ["plain"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"training": Training(epochs=3)}, "updates"),
        ({"nets": 0}, "nets"),
        ({"control_pixels": "jpeg"}, "uint8"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_bad_evaluations_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        Evaluation(**({"training": Training(updates=1)} | change))
