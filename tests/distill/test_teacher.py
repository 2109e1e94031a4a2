"""A teacher's labels: made after the images, carried by the summary, given to every view when it is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import DataError
from fedcl.distill.blobs import encode
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.labels import Teacher
from fedcl.distill.networks.interpolated import Interpolated
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.distill.teacher import logits, pack_teacher, unpack_teacher, view_loss
from fedcl.models.convnet import ConvNet
from fedcl.protocol.cache import EvaluationCache
from fedcl.protocol.controls import make_control, with_labels_of
from fedcl.protocol.evaluation import Evaluator, teacher_of
from fedcl.protocol.scores import train_set_of
from fedcl.training.augmentation import Siamese
from fedcl.training.losses import Batch
from fedcl.training.recipe import Training

TRAINED = Interpolated(size=1, epochs=30, batch_size=8, lr=0.05)


@pytest.fixture
def taught(new_set, new_distiller, ctx):
    """taught(labels, ...) -> the summary of a selection that a network of the set has labelled."""

    def make(labels, **axes):
        distiller = new_distiller(labels=labels, networks=TRAINED, steps=0, **axes)
        return distiller.distill([new_set({0: 9, 2: 7})], 3, ctx)[0]

    return make


def test_a_state_comes_back_with_its_statistics(ctx):
    network = ConvNet(width=4, norm="batch").build((1, 8, 8), 4, 0)
    images = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network(images)  # statistics that are not the initial ones
    again = unpack_teacher(pack_teacher(network), ConvNet(width=4, norm="batch").build((1, 8, 8), 4, 1))
    torch.testing.assert_close(logits(network, images), logits(again, images), atol=1e-6, rtol=0)
    assert network.training
    assert not again.training
    with pytest.raises(DataError, match=r"of another model; type the same model=\.\.\."):
        unpack_teacher(pack_teacher(network), ctx.new_model(0))


@pytest.mark.parametrize("parameterization", [None, Zoom(factor=2)])
def test_rows_are_the_mean_of_an_entrys_images_over_the_classes_it_can_know(taught, ctx, parameterization):
    axes = {} if parameterization is None else {"parameterization": parameterization}
    summary = taught(Teacher(), **axes)
    teacher = unpack_teacher(summary.arrays["teacher"], ctx.new_model(0))
    found = logits(teacher, summary.decode()[0]).softmax(1).view(len(summary.targets), -1, 4).mean(1)
    found[:, [1, 3]] = 0  # classes without an image
    torch.testing.assert_close(summary.targets, found / found.sum(1, keepdim=True), atol=1e-6, rtol=0)
    if not axes:  # whole images, which the network was trained on
        assert summary.targets.argmax(1).tolist() == [0, 0, 2, 2]


def test_the_network_is_in_the_bytes_and_stays_away_where_it_is_not_asked_for(taught, ctx, tmp_path):
    whole, rows = taught(Teacher()), taught(Teacher(per_view=False))
    numbers = sum(value.numel() for value in ctx.new_model(0).state_dict().values())
    assert encode(whole).num_bytes - encode(rows).num_bytes == 4 * (numbers + 1)
    assert torch.equal(whole.targets, rows.targets)
    assert teacher_of(rows) is None
    save_summary(whole, tmp_path / "summary")
    assert load_summary(tmp_path / "summary").sha256() == whole.sha256()


def test_a_view_is_labelled_by_the_teacher_at_its_temperature():
    """By hand: 9 times the cross-entropy of scores / 3 against softmax(teacher's scores / 3)."""
    student, teacher = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    views = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    wanted = (teacher(views) / 3).softmax(1).detach()
    expected = -9 * (wanted * (student(views) / 3).log_softmax(1)).sum(1).mean()
    batch = Batch(inputs=views, parts=(), targets=torch.zeros(0))  # whatever they were called
    torch.testing.assert_close(view_loss(teacher, 3.0, F.cross_entropy)(student, batch), expected)


def test_evaluation_asks_the_teacher_for_every_view(taught, new_set, ctx, tmp_path):
    """Stored rows say nothing to it: with others the accuracies are the same, with another teacher they are not."""
    summary = taught(Teacher(temperature=2.0))
    test = new_set({0: 20, 2: 20}, client=4)
    evaluator = Evaluator(ctx=ctx, test=test, seed=0, cache=EvaluationCache(folder=tmp_path, code=""))
    training = Training(updates=8, lr=0.05, augmentation=Siamese(groups=("crop",)))

    def values(one, training=training):
        return evaluator.score([train_set_of(one)], training, 2).values

    weights = summary.arrays["teacher"]
    turned = replace(summary, arrays={**summary.arrays, "teacher": weights.flip(0)})
    without = replace(summary, arrays={"images": summary.arrays["images"]})
    found = values(summary)
    assert values(replace(summary, targets=summary.targets.roll(1, 1))) == found
    assert len({found, values(turned), values(without)}) == 3
    assert len(list(tmp_path.iterdir())) == 8  # each of four questions to two networks has an answer of its own


def test_controls_are_labelled_by_the_same_teacher(taught, new_set, ctx):
    summary, train = taught(Teacher()), new_set({0: 30, 2: 30})
    control = make_control("random", summary, train, ctx.inputs, seed=0, nets=1, pixels="same")
    labelled = with_labels_of(control.train_sets[0], summary)
    assert labelled.teacher is not None
    assert torch.equal(labelled.teacher[0], summary.arrays["teacher"])
    assert (
        sum(control.count_C) == encode(summary).num_bytes // (64 + 1) > summary.num_images
    )  # the network's bytes buy more
