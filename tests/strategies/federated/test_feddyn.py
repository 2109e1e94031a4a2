"""FedDyn against algorithm 1 of the paper, written out in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.training.recipe import Training
from strategies.federated.feddyn import FedDyn

RECIPE = Training(epochs=3, batch_size=64, lr=0.05, momentum=0.9, weight_decay=1e-2, schedule="constant")


def local(hand, x, g, alpha, data, rate=0.05, rho=0.9):
    """Three full-batch updates on L - <g, y> + alpha / 2 ||y - x||^2, whose decay is part of L."""
    y, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(3):
        at = y.clone().requires_grad_(True)
        loss = F.cross_entropy(hand.scores(at, hand.pixels(data)), data.labels_N)
        loss = loss + 1e-2 / 2 * at @ at - g @ at + alpha / 2 * (at - x) @ (at - x)
        (gradient,) = torch.autograd.grad(loss, at)
        velocity = rho * velocity + gradient
        y = y - rate * velocity
    return y


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_three_rounds_by_hand(hand, run_rounds, alpha):
    """Three clients, of which two are there in a round: each goes on from its own gradient, and 1/m counts all."""
    strategy, ctx = FedDyn(training=RECIPE, alpha=alpha), hand.context()
    shards, kept = [hand.shard(0), hand.shard(2), hand.shard(5)], {}
    x = hand.flat(strategy.init(ctx).weights)
    h, own, state = torch.zeros_like(x), [torch.zeros_like(x) for _ in shards], None
    for there in ([0, 1], [1, 2], [0, 1]):
        # the third client of the run is one that is sampled, and has nothing
        asked = [shards[number] for number in there] + [hand.shard(9, count=0)]
        state, (clients,) = run_rounds(strategy, ctx, [asked], state, kept)
        assert clients.num_clients == 3
        ways = []
        for number in there:
            way = local(hand, x, own[number], alpha, shards[number]) - x
            own[number] = own[number] - alpha * way
            ways.append(way)
        h = h - alpha / 3 * sum(ways)
        x = x + sum(ways) / 2 - h / alpha
        torch.testing.assert_close(hand.flat(state.weights), x, rtol=0, atol=5e-6)
        torch.testing.assert_close(hand.flat(state.tensors), h, rtol=0, atol=2e-6)
        for number in there:
            found = hand.flat(kept[shards[number].origin.client].tensors)
            torch.testing.assert_close(found, own[number], rtol=0, atol=2e-6)


def test_what_a_client_keeps_becomes_the_gradient_of_its_loss(hand, run_rounds):
    """At a minimum of the penalised loss, g is the gradient of L there: equation of first order of the paper."""
    recipe = replace(RECIPE, epochs=400, momentum=0.0, weight_decay=0.0, lr=0.02)
    strategy, ctx, data, kept = FedDyn(training=recipe, alpha=10.0), hand.context(), hand.shard(2), {}
    _, (clients,) = run_rounds(strategy, ctx, [[data]], None, kept)
    at = hand.flat(clients.replies[0].weights).requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(hand.scores(at, hand.pixels(data)), data.labels_N), at)
    torch.testing.assert_close(hand.flat(kept[2].tensors), gradient, rtol=0, atol=1e-5)


def test_nobody_there_changes_nothing(hand, run_rounds):
    strategy, ctx = FedDyn(training=RECIPE), hand.context()
    before, _ = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(1)]])
    after, _ = run_rounds(strategy, ctx, [[hand.shard(0, count=0)]], before)
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


def test_running_statistics_are_averaged_and_under_no_penalty(hand, run_rounds):
    strategy, ctx, kept = FedDyn(training=RECIPE), replace(hand.context(), model=BatchNormMLP(hidden=(4,))), {}
    state, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(3)]], None, kept)
    parameters = {name for name, _ in strategy.model(state, ctx).named_parameters()}
    assert {*state.tensors} == {*kept[0].tensors} == parameters
    for name in {*state.weights} - parameters:
        sent = [reply.weights[name] for reply in clients.replies]
        expected = sum(sent) / 2 if sent[0].is_floating_point() else torch.maximum(*sent)
        torch.testing.assert_close(state.weights[name], expected)


def test_a_penalty_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="alpha"):
        FedDyn(alpha=0.0)
