"""MOON against equation 3 and algorithm 1 of the paper, written out in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.federated.payload import ClientState, Payload
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.training.recipe import Training
from strategies.federated.moon import Moon

RECIPE = Training(epochs=3, batch_size=64, lr=0.05, momentum=0.9, weight_decay=1e-2, schedule="constant")


def cosine(a, b):
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-8)  # a dead hidden layer has none


def local(hand, x, last, mu, tau, data):
    """Three full-batch updates on cross-entropy and mu times equation 3, from x; `last` is None in the first round."""
    y, velocity, images = x.clone(), torch.zeros_like(x), hand.pixels(data)
    for _ in range(3):
        at = y.clone().requires_grad_(True)
        loss = F.cross_entropy(hand.scores(at, images), data.labels_N)
        if last is not None:
            z = hand.hidden(at, images)
            same, old = (torch.exp(cosine(z, hand.hidden(w, images)) / tau) for w in (x, last))
            loss = loss + mu * -torch.log(same / (same + old)).mean()
        (gradient,) = torch.autograd.grad(loss, at)
        velocity = 0.9 * velocity + gradient + 1e-2 * y
        y = y - 0.05 * velocity
    return y


@pytest.mark.parametrize(("mu", "tau"), [(5.0, 0.5), (1.0, 2.0)])
def test_three_rounds_by_hand(hand, run_rounds, mu, tau):
    """Three clients, of which two are there in a round: each turns from its own network of when it was there last."""
    strategy, ctx = Moon(training=RECIPE, mu=mu, temperature=tau), hand.context()
    shards, kept = [hand.shard(0), hand.shard(2), hand.shard(5)], {}
    x, last, state = hand.flat(strategy.init(ctx).weights), [None] * 3, None
    for there in ([0, 1], [1, 2], [0, 1]):
        state, _ = run_rounds(strategy, ctx, [[shards[number] for number in there]], state, kept)
        n = torch.tensor([len(shards[number]) for number in there], dtype=torch.float64)
        for number in there:
            last[number] = local(hand, x, last[number], mu, tau, shards[number])
        x = sum(share * last[number] for share, number in zip(n / n.sum(), there, strict=True))
        torch.testing.assert_close(hand.flat(state.weights), x, rtol=0, atol=5e-6)
    for number, data in enumerate(shards):
        found = hand.flat(kept[data.origin.client].tensors)
        torch.testing.assert_close(found, last[number], rtol=0, atol=5e-6)


def test_the_contrast_matters_from_the_second_round(hand, run_rounds):
    shards, ctx = [hand.shard(2), hand.shard(5)], hand.context()
    with_it, without = (Moon(training=RECIPE, mu=mu) for mu in (5.0, 0.0))
    one, two = ([run_rounds(each, ctx, [shards] * rounds)[0] for each in (with_it, without)] for rounds in (1, 2))
    assert torch.equal(*(hand.flat(state.weights) for state in one))
    assert not torch.equal(*(hand.flat(state.weights) for state in two))


def test_neither_network_beside_the_trained_one_moves(hand):
    """With batch norm: running statistics of the networks that are looked at stay, the trained one's go on."""
    strategy, ctx = Moon(training=RECIPE), replace(hand.context(), model=BatchNormMLP(hidden=(4,)))
    down, last = dict(strategy.init(ctx).weights), dict(ctx.new_model(5).state_dict())
    before = [{name: tensor.clone() for name, tensor in weights.items()} for weights in (down, last)]
    reply = strategy.train(Payload(weights=down), hand.shard(3), ClientState(tensors=last), ctx)
    for weights, kept in zip((down, last), before, strict=True):
        assert all(torch.equal(weights[name], kept[name]) for name in kept)
    assert all((reply.weights[name] == 3).all() for name in down if "num_batches" in name)
    assert {*reply.keep.tensors} == {*down}


def test_nothing_to_say_and_nothing_forgotten(hand, run_rounds):
    strategy, ctx, kept = Moon(training=RECIPE), hand.context(), {}
    before, _ = run_rounds(strategy, ctx, [[hand.shard(0)]], None, kept)
    mine = kept[0]
    after, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0, count=0)]], before, kept)
    assert kept[0] is mine
    assert (clients.replies[0].num_examples, clients.replies[0].weights) == (0, None)
    assert torch.equal(hand.flat(after.weights), hand.flat(before.weights))


@pytest.mark.parametrize("wrong", [{"mu": -1.0}, {"temperature": 0.0}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Moon(**wrong)
