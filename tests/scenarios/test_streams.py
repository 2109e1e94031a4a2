"""Laws of the one-client streams: what arrives when, and which tests belong to it."""

import numpy as np
import pytest

from fedcl.core.errors import FedclError, ScenarioError
from fedcl.scenario.base import Labels
from scenarios.blurry import Blurry
from scenarios.class_incremental import ClassIncremental
from scenarios.domain_incremental import DomainIncremental
from scenarios.online import Online
from scenarios.repetition import Repetition

TRAIN_N = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 20))
LABELS = Labels(train_N=TRAIN_N, test_N=np.arange(6).repeat(2), num_classes=6)
STREAMS = [
    ClassIncremental(num_steps=3, class_order="seed"),
    Blurry(num_steps=3, class_order="seed"),
    Repetition(num_steps=3, class_order="seed"),
    Online(num_steps=3, class_order="seed", batch_size=7),
    DomainIncremental(transforms=("", "rotate:30", "noise:0.1"), examples="part"),
]


def classes_of(scenario, step: int) -> set[int]:
    return set(TRAIN_N[scenario.share(client=0, step=step)].tolist())


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: type(stream).__name__)
class TestLaws:
    def test_every_example_arrives_once_at_the_one_client(self, stream):
        scenario = stream.build(LABELS, seed=0)
        assert scenario.num_clients == 1
        arrived = np.concatenate([step[0] for step in scenario.shares])
        np.testing.assert_array_equal(np.sort(arrived), np.arange(120))

    def test_same_seed_same_stream_other_seed_another(self, stream):
        hashes = [stream.build(LABELS, seed=seed).sha256 for seed in (0, 0, 1, 2)]
        assert hashes[0] == hashes[1]
        assert len(set(hashes)) == 3

    def test_every_group_is_seen_and_the_groups_hold_all_tests(self, stream):
        scenario = stream.build(LABELS, seed=0)
        assert len(scenario.groups) == 3
        assert (scenario.first_steps(LABELS) < scenario.num_steps).all()
        assert set(np.concatenate(scenario.groups).tolist()) == set(range(12))


def test_class_incremental_by_hand():
    scenario = ClassIncremental(num_steps=3).build(LABELS, seed=0)
    assert [classes_of(scenario, step) for step in range(3)] == [{0, 1}, {2, 3}, {4, 5}]
    assert scenario.group_names == ("classes 0-1", "classes 2-3", "classes 4-5")
    np.testing.assert_array_equal(scenario.groups[1], [4, 5, 6, 7])
    np.testing.assert_array_equal(scenario.first_steps(LABELS), [0, 1, 2])


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"num_steps": 6}, [1, 1, 1, 1, 1, 1]),
        ({"num_steps": 1}, [6]),
        ({"num_steps": 4}, [2, 2, 1, 1]),
        ({"classes_per_step": 2}, [2, 2, 2]),
        ({"classes_per_step": 4}, [4, 2]),
        ({"classes_per_step": 9}, [6]),
        ({"num_steps": 4, "first_step": 3}, [3, 1, 1, 1]),
        ({"num_steps": 3, "first_step": 2}, [2, 2, 2]),
        ({"classes_per_step": 1, "first_step": 4}, [4, 1, 1]),
        ({"classes_per_step": 1, "first_step": 6}, [6]),
        ({"num_steps": 1, "first_step": 6}, [6]),
    ],
)
def test_block_sizes(fields, sizes):
    blocks = ClassIncremental(**fields).blocks(6, seed=0)
    assert [len(block) for block in blocks] == sizes
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(6))


def test_orders():
    def order(seed=0, **fields):
        return ClassIncremental(num_steps=2, **fields).order(10, seed).tolist()

    assert order() == list(range(10))
    # numpy.random.seed(0); numpy.random.permutation(10)
    assert order(class_order="numpy", order_seed=0) == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert order(class_order="numpy", order_seed=0, seed=5) == order(class_order="numpy", order_seed=0)
    assert order(class_order="seed", seed=1) != order(class_order="seed", seed=2)
    assert order(class_order="seed", seed=1, order_seed=7) == order(class_order="seed", seed=2, order_seed=7)
    assert order(class_order=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]) == list(range(10))[::-1]


