"""Equal bytes, worked out by hand, and what controls are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.blobs import encode
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.protocol.controls import affordable, make_control, with_labels_of

PLAIN = Normalization(mean=(0.0,), std=(1.0,))


def summary(labels, *, soft=False, source=(5, 5, 5), **arrays):
    """2x2 images of one channel: 16 bytes of pixels each; labels of 1 byte, soft ones of 12."""
    targets = torch.tensor(labels, dtype=torch.int64)
    return Summary(
        arrays={"images": torch.zeros(len(labels), 1, 2, 2), **arrays},
        targets=torch.nn.functional.one_hot(targets, 3).float() if soft else targets,
        num_source_C=torch.tensor(source),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=PLAIN),
        decoder=Pixels(),
        method="test",
    )


def train(counts=(5, 5, 5)):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    images = torch.arange(len(labels) * 4, dtype=torch.uint8).view(-1, 1, 2, 2)
    return LabeledSet(inputs=images, labels_N=labels, num_classes=3)


FIVES = torch.tensor([5, 5, 5])


def test_an_ipc_of_pixels_buys_the_same_ipc():
    assert encode(summary([0, 0, 1, 1, 2, 2])).num_bytes == 6 * 17
    assert affordable(summary([0, 0, 1, 1, 2, 2]), FIVES, 4) == ((2, 2, 2), 6 * 17)


def test_soft_labels_and_other_arrays_buy_more_images():
    # three soft entries: 3 * (16 + 12) = 84 bytes = 4 images of 17, one left over for class 0
    assert affordable(summary([0, 1, 2], soft=True), FIVES, 4) == ((2, 1, 1), 68)
    # a step size of 4 bytes more: 88 bytes, still 5 * 17 = 85 -> a fifth image
    scalars = summary([0, 1, 2], soft=True, step_size=torch.zeros(1))
    assert affordable(scalars, FIVES, 4) == ((2, 2, 1), 85)


def test_pixels_of_one_byte_buy_four_times_as_many_until_the_class_ends():
    # 6 * 17 = 102 bytes = 20 images of 4 + 1 bytes, but there are 15
    assert affordable(summary([0, 0, 1, 1, 2, 2]), FIVES, 1) == ((5, 5, 5), 75)
    assert affordable(summary([0, 1, 2]), FIVES, 1) == ((4, 3, 3), 50)


def test_chosen_pixels_buy_as_many_chosen_pixels():
    selection = summary([0, 0, 1, 2], images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    control = make_control("random", selection, train(), PLAIN, seed=0, nets=1, pixels="same")
    assert (control.count_C, control.bytes) == ((2, 1, 1), 4 * 5)


def test_a_class_without_images_gets_none_and_others_take_its_place():
    assert affordable(summary([0, 0, 1, 1], source=(5, 5, 0)), FIVES, 4) == ((2, 2, 0), 68)
    assert affordable(summary([0, 0, 1, 1, 2, 2]), torch.tensor([1, 9, 3]), 4) == ((1, 3, 2), 102)


def test_a_summary_that_does_not_say_stands_for_all_classes():
    untold = replace(summary([0, 0, 1, 1], source=(5, 5, 0)), num_source_C=None)
    assert affordable(untold, FIVES, 4) == ((2, 1, 1), 68)


def test_less_than_an_image_buys_nothing():
    count, cost = affordable(summary([]), FIVES, 4)
    assert (count, cost) == ((0, 0, 0), 0)
    control = make_control("random", summary([]), train(), PLAIN, seed=0, nets=1, pixels="same")
    images, labels = control.train_sets[0].make()
    assert images.shape == (0, 1, 2, 2)
    assert len(labels) == 0


@pytest.mark.parametrize("kind", ["random", "kmeans", "herding", "k_center"])
def test_controls_are_real_images_of_their_class(kind):
    data = train()
    control = make_control(kind, summary([0, 0, 1, 1, 2, 2]), data, PLAIN, seed=0, nets=3, pixels="same")
    assert len(control.train_sets) == (3 if kind == "random" else 1)
    for train_set in control.train_sets:
        images, labels = train_set.make()
        assert labels.tolist() == [0, 0, 1, 1, 2, 2]
        pixels = PLAIN.apply(data.inputs)
        places = [int(torch.nonzero((pixels == image).all((1, 2, 3)))[0]) for image in images]
        assert data.labels_N[places].tolist() == labels.tolist()
        assert len(set(places)) == 6


def test_a_seed_names_the_random_images():
    data, small = train(), summary([0, 1, 2])
    first = make_control("random", small, data, PLAIN, seed=0, nets=4, pixels="same")
    again = make_control("random", small, data, PLAIN, seed=0, nets=4, pixels="same")
    other = make_control("random", small, data, PLAIN, seed=1, nets=4, pixels="same")
    draws, others = ([train_set.make()[0] for train_set in control.train_sets] for control in (first, other))
    assert any(not torch.equal(a, b) for a, b in zip(draws, others, strict=True))
    assert any(not torch.equal(draws[0], draw) for draw in draws[1:])  # every network gets its own
    assert all(torch.equal(a.make()[0], b.make()[0]) for a, b in zip(first.train_sets, again.train_sets, strict=True))


def test_soft_labels_move_to_real_images_of_their_class():
    soft = summary([0, 0, 1])
    rows = torch.tensor([[0.6, 0.4, 0.0], [0.7, 0.1, 0.2], [0.3, 0.4, 0.3]])
    soft = type(soft)(**{**soft.__dict__, "targets": rows})
    [train_set] = make_control("kmeans", soft, train((3, 1, 1)), PLAIN, seed=0, nets=1, pixels="same").train_sets
    images, labels = train_set.make()
    assert labels.tolist() == [0, 0, 1, 2]  # 3 * (16 + 12) = 84 bytes = 4 images
    moved, targets = with_labels_of(train_set, soft).make()
    assert torch.equal(moved, images)
    # class 0 takes its two rows in network_index, class 1 its own, class 2 keeps its hard label
    expected = torch.stack([rows[0], rows[1], rows[2], torch.tensor([0.0, 0.0, 1.0])])
    assert torch.equal(targets, expected)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="choose among random"):
        make_control("best", summary([0]), train(), PLAIN, seed=0, nets=1, pixels="same")
