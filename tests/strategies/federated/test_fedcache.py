"""The cache by hand: whose summaries come down to whom, what a client trains on and keeps, what the server keeps."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.core.types import union
from fedcl.distill.labels import Logits
from fedcl.federated.payload import ClientState
from fedcl.training.recipe import Training
from strategies.federated.fedcache import FedCache

LOCAL = Training(updates=3, batch_size=64, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")
CACHE = FedCache(training=LOCAL, server_training=Training(updates=2, batch_size=64))


def origins(summaries):
    return [(summary.origin.client, summary.origin.round) for summary in summaries]


def test_the_latest_of_the_others_come_down(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0)
    shards = [hand.shard(client) for client in range(3)]
    state, (first, second) = run_rounds(CACHE, ctx, [shards, shards[1:]])
    assert [origins(asked.summaries) for asked in first.asked[0].values()] == [[], [], []]
    assert {client: origins(asked.summaries) for client, asked in second.asked[0].items()} == {
        1: [(0, 0), (2, 0)],
        2: [(0, 0), (1, 0)],
    }
    assert origins(state.summaries) == [(0, 0), (1, 1), (2, 1)]  # who was not there is remembered


def test_a_step_of_a_stream_leaves_its_summaries(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0)
    old, new = [hand.shard(0, (0,)), hand.shard(1, (1,))], [hand.shard(0, (2,), step=1), hand.shard(1, count=0, step=1)]
    state, (_, second) = run_rounds(CACHE, ctx, [old, new])
    assert [len(asked.summaries) for asked in second.asked[0].values()] == [1, 1]
    assert [(s.origin.client, s.origin.step) for s in state.summaries] == [(0, 0), (1, 0), (0, 1)]


def test_so_many_peers_are_drawn_for_each_client_and_round(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0)
    shards = [hand.shard(client) for client in range(6)]
    _, seen = run_rounds(replace(CACHE, peers=2), ctx, [shards] * 3)
    drawn = [[origins(asked.summaries) for asked in clients.asked[0].values()] for clients in seen[1:]]
    assert all(len(others) == 2 and (client, 0) not in others for client, others in enumerate(drawn[0]))
    assert [[c for c, _ in o] for o in drawn[0]] != [[c for c, _ in o] for o in drawn[1]]


def test_a_client_goes_on_with_its_own_network_on_its_data_and_the_others(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0)
    shards = [hand.shard(0), hand.shard(3)]
    states = {}
    state, (_, second) = run_rounds(CACHE, ctx, [shards, shards], None, states)
    w = hand.flat(CACHE.init(ctx).weights)  # all begin alike
    for asked in (None, second.asked[0][0]):
        x, y = hand.pixels(shards[0]), shards[0].labels_N
        if asked is not None:
            more, labels = union(asked.summaries)
            x, y = torch.cat([x, more.flatten(1).double()]), torch.cat([y, labels])
        for _ in range(3):
            w = w.clone().requires_grad_(True)
            (g,) = torch.autograd.grad(F.cross_entropy(hand.scores(w, x), y), w)
            w = w.detach() - 0.1 * g
    torch.testing.assert_close(hand.flat(states[0].tensors), w, rtol=0, atol=2e-6)
    own = CACHE.personal_model(state, states[0], replace(ctx, client=0))
    assert torch.equal(hand.flat(own.state_dict()), hand.flat(states[0].tensors))
    assert all(reply.weights is None for reply in second.replies)


def test_a_client_that_never_held_anything_has_the_first_network(hand, run_rounds):
    ctx, states = hand.context(ipc=1, steps=0), {}
    state, _ = run_rounds(CACHE, ctx, [[hand.shard(0), hand.shard(1, count=0)]], None, states)
    assert set(states) == {0}
    own = CACHE.personal_model(state, ClientState(), replace(ctx, client=1))
    assert torch.equal(hand.flat(own.state_dict()), hand.flat(CACHE.init(ctx).weights))


def test_the_server_trains_from_scratch_on_the_cache(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0)
    idle = replace(CACHE, server_training=Training(updates=0))
    state, _ = run_rounds(idle, ctx, [[hand.shard(0)]] * 2)
    assert torch.equal(hand.flat(state.weights), hand.flat(idle.init(ctx).weights))


def test_soft_labels_of_others_make_its_own_soft(hand, run_rounds):
    ctx = hand.context(ipc=1, steps=0, labels=Logits())
    _, (_, second) = run_rounds(CACHE, ctx, [[hand.shard(0), hand.shard(1)]] * 2)
    assert all(reply.summaries[0].is_soft for reply in second.replies)


def test_fewer_than_no_peers():
    with pytest.raises(ConfigError, match="peers"):
        FedCache(peers=-1)
