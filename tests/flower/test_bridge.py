"""Flower's own algorithms, called through the bridge, on weights that a reader can average in the head."""

import copy
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    QFedAvg,
)

from fedcl.core.errors import ConfigError, RunError
from fedcl.federated import helpers
from fedcl.federated.payload import Reply, ServerState
from fedcl.flower.batched import Batched
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.compat import train_message
from fedcl.flower.serial import Serial, SerialGrid
from fedcl.flower.simulate import simulate
from fedcl.training.recipe import Training

START = {"w": torch.tensor([[0.0, 10.0]]), "s": torch.tensor(1.0), "count": torch.tensor(3)}


def bridge(algorithm) -> FlowerStrategy:
    return FlowerStrategy(algorithm=algorithm, training=Training(epochs=1, lr=0.1, weight_decay=0.0, batch_size=2))


def reply(client: int, examples: int, *w: float, s: float = 1.0, count: int = 3) -> Reply:
    weights = {"w": torch.tensor([list(w)]), "s": torch.tensor(s), "count": torch.tensor(count)}
    return Reply(client=client, num_examples=examples, weights=weights)


@pytest.fixture
def combined(toys, given):
    def run(algorithm, *replies: Reply, start: ServerState | None = None, round: int = 0) -> ServerState:
        state, ctx = start or ServerState(weights=START), replace(toys.new_tools(), round=round)
        return bridge(algorithm).round(state, given(*replies), ctx)

    return run


def test_fedavg_is_the_mean_weighted_by_examples(combined):
    state = combined(FedAvg(), reply(0, 1, 4.0, 8.0, s=0.0), reply(1, 3, 0.0, 16.0, s=4.0, count=7))
    assert state.weights["w"].tolist() == [[1.0, 14.0]]  # (1 x 4 + 3 x 0) / 4, (1 x 8 + 3 x 16) / 4
    assert state.weights["s"].item() == 3.0
    assert state.weights["count"].item() == 7  # a counter: the largest
    assert {name: tensor.dtype for name, tensor in state.weights.items()} == {
        "w": torch.float32,
        "s": torch.float32,
        "count": torch.int64,
    }
    assert state.tensors == {}


def test_robust_algorithms(combined):
    replies = [reply(client, 1, float(value), 0.0) for client, value in enumerate((1, 2, 3, 4, 1000))]
    assert combined(FedMedian(), *replies).weights["w"].tolist() == [[3.0, 0.0]]
    assert combined(FedTrimmedAvg(beta=0.2), *replies).weights["w"].tolist() == [[3.0, 0.0]]
    # Krum scores by the 2 nearest: 1 -> 1 + 4, 2 -> 1 + 1, 3 -> 1 + 1, 4 -> 1 + 4; the first of the lowest.
    assert combined(Krum(num_malicious_nodes=1), *replies).weights["w"].tolist() == [[2.0, 0.0]]
    # Counters must not steer the choice: client 1 has seen many more batches.
    replies[1] = reply(1, 1, 2.0, 0.0, count=10**6)
    assert combined(Krum(num_malicious_nodes=1), *replies).weights["w"].tolist() == [[2.0, 0.0]]


def test_fedavgm_by_hand(combined):
    algorithm = FedAvgM(server_learning_rate=1.0, server_momentum=0.5)
    first = combined(algorithm, reply(0, 1, 4.0, 10.0))
    assert first.weights["w"].tolist() == [[4.0, 10.0]]
    second = combined(algorithm, reply(0, 1, 4.0, 10.0), start=first, round=1)
    assert second.weights["w"].tolist() == [[6.0, 10.0]]  # no new step, half of the last one


@pytest.mark.parametrize(
    "algorithm",
    [
        FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3),
        FedYogi(eta=0.1),
        FedAdagrad(eta=0.1),
        FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_what_an_algorithm_remembers_is_in_the_state(combined, algorithm):
    """Three rounds of Flower's own object, kept alive, against states that were saved and reordered."""
    alive = copy.deepcopy(algorithm)
    alive.min_train_nodes = alive.min_available_nodes = 0
    names = ("w", "s")
    arrays = ArrayRecord({name: Array(START[name].numpy()) for name in names})
    state = ServerState(weights=START)
    for round in range(3):
        replies = [reply(0, 2, 1.0 + round, 9.0, s=2.0), reply(1, 1, -3.0, 11.0, s=0.5)]
        alive.configure_train(round + 1, arrays, ConfigRecord(), SerialGrid(ClientApp(), 0))
        messages = [
            train_message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({name: Array(each.weights[name].numpy()) for name in names}),
                        "metrics": MetricRecord({"num-examples": each.num_examples}),
                    }
                ),
                each.client,
            )
            for each in replies
        ]
        arrays, _ = alive.aggregate_train(round + 1, messages)
        arrays = ArrayRecord({name: Array(arrays[name].numpy().astype(np.float32)) for name in names})
        saved = ServerState(weights=state.weights, tensors=dict(sorted(state.tensors.items(), reverse=True)))
        state = combined(algorithm, *replies, start=saved, round=round)
        for name in names:
            np.testing.assert_array_equal(state.weights[name].numpy(), arrays[name].numpy())
    assert state.tensors
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.tensors.values())
    assert getattr(algorithm, "m_t", None) is None  # the recipe itself remembers nothing


