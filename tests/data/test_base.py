from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import Normalization
from fedcl.data.base import hold_out, make_dataset
from fedcl.data.digits import Digits


def pair(labels, height=2, channels=1):
    """Image i is filled with i, so that a row says where it came from."""
    rows = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return rows.expand(-1, channels, height, 2).contiguous(), torch.tensor(labels, dtype=torch.int64)


def make(train, test, **more):
    return make_dataset(**{"name": "toy", "train": train, "test": test, "horizontal_flip": False, **more})


def test_rows_go_into_class_order_with_their_labels():
    toy = make(pair([2, 0, 1, 0]), pair([1, 0, 2]))
    assert toy.train.labels_N.tolist() == [0, 0, 1, 2]
    assert toy.train.inputs[:, 0, 0, 0].tolist() == [1, 3, 2, 0]
    assert toy.test.inputs[:, 0, 0, 0].tolist() == [1, 0, 2]
    assert toy.class_names == ("0", "1", "2")
    assert (toy.num_classes, toy.inputs.shape) == (3, (1, 2, 2))
    assert toy.labels.train_N.tolist() == [0, 0, 1, 2]
    assert toy.labels.num_classes == 3


def test_constants_are_measured_on_the_training_set_unless_named():
    train, test = pair([0, 1]), pair([0, 1, 1, 1])
    assert make(train, test).inputs.preprocess.mean == pytest.approx((0.5 / 255,), abs=1e-15)
    named = Normalization(mean=(0.3,), std=(0.2,))
    assert make(train, test, normalization=named).inputs.preprocess == named


@pytest.mark.parametrize(
    ("train", "test", "more", "message"),
    [
        (pair([0, 1]), pair([0, 1], height=3), {}, "bring them to one shape"),
        (pair([0, 0]), pair([0]), {}, "at least 2"),
        (pair([0, 1]), pair([0, 1, 2]), {}, "labels 0..2, but there are 2 classes"),
        (pair([-1, 1]), pair([0, 1]), {}, "labels -1..1"),
        (pair([1, 2]), pair([1, 2]), {}, "no image of class 0 of 3"),
        (pair([0, 1, 10**9]), pair([0, 1]), {}, "no image of class 2 of 1000000001"),
        (pair([0, 1]), pair([0]), {}, "test set of 'toy' has no image of class 1"),
        (pair([]), pair([0]), {}, "training set of 'toy' is empty"),
        (pair([0, 1]), pair([]), {}, "test set of 'toy' is empty"),
        (pair([0, 1]), pair([0, 1]), {"class_names": ["a"]}, "labels 0..1, but there are 1 classes"),
        (
            pair([0, 1]),
            pair([0, 1]),
            {"normalization": Normalization(mean=(0.0, 0.0), std=(1.0, 1.0))},
            "has 1 channels but 2 normalisation constants",
        ),
    ],
)
def test_sets_that_do_not_fit(train, test, more, message):
    with pytest.raises(DataError, match=message):
        make(train, test, **more)


def test_dataset_refuses_rows_out_of_class_order():
    toy = make(pair([0, 1]), pair([0, 1]))
    with pytest.raises(DataError, match="not in class order"):
        replace(toy, train=toy.train.select([1, 0]))


@pytest.mark.parametrize("key", ["download", "horizontal_flip"])
def test_switches_must_be_true_or_false(key):
    with pytest.raises(ConfigError, match=f"dataset.{key}=no must be true or false"):
        Digits(**{"horizontal_flip": False, key: "no"})


def test_a_source_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Digits(horizontal_flip=False).root = "elsewhere"  # type: ignore[misc]


def test_held_out_part_is_stratified_disjoint_and_from_the_training_set():
    toy = make(pair([0] * 10 + [1] * 5 + [2] * 2), pair([0, 1, 2]))
    split = hold_out(toy, 0.2, seed=3)
    assert split.test.counts_C.tolist() == [2, 1, 1]  # 0.2 of 2 rounds to none: at least one is taken
    assert split.train.counts_C.tolist() == [8, 4, 1]
    rows = [part.inputs[:, 0, 0, 0].tolist() for part in (split.train, split.test)]
    assert sorted(rows[0] + rows[1]) == list(range(17))
    for part in (split.train, split.test):
        assert torch.equal(part.labels_N, toy.train.labels_N[part.inputs[:, 0, 0, 0].long()])
    assert split.inputs.preprocess == toy.inputs.preprocess


def test_held_out_part_depends_on_the_seed_alone():
    toy = make(pair([0] * 50 + [1] * 50), pair([0, 1]))
    first, again, other = (hold_out(toy, 0.1, seed).test.inputs for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_part_never_takes_a_whole_class():
    toy = make(pair([0, 0, 1, 1]), pair([0, 1]))
    assert hold_out(toy, 0.99, seed=0).train.counts_C.tolist() == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_held_out_fraction_must_be_a_fraction(fraction):
    with pytest.raises(ConfigError, match=r"type 0\.1"):
        hold_out(make(pair([0, 0, 1, 1]), pair([0, 1])), fraction, seed=0)


def test_a_class_with_one_image_cannot_be_held_out():
    with pytest.raises(DataError, match="class '1' of 'toy' has 1 example to train on"):
        hold_out(make(pair([0, 0, 1]), pair([0, 1])), 0.5, seed=0)
