"""Robust algorithms with too few clients for their guarantee: refused at the start, not counted in a round."""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from fedcl.core.errors import ConfigError
from fedcl.federated.contract import client_work
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.training.recipe import Training


def bridge(algorithm) -> FlowerStrategy:
    return FlowerStrategy(algorithm=algorithm, training=Training(epochs=1, lr=0.1, batch_size=2))


@pytest.mark.parametrize(
    ("algorithm", "needed"),
    [
        (FedAvg(), 0),
        (FedMedian(), 0),
        (Krum(), 3),  # 2 f + 3
        (Krum(num_malicious_nodes=4), 11),
        (MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2), 5),
        (MultiKrum(num_malicious_nodes=1, num_nodes_to_select=6), 7),  # six good ones and a malicious one
        (Bulyan(), 3),  # 4 f + 3
        (Bulyan(num_malicious_nodes=2), 11),
        (FedTrimmedAvg(beta=0.2), 5),  # one of five at each end
        (FedTrimmedAvg(beta=0.3), 4),
        (FedTrimmedAvg(beta=0.0), 0),  # a plain mean, and said to be one
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_how_many_replies_are_enough(algorithm, needed):
    strategy = bridge(algorithm)
    assert [strategy.too_few(replies) is None for replies in range(40)] == [replies >= needed for replies in range(40)]


@pytest.mark.parametrize(
    ("algorithm", "replies", "typed", "words"),
    [
        (Bulyan(num_malicious_nodes=2), 10, {"num_malicious_nodes": 1}, r"11 clients \(4 f \+ 3\), not of 10"),
        (Krum(num_malicious_nodes=9), 10, {"num_malicious_nodes": 3}, r"21 clients \(2 f \+ 3\), not of 10"),
        (MultiKrum(num_nodes_to_select=5), 4, {"num_nodes_to_select": 4}, "of 5 clients, not of 4"),
        (FedTrimmedAvg(beta=0.1), 7, {"beta": 0.15}, "cuts off nobody of 7 clients, and needs the replies of 10"),
    ],
    ids=["Bulyan", "Krum", "MultiKrum", "FedTrimmedAvg"],
)
def test_what_is_to_be_typed_helps(algorithm, replies, typed, words):
    ((key, value),) = typed.items()
    problem = bridge(algorithm).too_few(replies)
    assert re.search(words, problem)
    assert f"type strategy.algorithm.{key}={value}" in problem
    assert bridge(type(algorithm)(**typed)).too_few(replies) is None


def test_numbers_that_mean_nothing():
    for algorithm, words in (
        (Krum(num_malicious_nodes=-1), "num_malicious_nodes=-1 must be at least 0"),
        (MultiKrum(num_nodes_to_select=0), "num_nodes_to_select=0 must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            bridge(algorithm)


@pytest.mark.parametrize("asked", [None, 4], ids=["all", "some"])
def test_too_few_clients_are_refused_before_the_first_round(toys, asked):
    sim = toys.new_world(bridge(Bulyan(num_malicious_nodes=1)), clients=6 if asked is None else 8)
    with pytest.raises(ConfigError, match=r"clients_per_round=\d: Bulyan .* 7 clients .* type .*malicious_nodes=0, or"):
        simulate(sim, Serial(), num_rounds=1, clients_per_round=asked)


@dataclass(frozen=True, kw_only=True)
class Absent(FlowerStrategy):
    """In round 1 two clients fail."""

    @client_work(sends=["weights"])
    def train(self, ask, data, mine, ctx):
        if ctx.round == 1 and ctx.client in (2, 5):
            raise ValueError("gone")
        return super().train(ask, data, mine, ctx)


def test_a_round_with_too_few_replies_does_not_count_and_the_run_goes_on(toys):
    krum = Absent(algorithm=Krum(num_malicious_nodes=1), training=Training(epochs=1, lr=0.1, batch_size=2))
    seen = []
    simulate(toys.new_world(krum, clients=6), Serial(), num_rounds=3, on_round=seen.append)
    assert [result.counted for result in seen] == [True, False, True]
    assert [result.reason is None for result in seen] == [True, False, True]
    assert "needs the replies of 5 clients (2 f + 3), not of 4" in seen[1].reason
    assert [failure["reason"].partition(" (")[0] for failure in seen[1].failed] == ["ValueError: gone"] * 2
    assert not any(row.delivered for row in seen[1].rows)
    moved = [sum(float((now - was).norm()) for now, was in pairs(*two)) for two in pairwise(seen)]
    assert moved[0] == 0 < moved[1]


def pairs(before, after):
    return [(after.state.weights[name], tensor) for name, tensor in before.state.weights.items()]


def test_clients_without_examples_do_not_help(toys):
    """Six replies come, but two of them are of clients that hold nothing at this step."""
    sim = toys.new_world(bridge(Krum(num_malicious_nodes=1)), clients=6)
    sim = replace(sim, shard=lambda c, s: toys.shard(c, s).select([]) if c < 2 else toys.shard(c, s))
    seen = []
    simulate(sim, Serial(), num_rounds=1, on_round=seen.append)
    assert (seen[0].failed, seen[0].counted) == ((), False)
    assert "not of 4" in seen[0].reason
    start = sim.strategy.init(sim.ctx).weights
    assert all(torch.equal(seen[0].state.weights[name], tensor) for name, tensor in start.items())
