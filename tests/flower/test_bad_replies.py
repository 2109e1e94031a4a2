"""What one client sends costs that client the round, with a reason, and nobody else; its bytes are what came."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import Array, MessageType
from flwr.serverapp.strategy import FedAvg

from fedcl.federated.contract import Reply
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.client import ClientRuntime, make_client_app
from fedcl.flower.compat import PARTITION, new_context
from fedcl.flower.fields import to_array
from fedcl.flower.serial import Serial, SerialGrid
from fedcl.flower.simulate import simulate
from fedcl.training.loop import Training
from strategies.federated.fedavg_replay import FedAvgReplay

BAD = 2  # the client


@dataclass(frozen=True, kw_only=True)
class Tampering(Serial):
    """One client's reply is changed on its way."""

    tamper: Callable

    def launch(self, server, world, load):
        honest = make_client_app(ClientRuntime(world=lambda: world, num_threads=torch.get_num_threads()))

        def app(message, context):
            reply = honest(message, context)
            if message.metadata.message_type == MessageType.TRAIN and context.node_config[PARTITION] == BAD:
                self.tamper(reply.content)
            return reply

        server(SerialGrid(app, world.num_clients), new_context(1, 0, 1))  # type: ignore[arg-type]


def one_round(world, tamper):
    seen = []
    simulate(world, Tampering(tamper=tamper), num_rounds=1, on_round=seen.append)
    return seen[0]


def array(**changes):
    sent = to_array(np.zeros(3, np.float32))
    about = {"dtype": sent.dtype, "shape": sent.shape, "stype": sent.stype, "data": sent.data} | changes
    return lambda content: content["weights"].update(b=Array(**about))


HUGE = to_array(np.zeros(3, np.float32)).data.replace(b"(3,), }", b"(3000000000000,), }".ljust(7))


@pytest.mark.parametrize(
    ("tamper", "words", "payload"),
    [
        (array(shape=(10**12,)), "says float32 (1000000000000,)", 6 * 4 + 3 * 4 + 8),
        (array(shape=(-(10**12),)), "says float32 (-1000000000000,)", 44),
        (array(dtype="f4, (99999,99999)f8"), "is not a readable array", 44),
        (array(dtype="datetime64[s]", shape=(3,)), "'b'", 44),
        (array(data=HUGE), "is not a readable array", None),
        (lambda content: content["metrics"].update({"num-examples": -5}), "must be a count, got -5", 44),
        (lambda content: content["metrics"].update({"num-examples": 10**400}), "ValueError", 0),
        (lambda content: content["metrics"].update({"big": 10**400}), "ValueError", 0),
        (lambda content: content.clear(), "'metrics' is missing", 0),
    ],
    ids=["many", "negative", "dtype", "date", "head", "count", "not to be sent", "neither", "empty"],
)
def test_a_crafted_reply_costs_one_client_the_round(toys, tamper, words, payload):
    result = one_round(toys.new_world(toys.Steps()), tamper)
    (failure,) = result.failed
    assert failure["client"] == BAD
    assert words in failure["reason"]
    assert result.counted
    assert torch.equal(result.state.weights["b"], torch.full((3,), (1 + 2 + 4) / 3))
    assert all(row.wire_bytes >= row.payload_bytes for row in result.rows)
    rows = [row for row in result.rows if row.client == BAD and row.direction == "up"]
    assert payload is None or sum(row.payload_bytes for row in rows) == payload  # and not what it claims
    assert not any(row.delivered for row in rows)


@dataclass(frozen=True, kw_only=True)
class Spoilt(FlowerStrategy):
    how: str

    def client_work(self, request, shards, round, ctx):
        replies = super().client_work(request, shards, round, ctx)
        changes = {"no weights": {"weights": None}, "a metric more": {"metrics": {"mine": 1.0}}}[self.how]
        return [replace(reply, **changes) if reply.client == BAD else reply for reply in replies]


@pytest.mark.parametrize("how", ["no weights", "a metric more"])
def test_a_reply_that_flower_cannot_combine(toys, how):
    """Without weights a client has failed; what only some of them measure is not combined."""
    spoilt = Spoilt(algorithm=FedAvg(), training=Training(epochs=1, lr=0.1, batch_size=2), how=how)
    result = one_round(toys.new_world(spoilt), lambda content: None)
    assert result.counted
    failed = [{"client": BAD, "reason": f"WireError: client {BAD} sent no weights"}]
    assert list(result.failed) == (failed if how == "no weights" else [])
    assert [reply.client for reply in result.replies] == ([0, 1, 3] if how == "no weights" else [0, 1, 2, 3])


@pytest.mark.parametrize(
    "strategy",
    [FlowerStrategy(algorithm=FedAvg(), training=Training(epochs=1)), FedAvgReplay(training=Training(epochs=1))],
)
def test_only_a_client_without_examples_may_be_without_weights(strategy):
    assert strategy.unusable(Reply(client=0, num_examples=0)) is None
    assert strategy.unusable(Reply(client=0, num_examples=1, weights={})) is None
    assert strategy.unusable(Reply(client=0, num_examples=1)) == "sent no weights"