def test_the_published_order_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    ClassIncremental(num_steps=2, class_order="numpy", order_seed=1993).build(LABELS, seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_group_names_of_mixed_orders():
    scenario = ClassIncremental(classes_per_step=4, class_order=(5, 0, 3, 1, 4, 2)).build(LABELS, seed=0)
    assert scenario.group_names == ("classes 5,0,3,1", "classes 4,2")
    single = ClassIncremental(num_steps=6).build(LABELS, seed=0)
    assert single.group_names[4] == "class 4"


def test_blurry_counts_by_hand():
    # three blocks, decay 2: weights (1, 1/2, 0), (1/2, 1, 1/2), (0, 1/2, 1); 24 examples of each class
    labels_N = np.repeat(np.arange(3), 24)
    labels = Labels(train_N=labels_N, test_N=np.arange(3), num_classes=3)
    scenario = Blurry(num_steps=3, decay=2.0).build(labels, seed=0)
    counts_TC = np.concatenate([scenario.counts(labels_N, step=step) for step in range(3)])
    np.testing.assert_array_equal(counts_TC, [[16, 6, 0], [8, 12, 8], [0, 6, 16]])
    np.testing.assert_array_equal(scenario.first_steps(labels), [0, 0, 1])


def test_blurry_with_sharp_borders_is_class_incremental():
    sharp = Blurry(num_steps=3, decay=1.0).build(LABELS, seed=0)
    assert sharp.sha256 == ClassIncremental(num_steps=3).build(LABELS, seed=0).sha256


def test_repetition_brings_old_classes_back_and_no_future_ones():
    scenario = Repetition(num_steps=3, probability=0.5, extra_steps=4).build(LABELS, seed=0)
    assert scenario.num_steps == 7
    for step in range(3):
        new = {2 * step, 2 * step + 1}
        assert new <= classes_of(scenario, step) <= set(range(2 * step + 2))
    appearances = np.array([[label in classes_of(scenario, step) for step in range(7)] for label in range(6)])
    assert appearances.sum() > 6  # some class came back
    for label in range(6):  # cut evenly over its steps
        parts = [scenario.counts(TRAIN_N, step=step)[0, label] for step in range(7) if appearances[label, step]]
        assert max(parts) - min(parts) <= 1


def test_repetition_at_the_ends_of_its_probability():
    never = Repetition(num_steps=3, probability=0, extra_steps=0).build(LABELS, seed=0)
    assert never.sha256 == ClassIncremental(num_steps=3).build(LABELS, seed=0).sha256
    always = Repetition(num_steps=3, probability=1, extra_steps=1).build(LABELS, seed=0)
    assert [classes_of(always, step) for step in range(4)] == [
        {0, 1},
        set(range(4)),
        set(range(6)),
        set(range(6)),
    ]
    filled = Repetition(num_steps=3, probability=0, extra_steps=3).build(LABELS, seed=0)
    assert [len(classes_of(filled, step)) for step in range(3, 6)] == [1, 1, 1]


def test_online_batches_walk_through_the_blocks():
    scenario = Online(num_steps=3, batch_size=7).build(LABELS, seed=0)
    # 40 examples a block: five batches of 7 and one of 5
    assert [len(step[0]) for step in scenario.shares] == [7, 7, 7, 7, 7, 5] * 3
    assert [classes_of(scenario, step) <= {2, 3} for step in range(18)] == [False] * 6 + [True] * 6 + [False] * 6
    np.testing.assert_array_equal(scenario.first_steps(LABELS), [0, 6, 12])


def test_domain_incremental():
    scenario = DomainIncremental(transforms=["", "rotate:30", "permute:1"]).build(LABELS, seed=0)
    assert scenario.transforms == scenario.group_transforms == ("", "rotate:30", "permute:1")
    assert scenario.group_names == ("original", "rotate:30", "permute:1")
    for step in range(3):
        np.testing.assert_array_equal(scenario.share(client=0, step=step), np.arange(120))
        np.testing.assert_array_equal(scenario.groups[step], np.arange(12))
    np.testing.assert_array_equal(scenario.first_steps(LABELS), [0, 1, 2])
    parts = DomainIncremental(transforms=("", "blur:1.0"), examples="part").build(LABELS, seed=0)
    assert [len(step[0]) for step in parts.shares] == [60, 60]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ClassIncremental(), "one must be a number"),
        (lambda: ClassIncremental(num_steps=5, classes_per_step=2), "scenario.num_steps=null"),
        (lambda: ClassIncremental(num_steps=0), "scenario.num_steps=5"),
        (lambda: ClassIncremental(classes_per_step=0), "scenario.classes_per_step=5"),
        (lambda: ClassIncremental(num_steps=3, first_step=0), "scenario.first_step=5"),
        (lambda: ClassIncremental(num_steps=3, class_order="random"), "labels, seed, numpy"),
        (lambda: ClassIncremental(num_steps=3, class_order="numpy"), "scenario.order_seed=1993"),
        (lambda: ClassIncremental(num_steps=3, class_order="numpy", order_seed=2**32), "order_seed=1993"),
        (lambda: ClassIncremental(num_steps=3, class_order="seed", order_seed=-1), "order_seed=1993"),
        (lambda: Blurry(num_steps=3, decay=0), "scenario.decay=2"),
        (lambda: Repetition(num_steps=3, probability=1.5), "scenario.probability=0.3"),
        (lambda: Repetition(num_steps=3, extra_steps=-1), "scenario.extra_steps=5"),
        (lambda: Online(num_steps=3, batch_size=0), "scenario.batch_size=10"),
        (lambda: DomainIncremental(transforms=()), "scenario.transforms="),
        (lambda: DomainIncremental(transforms=("rotate",)), "rotate:30"),
        (lambda: DomainIncremental(transforms=("",), examples="some"), "all, part"),
    ],
)
def test_a_bad_number_says_what_to_type(make, words):
    with pytest.raises(FedclError, match=words):
        make()


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (ClassIncremental(num_steps=7), "scenario.num_steps=6 or less"),
        (ClassIncremental(num_steps=4, first_step=4), "smaller scenario.first_step"),
        (ClassIncremental(num_steps=2, first_step=6), "smaller scenario.first_step"),
        (ClassIncremental(classes_per_step=1, first_step=7), "smaller scenario.first_step"),
        (ClassIncremental(num_steps=3, class_order=(0, 1, 2)), r"no permutation.*\[3, 4, 5\] missing"),
        (ClassIncremental(num_steps=3, class_order=(0, 1, 2, 3, 4, 4)), "no permutation"),
        (ClassIncremental(num_steps=3, class_order=(0, 1, 2, 3, 4, 5, 5)), "no permutation"),
        (DomainIncremental(transforms=("",) * 121, examples="part"), "scenario.examples=all"),
    ],
)
def test_an_impossible_stream_says_what_to_type(stream, words):
    with pytest.raises(ScenarioError, match=words):
        stream.build(LABELS, seed=0)


def test_a_step_without_examples_is_refused():
    labels = Labels(train_N=np.array([0, 0, 1]), test_N=np.array([0, 1, 2]), num_classes=3)
    with pytest.raises(ScenarioError, match="has no training examples"):
        ClassIncremental(num_steps=3).build(labels, seed=0)
