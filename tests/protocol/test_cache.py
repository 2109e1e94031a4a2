"""A evaluator's networks, and answers that are looked up: never for another question than the one that was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fedcl.cli.build import compose_config, make, resolve
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.progress import Progress
from fedcl.core.record import versions
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.initializers import SELECTIONS
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.models.mlp import MLP
from fedcl.protocol import cache as evaluation_cache
from fedcl.protocol.cache import EvaluationCache, code_version, digest_of
from fedcl.protocol.controls import make_control
from fedcl.protocol.evaluation import Evaluator, TrainSet
from fedcl.protocol.scores import train_set_of
from fedcl.training.recipe import Training

PLAIN = Normalization(mean=(0.0,), std=(1.0,))
EVALUATIONS = sorted((Path(__file__).resolve().parents[2] / "configs" / "evaluation").glob("*.yaml"))


class Count(Progress):
    """How many networks were trained."""

    def __init__(self):
        self.trained = 0

    def begin(self, task, total):
        self.trained += task == "training"


@pytest.fixture
def world(tmp_path):
    """An evaluator of two separable classes, a set to train on, and a count of trainings."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randint(0, 100, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = (labels * 250).to(torch.uint8)
    test = LabeledSet(inputs=images, labels_N=labels, num_classes=2)
    count = Count()
    ctx = Context(
        model=MLP(hidden=(8,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=PLAIN, invariances=("flip",)),
        num_classes=2,
        progress=count,
    )
    evaluator = Evaluator(ctx=ctx, test=test, seed=0, cache=EvaluationCache(folder=tmp_path / "cache"))
    train_set = TrainSet(make=lambda: (PLAIN.apply(images), labels))
    return evaluator, train_set, count


TRAINING = Training(updates=30, batch_size=16, lr=0.1)


def test_networks_differ_and_answers_repeat(world):
    evaluator, train_set, _ = world
    score = evaluator.score([train_set], TRAINING, 4)
    assert score.mean > 0.7  # the classes are separable, chance is 0.5
    assert evaluator.score([train_set], TRAINING, 4) == score
    assert replace(evaluator, cache=None).score([train_set], TRAINING, 4) == score
    few = replace(evaluator, cache=None).score([train_set], replace(TRAINING, updates=1), 4)
    assert len(set(few.values)) > 1  # seeds differ between networks
    assert replace(evaluator, cache=None, seed=1).score([train_set], replace(TRAINING, updates=1), 4) != few


def test_uint8_images_are_normalised_like_the_test_set(world):
    evaluator, train_set, _ = world
    raw = TrainSet(make=lambda: (evaluator.test.inputs, evaluator.test.labels_N))
    assert evaluator.score([raw], TRAINING, 2) == evaluator.score([train_set], TRAINING, 2)


def test_the_cache_answers_for_the_same_question_only(world):
    evaluator, train_set, count = world
    evaluator.score([train_set], TRAINING, 2)
    assert count.trained == 2
    evaluator.score([train_set], TRAINING, 3)  # two are known
    assert count.trained == 3
    changes = (
        lambda: evaluator.score([TrainSet(make=lambda: (train_set.make()[0] * 0.5, train_set.make()[1]))], TRAINING, 1),
        lambda: evaluator.score([TrainSet(make=lambda: (train_set.make()[0], 1 - train_set.make()[1]))], TRAINING, 1),
        lambda: evaluator.score([train_set], replace(TRAINING, lr=0.05), 1),
        lambda: evaluator.score([train_set], TRAINING, 1, MLP(hidden=(4,))),
        lambda: replace(evaluator, test=evaluator.test.select(range(20))).score([train_set], TRAINING, 1),
        lambda: replace(evaluator, seed=1).score([train_set], TRAINING, 1),
        lambda: replace(
            evaluator, ctx=replace(evaluator.ctx, inputs=replace(evaluator.ctx.inputs, invariances=()))
        ).score([train_set], TRAINING, 1),
        lambda: replace(evaluator, cache=replace(evaluator.cache, code="newer")).score([train_set], TRAINING, 1),
    )
    for already, change in enumerate(changes, 3):
        change()
        assert count.trained == already + 1
        change()
        assert count.trained == already + 1


def test_a_damaged_cache_is_asked_again_and_mended(world):
    evaluator, train_set, count = world
    score = evaluator.score([train_set], TRAINING, 1)
    [path] = evaluator.cache.folder.iterdir()
    for text in ("", "{", "[]", '{"accuracy": "much"}', '{"accuracy": 7.0}'):
        path.write_text(text)
        assert evaluator.score([train_set], TRAINING, 1) == score
        assert json.loads(path.read_text())["accuracy"] == score.mean
    assert count.trained == 6


def test_lots_go_round_the_networks(world):
    evaluator, _, _ = world
    made = []

    def train_set(name):
        return TrainSet(make=lambda: made.append(name) or (torch.zeros(2, 1, 4, 4), torch.arange(2)))

    evaluator.score([train_set("a"), train_set("b")], replace(TRAINING, updates=1), 3)
    assert made == ["a", "b", "a"]


def test_digests_tell_shape_type_and_content():
    ones = torch.ones(4)
    different = [ones, ones.view(2, 2), ones.int(), ones * 2, ones[:3]]
    assert len({digest_of(tensor) for tensor in different}) == len(different)
    assert digest_of(ones) == digest_of(torch.ones(8)[::2])


def stored():
    """A summary of two images, which a decoder shows to the networks."""
    return Summary(
        arrays={
            "images": torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2).expand(2, 1, 4, 2).repeat(1, 1, 1, 2)
        },
        targets=torch.arange(2),
        num_source_C=torch.tensor([20, 20]),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=PLAIN),
        decoder=Zoom(),
        method="random",
    )


