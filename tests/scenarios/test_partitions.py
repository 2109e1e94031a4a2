"""Laws of every way to deal one step to clients, and what each recipe promises."""

import numpy as np
import pytest

from fedcl.core.errors import FedclError, ScenarioError
from fedcl.scenario.base import Labels
from scenarios.dirichlet import Dirichlet, balanced_counts, niid_bench_counts, round_to_sums
from scenarios.iid import IID
from scenarios.quantity import Quantity
from scenarios.shards import Shards

TRAIN_N = np.random.default_rng(0).permutation(np.repeat(np.arange(10), [90, 100, 110, 100, 100] * 2))  # 1000
LABELS = Labels(train_N=TRAIN_N, test_N=np.arange(10).repeat(3), num_classes=10)
PARTITIONS = [
    IID(num_clients=7),
    Dirichlet(num_clients=7, alpha=0.5),
    Dirichlet(num_clients=7, alpha=0.05, min_size=1),
    Dirichlet(num_clients=7, alpha=0.5, recipe="balanced"),
    Dirichlet(num_clients=7, alpha=0.01, recipe="balanced"),
    Shards(num_clients=7, classes_per_client=2),
    Quantity(num_clients=7, alpha=0.5),
]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition.name)
class TestLaws:
    def test_every_example_has_one_holder_and_shares_are_sorted(self, partition):
        scenario = partition.build(LABELS, seed=3)
        assert (scenario.num_steps, scenario.num_clients) == (1, 7)
        held = np.concatenate(scenario.shares[0])
        np.testing.assert_array_equal(np.sort(held), np.arange(1000))
        assert all(share.dtype == np.int64 and (np.diff(share) > 0).all() for share in scenario.shares[0])

    def test_same_seed_same_split_other_seed_another(self, partition):
        hashes = [partition.build(LABELS, seed=seed).sha256 for seed in (0, 0, 1, 2)]
        assert hashes[0] == hashes[1]
        assert len(set(hashes)) == 3

    def test_one_client_holds_all(self, partition):
        fields = {key: value for key, value in vars(partition).items() if key != "num_clients"}
        if "classes_per_client" in fields:
            fields["classes_per_client"] = 10
        (share,) = type(partition)(num_clients=1, **fields).build(LABELS, seed=0).shares[0]
        np.testing.assert_array_equal(share, np.arange(1000))

    def test_the_test_set_is_one_group(self, partition):
        scenario = partition.build(LABELS, seed=0)
        assert scenario.group_names == ("all",)
        np.testing.assert_array_equal(scenario.groups[0], np.arange(30))


@pytest.mark.parametrize("partition", [IID(num_clients=7), PARTITIONS[3], PARTITIONS[4]])
def test_equal_sizes_where_promised(partition):
    sizes = {len(share) for share in partition.build(LABELS, seed=1).shares[0]}
    assert sizes == {142, 143}  # 1000 / 7 = 142.86


def test_dirichlet_with_large_alpha_is_near_iid_and_with_small_alpha_is_not():
    for recipe in ("niid_bench", "balanced"):
        share_of_top = {}
        for alpha in (0.05, 1e6):
            partition = Dirichlet(num_clients=5, alpha=alpha, recipe=recipe, min_size=1)
            counts_KC = partition.build(LABELS, seed=0).counts(TRAIN_N)
            share_of_top[alpha] = (counts_KC.max(axis=1) / counts_KC.sum(axis=1)).mean()
        assert share_of_top[1e6] < 0.13  # a tenth of a client is its largest class, as in the whole set
        assert share_of_top[0.05] > 0.25


def test_niid_bench_first_class_has_the_moments_of_a_dirichlet():
    rng = np.random.default_rng(0)
    sizes_C = np.array([1000, 9000])  # the first class meets no full client, so it is a plain Dirichlet
    parts = np.array([niid_bench_counts(sizes_C, 4, 0.5, rng)[:, 0] / 1000 for _ in range(4000)])
    np.testing.assert_allclose(parts.mean(axis=0), 0.25, atol=0.02)
    # Var = (1/K)(1 - 1/K) / (K alpha + 1) = 0.25 * 0.75 / 3
    np.testing.assert_allclose(parts.var(axis=0), 0.0625, atol=0.005)


def test_niid_bench_gives_a_full_client_nothing_more():
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts_KC = niid_bench_counts(np.array([50, 50, 50, 50]), 5, 0.1, rng)  # N/K = 40
        before_KC = np.cumsum(counts_KC, axis=1) - counts_KC
        assert (counts_KC[before_KC >= 40] == 0).all()
        np.testing.assert_array_equal(counts_KC.sum(axis=0), 50)


