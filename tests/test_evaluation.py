"""Accuracy on hand-made networks, and the laws of the fair protocol."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedcl.augmentation import Siamese
from fedcl.errors import ConfigError
from fedcl.evaluation import accuracy, correct
from fedcl.fair import Evaluation, Judge, Lot, Score, code_version, digest_of
from fedcl.models.mlp import MLP
from fedcl.progress import Progress
from fedcl.training import Training
from fedcl.types import LabeledSet, Normalization
from fedcl.workbench import Workbench

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
    return LabeledSet(images_NCHW=pixels.view(4, 1, 2, 2), labels_N=torch.tensor([0, 1, 2, 2]), num_classes=3)


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


class Count(Progress):
    """How many networks were trained."""

    def __init__(self):
        self.trained = 0

    def begin(self, task, total):
        self.trained += task == "training"


@pytest.fixture
def world(tmp_path):
    """A judge of two separable classes, a lot to train on, and a count of trainings."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randint(0, 100, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = (labels * 250).to(torch.uint8)
    test = LabeledSet(images_NCHW=images, labels_N=labels, num_classes=2)
    count = Count()
    bench = Workbench(model=MLP(hidden=(8,)), normalization=PLAIN, shape_CHW=(1, 4, 4), num_classes=2, progress=count)
    judge = Judge(bench=bench, test=test, seed=0, cache=tmp_path / "cache")
    lot = Lot(digest="all", make=lambda: (PLAIN.apply(images), labels))
    return judge, lot, count


TRAINING = Training(updates=30, batch_size=16, lr=0.1)


def test_networks_differ_and_answers_repeat(world):
    judge, lot, _ = world
    score = judge.score([lot], TRAINING, 4)
    assert score.mean > 0.7  # the classes are separable, chance is 0.5
    assert judge.score([lot], TRAINING, 4) == score
    assert replace(judge, cache=None).score([lot], TRAINING, 4) == score
    few = replace(judge, cache=None).score([lot], replace(TRAINING, updates=1), 4)
    assert len(set(few.values)) > 1  # seeds differ between networks
    assert replace(judge, cache=None, seed=1).score([lot], replace(TRAINING, updates=1), 4) != few


def test_uint8_images_are_normalised_like_the_test_set(world):
    judge, lot, _ = world
    raw = Lot(digest="raw", make=lambda: (judge.test.images_NCHW, judge.test.labels_N))
    assert judge.score([raw], TRAINING, 2) == judge.score([lot], TRAINING, 2)


def test_the_cache_answers_for_the_same_question_only(world):
    judge, lot, count = world
    judge.score([lot], TRAINING, 2)
    assert count.trained == 2
    judge.score([lot], TRAINING, 3)  # two are known
    assert count.trained == 3
    changes = (
        lambda: judge.score([replace(lot, digest="other")], TRAINING, 1),
        lambda: judge.score([lot], replace(TRAINING, lr=0.05), 1),
        lambda: judge.score([lot], TRAINING, 1, MLP(hidden=(4,))),
        lambda: replace(judge, test=judge.test.select(range(20))).score([lot], TRAINING, 1),
        lambda: replace(judge, seed=1).score([lot], TRAINING, 1),
        lambda: replace(judge, bench=replace(judge.bench, horizontal_flip=False)).score([lot], TRAINING, 1),
    )
    for already, change in enumerate(changes, 3):
        change()
        assert count.trained == already + 1
        change()
        assert count.trained == already + 1


def test_a_damaged_cache_is_asked_again_and_mended(world):
    judge, lot, count = world
    score = judge.score([lot], TRAINING, 1)
    [path] = judge.cache.iterdir()
    for text in ("", "{", "[]", '{"accuracy": "much"}', '{"accuracy": 7.0}'):
        path.write_text(text)
        assert judge.score([lot], TRAINING, 1) == score
        assert json.loads(path.read_text())["accuracy"] == score.mean
    assert count.trained == 6


def test_lots_go_round_the_networks(world):
    judge, _, _ = world
    made = []

    def lot(name):
        return Lot(digest=name, make=lambda: made.append(name) or (torch.zeros(2, 1, 4, 4), torch.arange(2)))

    judge.score([lot("a"), lot("b")], replace(TRAINING, updates=1), 3)
    assert made == ["a", "b", "a"]


def test_digests_tell_shape_type_and_content():
    ones = torch.ones(4)
    different = [ones, ones.view(2, 2), ones.int(), ones * 2, ones[:3]]
    assert len({digest_of(tensor) for tensor in different}) == len(different)
    assert digest_of(ones) == digest_of(torch.ones(8)[::2])
    assert len(code_version()) == 64


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