def test_fedprox_sends_mu_and_clients_use_it(toys, monkeypatch, run_rounds):
    strategy, ctx, given = bridge(FedProx(proximal_mu=0.25)), toys.new_tools(), []
    monkeypatch.setattr(helpers, "train", lambda model, *_, penalty, **__: given.append((model, penalty)) or model)
    _, (clients,) = run_rounds(strategy, ctx, [[toys.shard(1, 0)]])
    assert clients.asked[0].scalars == {"proximal-mu": 0.25}
    ((model, penalty),) = given
    assert float(penalty(model)) == 0  # at the weights that were sent
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 2
    assert float(penalty(model)) == pytest.approx(0.25 / 2 * 4 * sum(p.numel() for p in model.parameters()))
    _, (clients,) = run_rounds(bridge(FedAvg()), ctx, [[toys.shard(1, 0)]])
    assert clients.asked[0].scalars == {}


def test_a_strong_proximal_term_holds_clients_back(toys, run_rounds):
    ctx = toys.new_tools()
    moved = []
    for algorithm in (FedAvg(), FedProx(proximal_mu=5.0)):
        strategy = bridge(algorithm)
        state = strategy.init(ctx)
        _, (clients,) = run_rounds(strategy, ctx, [[toys.shard(3, 0)]])
        moved.append(sum((clients.replies[0].weights[n] - w).norm().item() for n, w in state.weights.items()))
    assert moved[1] < moved[0]


def test_sampling_options_and_global_randomness_are_not_used(toys, run_rounds):
    strategy = bridge(FedAvg(fraction_train=0.1, min_train_nodes=50, min_available_nodes=50))
    random.seed(3)
    before = random.getstate()
    run_rounds(strategy, toys.new_tools(), [[toys.shard(1, 0)]])  # would wait for 50 nodes for ever
    assert random.getstate() == before


@pytest.mark.parametrize("wire", ["float32", "uint8"])
def test_runtimes_agree_and_batch_norm_survives(toys, wire):
    sim = toys.new_world(bridge(FedAvg()), wire=wire)
    sim = replace(sim, ctx=toys.new_tools(toys.Linear(norm=True)))
    states = [simulate(sim, runtime, num_rounds=2) for runtime in (Serial(), Batched(), Serial())]
    for other in states[1:]:
        assert all(torch.equal(other.weights[name], tensor) for name, tensor in states[0].weights.items())
    # One epoch of 2-image batches over 2, 3, 4 and 5 images: 5 need 3 batches, and the largest count stays.
    assert states[0].weights["0.num_batches_tracked"].item() == 2 * 3
    model = sim.strategy.model(states[0], sim.ctx)
    assert torch.equal(model.state_dict()["2.weight"], states[0].weights["2.weight"])


def test_training_helps(toys):
    sim = toys.new_world(bridge(FedAvg()))
    losses = []

    def loss(result):
        shard = toys.shard(3, 0)
        scores = sim.strategy.model(result.state, sim.ctx)(toys.UNITS.apply(shard.inputs))
        losses.append(torch.nn.functional.cross_entropy(scores, shard.labels_N).item())

    simulate(sim, Serial(), num_rounds=8, on_round=loss)
    assert losses[-1] < losses[0]


def test_an_empty_shard_has_no_weight(toys, given, run_rounds):
    sim = toys.new_world(bridge(FedAvg()))
    empty = replace(sim, shard=lambda c, s: toys.shard(c, s).select([]) if c == 1 else toys.shard(c, s))
    seen, replies = [], []
    simulate(empty, Serial(), num_rounds=1, on_round=seen.append, on_reply=replies.append)
    assert seen[0].failed == ()
    assert [reply.num_examples for reply in replies if reply.client == 1] == [0]
    strategy, state = sim.strategy, sim.strategy.init(sim.ctx)
    combined = strategy.round(state, given(*(reply for reply in replies if reply.client != 1)), sim.ctx)
    for name, tensor in seen[0].state.weights.items():
        assert torch.equal(tensor, combined.weights[name])
    nobody = strategy.round(state, given(*(reply for reply in replies if reply.client == 1)), sim.ctx)
    assert nobody is state


@dataclass
class Forgetful(FedAvg):
    """Remembers something that the bridge has never heard of."""

    def __init__(self):
        super().__init__()
        self.secret = 0

    def aggregate_train(self, server_round, replies):
        self.secret = server_round + 1000
        return super().aggregate_train(server_round, replies)


def test_what_cannot_work_is_said(combined):
    with pytest.raises(ConfigError, match="does not average weights"):
        bridge(object())
    with pytest.raises(ConfigError, match="remembers secret"):
        combined(Forgetful(), reply(0, 1, 1.0, 1.0))
    with pytest.raises(RunError, match=r"QFedAvg could not combine round 1: .*train_loss"):
        combined(QFedAvg(client_learning_rate=0.1), reply(0, 1, 1.0, 1.0))
    with pytest.raises(RunError, match=r"Bulyan could not combine round 1: .* needs the replies of 7 clients"):
        combined(Bulyan(num_malicious_nodes=1), reply(0, 1, 1.0, 1.0))
