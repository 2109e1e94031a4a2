"""Laws of the product: owners come from the partition, times from the stream."""

import numpy as np
import pytest

from fedcl.core.errors import FedclError, ScenarioError
from fedcl.scenario.base import Labels
from scenarios.blurry import Blurry
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from scenarios.domain_incremental import DomainIncremental
from scenarios.grid import Grid
from scenarios.iid import IID
from scenarios.online import Online
from scenarios.quantity import Quantity
from scenarios.repetition import Repetition
from scenarios.shards import Shards

TRAIN_N = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
LABELS = Labels(train_N=TRAIN_N, test_N=np.arange(10).repeat(2), num_classes=10)
STREAM = ClassIncremental(num_steps=5, class_order="seed")
STREAMS = [STREAM, Blurry(num_steps=5), Repetition(num_steps=5), Online(num_steps=5, batch_size=20)]
PARTITIONS = [
    IID(num_clients=4),
    Dirichlet(num_clients=4, alpha=0.5),
    Dirichlet(num_clients=4, alpha=0.5, recipe="balanced"),
    Shards(num_clients=5, classes_per_client=2),
    Quantity(num_clients=4, alpha=0.5),
]


def owned(scenario, client: int) -> np.ndarray:
    """All that a client ever holds."""
    return np.sort(np.concatenate([step[client] for step in scenario.shares]))


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition.name)
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: type(stream).__name__)
def test_the_margins_of_the_product_are_its_factors(stream, partition):
    grid = Grid(stream=stream, partition=partition).build(LABELS, seed=2)
    alone, column = partition.build(LABELS, seed=2), stream.build(LABELS, seed=2)
    for client in range(partition.num_clients):
        np.testing.assert_array_equal(owned(grid, client), alone.share(client=client))
    for step in range(column.num_steps):
        together = np.sort(np.concatenate(grid.shares[step]))
        np.testing.assert_array_equal(together, column.share(client=0, step=step))
    assert grid.group_names == column.group_names


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition.name)
def test_asynchronous_clients_have_the_same_parts_in_orders_of_their_own(partition):
    make = {"stream": STREAM, "partition": partition}
    together = Grid(**make).build(LABELS, seed=0)
    apart = Grid(**make, arrival="asynchronous").build(LABELS, seed=0)
    for client in range(partition.num_clients):
        cells = [sorted(step[client].tolist() for step in scenario.shares) for scenario in (together, apart)]
        assert cells[0] == cells[1]
    np.testing.assert_array_equal(np.sort(np.concatenate(sum(apart.shares, ()))), np.arange(600))
    assert apart.sha256 != together.sha256
    assert apart.sha256 == Grid(**make, arrival="asynchronous").build(LABELS, seed=0).sha256


def test_first_steps_under_asynchronous_arrival():
    grid = Grid(stream=STREAM, partition=IID(num_clients=4), arrival="asynchronous").build(LABELS, seed=0)
    each = np.array([grid.first_steps(LABELS, client=client) for client in range(4)])
    assert (np.sort(each, axis=1) == np.arange(5)).all()  # IID clients see one group a step
    assert len({tuple(row) for row in each.tolist()}) > 1
    np.testing.assert_array_equal(grid.first_steps(LABELS), each.min(axis=0))


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("partition", [PARTITIONS[0], PARTITIONS[1], PARTITIONS[3]], ids=lambda p: p.name)
def test_class_overlap_limits_the_holders_of_a_class(partition, overlap):
    grid = Grid(stream=STREAM, partition=partition, class_overlap=overlap).build(LABELS, seed=0)
    holders = 1 + int(overlap * (partition.num_clients - 1) + 0.5)
    counts_KC = sum(grid.counts(TRAIN_N, step=step) for step in range(5))
    np.testing.assert_array_equal(counts_KC.sum(axis=0), 60)  # nothing is lost
    assert ((counts_KC > 0).sum(axis=0) <= holders).all()
    if isinstance(partition, IID):  # every client has something of every class, so the bound is met
        assert ((counts_KC > 0).sum(axis=0) == holders).all()
        classes_K = (counts_KC > 0).sum(axis=1)
        assert classes_K.max() - classes_K.min() <= 1


def test_without_overlap_clients_share_no_class():
    grid = Grid(stream=STREAM, partition=IID(num_clients=4), class_overlap=0).build(LABELS, seed=0)
    sets = [set(TRAIN_N[owned(grid, client)].tolist()) for client in range(4)]
    assert sum(len(classes) for classes in sets) == len(set().union(*sets)) == 10


def test_examples_of_others_go_to_the_holders_in_proportion():
    labels_N = np.arange(3).repeat(200)
    labels = Labels(train_N=labels_N, test_N=np.arange(3), num_classes=3)
    partition = Dirichlet(num_clients=3, alpha=1.0)
    alone_KC = partition.build(labels, seed=0).counts(labels_N)
    grid = Grid(stream=ClassIncremental(num_steps=1), partition=partition, class_overlap=0.5)
    counts_KC = grid.build(labels, seed=0).counts(labels_N)
    for label in range(3):
        holders = np.flatnonzero(counts_KC[:, label])
        assert len(holders) == 2
        expected = 200 * alone_KC[holders, label] / alone_KC[holders, label].sum()
        assert np.abs(counts_KC[holders, label] - expected).max() <= 1


def test_domains_keep_their_owners_and_transforms():
    stream = DomainIncremental(transforms=("", "rotate:90"))
    grid = Grid(stream=stream, partition=IID(num_clients=4)).build(LABELS, seed=0)
    assert grid.transforms == grid.group_transforms == ("", "rotate:90")
    for client in range(4):
        np.testing.assert_array_equal(grid.share(client=client, step=0), grid.share(client=client, step=1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"arrival": "sometimes"}, "synchronous, asynchronous"),
        ({"class_overlap": 1.5}, "scenario.class_overlap=1"),
        ({"num_clients": 9}, "scenario.partition.num_clients=4"),
        ({"num_steps": 9}, "scenario.stream.num_steps=5"),
        ({"alpha": 0.5}, "scenario.partition.alpha=None"),
        ({"stream": None}, "scenario.stream"),
        ({"partition": STREAM}, "scenario.partition"),
    ],
)
def test_a_bad_field_says_what_to_type(fields, words):
    with pytest.raises(FedclError, match=words):
        Grid(**{"stream": STREAM, "partition": IID(num_clients=4)} | fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stream": Online(num_steps=5), "arrival": "asynchronous"}, "scenario.arrival=synchronous"),
        (
            {"stream": DomainIncremental(transforms=("", "rotate:9")), "arrival": "asynchronous"},
            "scenario.arrival=synchronous",
        ),
        ({"stream": IID(num_clients=2)}, "must have one"),
        ({"partition": IID(num_clients=11), "class_overlap": 0}, "scenario.num_clients=10"),
    ],
)
def test_an_impossible_product_says_what_to_type(fields, words):
    with pytest.raises(ScenarioError, match=words):
        Grid(**{"stream": STREAM, "partition": IID(num_clients=4)} | fields).build(LABELS, seed=0)