def test_niid_bench_respects_min_size():
    partition = Dirichlet(num_clients=10, alpha=0.1, min_size=30)
    assert min(len(share) for share in partition.build(LABELS, seed=0).shares[0]) >= 30


def test_balanced_marginals_are_exact():
    rng = np.random.default_rng(0)
    sizes_C = np.array([5, 0, 17, 40, 1])
    for alpha in (1e-3, 0.1, 10.0):
        counts_KC = balanced_counts(sizes_C, 4, alpha, rng)
        np.testing.assert_array_equal(counts_KC.sum(axis=0), sizes_C)
        assert sorted(counts_KC.sum(axis=1)) == [15, 16, 16, 16]
        assert counts_KC.min() >= 0


def test_rounding_by_hand():
    table = np.array([[1.6, 0.4], [0.4, 1.6]])
    np.testing.assert_array_equal(round_to_sums(table, np.array([2, 2]), np.array([2, 2])), [[2, 0], [0, 2]])


def test_shards_give_exactly_c_classes_with_equal_holders():
    for num_clients, per_client in ((10, 2), (7, 3), (5, 2), (3, 10)):
        partition = Shards(num_clients=num_clients, classes_per_client=per_client)
        counts_KC = partition.build(LABELS, seed=0).counts(TRAIN_N)
        assert ((counts_KC > 0).sum(axis=1) == per_client).all()
        holders_C = (counts_KC > 0).sum(axis=0)
        assert holders_C.max() - holders_C.min() <= 1
        for label in range(10):  # a class is cut into equal parts
            parts = counts_KC[counts_KC[:, label] > 0, label]
            assert parts.max() - parts.min() <= 1


def test_quantity_skews_sizes_but_not_classes():
    labels_N = np.tile(np.arange(2), 5000)
    shares = Quantity(num_clients=5, alpha=0.5).split(labels_N, 2, np.random.default_rng(0))
    sizes = [len(share) for share in shares]
    assert max(sizes) > 3 * min(sizes)
    for share in shares:  # within five standard deviations of a fair coin
        assert abs(labels_N[share].mean() - 0.5) < 5 * 0.5 / np.sqrt(len(share))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dirichlet(num_clients=10, alpha=0), "scenario.alpha=0.5"),
        (lambda: Dirichlet(num_clients=10, alpha=-1), "scenario.alpha=0.5"),
        (lambda: Dirichlet(num_clients=10, alpha=float("nan")), "scenario.alpha=0.5"),
        (lambda: Dirichlet(num_clients=10, alpha="much"), "scenario.alpha=0.5"),
        (lambda: Dirichlet(num_clients=0, alpha=1), "scenario.num_clients=10"),
        (lambda: Dirichlet(num_clients=2.5, alpha=1), "scenario.num_clients=10"),
        (lambda: Dirichlet(num_clients=10, alpha=1, recipe="other"), "niid_bench, balanced"),
        (lambda: Dirichlet(num_clients=10, alpha=1, min_size=-1), "scenario.min_size=10"),
        (lambda: Dirichlet(num_clients=10, alpha=1, max_tries=0), "scenario.max_tries=1000"),
        (lambda: IID(num_clients=0), "scenario.num_clients=10"),
        (lambda: Quantity(num_clients=10, alpha=0), "scenario.alpha=0.5"),
        (lambda: Quantity(num_clients=10, alpha=1, min_size=0), "scenario.min_size=10"),
        (lambda: Shards(num_clients=10, classes_per_client=0), "scenario.classes_per_client=2"),
    ],
)
def test_a_bad_number_says_what_to_type(make, words):
    with pytest.raises(FedclError, match=words):
        make()


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        (IID(num_clients=1001), "scenario.num_clients=1000"),
        (Dirichlet(num_clients=101, alpha=1), "scenario.num_clients=100"),
        (Dirichlet(num_clients=100, alpha=0.01, min_size=10, max_tries=20), "larger scenario.alpha"),
        (Dirichlet(num_clients=101, alpha=1, recipe="balanced"), "scenario.num_clients=100"),
        (Quantity(num_clients=100, alpha=0.01, max_tries=20), "larger scenario.alpha"),
        (Shards(num_clients=10, classes_per_client=11), "scenario.classes_per_client=10"),
        (
            Shards(num_clients=4, classes_per_client=2),
            "scenario.num_clients=5 or",
        ),
        (Shards(num_clients=500, classes_per_client=2), "fewer scenario.num_clients"),
    ],
)
def test_an_impossible_split_says_what_to_type(partition, words):
    with pytest.raises(ScenarioError, match=words):
        partition.build(LABELS, seed=0)