def test_a_changed_decoder_asks_again(world, monkeypatch):
    """What a network is trained on names the answer, not the arrays that it was decoded from."""
    evaluator, _, count = world
    summary = stored()
    evaluator.score([train_set_of(summary)], TRAINING, 1)
    decode = Zoom.decode
    monkeypatch.setattr(Zoom, "decode", lambda self, arrays, shape: decode(self, arrays, shape) * 0)
    score = evaluator.score([train_set_of(summary)], TRAINING, 1)
    assert count.trained == 2
    assert score == replace(evaluator, cache=None).score([train_set_of(summary)], TRAINING, 1)


def test_a_changed_selection_asks_again(world, monkeypatch):
    evaluator, _, count = world

    def control():
        return make_control("kmeans", stored(), evaluator.test, PLAIN, seed=0, nets=1, pixels="same").train_sets

    evaluator.score(control(), TRAINING, 1)
    evaluator.score(control(), TRAINING, 1)
    assert count.trained == 1
    monkeypatch.setitem(SELECTIONS, "kmeans", lambda features, n, seed: torch.arange(n) + 3)
    evaluator.score(control(), TRAINING, 1)
    assert count.trained == 2


@pytest.mark.parametrize("name", ["torch", "torchvision", "numpy", "scikit-learn", "python"])
def test_other_software_asks_again(world, monkeypatch, name):
    evaluator, train_set, count = world
    evaluator.score([train_set], TRAINING, 1)
    monkeypatch.setattr(evaluation_cache, "versions", lambda: versions() | {name: "0"})
    evaluator.score([train_set], TRAINING, 1)
    assert count.trained == 2


def test_another_number_of_threads_asks_again(world, monkeypatch):
    evaluator, train_set, count = world
    evaluator.score([train_set], TRAINING, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    evaluator.score([train_set], TRAINING, 1)
    assert count.trained == 2


@dataclass(frozen=True, kw_only=True)
class Foreign(MLP):
    """A network whose code fedcl's source does not hold."""


def test_what_is_not_fedcls_own_is_never_kept(world):
    evaluator, train_set, count = world
    for already in range(2):
        evaluator.score([train_set], TRAINING, 1, Foreign(hidden=(4,)))
        assert count.trained == already + 1
    assert not evaluator.cache.folder.exists()


def test_the_code_is_all_of_the_source(tmp_path):
    """Any file, anywhere below: another content, another name, one more."""
    root = tmp_path / "package"
    (root / "distill" / "parameterizations").mkdir(parents=True)
    deep = root / "distill" / "parameterizations" / "zoom.py"
    seen = set()
    for path, text in ((root / "fair.py", "a"), (deep, "a"), (deep, "b"), (root / "distill" / "zoom.py", "")):
        path.write_text(text)
        seen.add(code_version(root))
    deep.rename(deep.with_name("other.py"))
    seen.add(code_version(root))
    assert len(seen) == 5
    assert code_version() == EvaluationCache(folder=tmp_path).code


@pytest.mark.parametrize("name", [path.stem for path in EVALUATIONS])
def test_no_evaluation_looks_up_answers_unless_asked(name):
    assert make(resolve(compose_config("distill", [f"evaluation={name}"])), "evaluation").cache is None
