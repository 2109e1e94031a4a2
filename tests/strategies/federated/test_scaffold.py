"""SCAFFOLD against algorithm 1 of the paper (option II), written out in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.errors import ConfigError
from fedcl.federated.payload import Reply
from fedcl.models.mlp_batchnorm import BatchNormMLP
from fedcl.training.recipe import Training
from strategies.federated.scaffold import Scaffold

RECIPE = Training(epochs=3, batch_size=64, lr=0.05, momentum=0.0, weight_decay=1e-2, schedule="constant")


def local(hand, x, c, c_i, data, rate, steps):
    """Equations 3 and 4: y_i after `steps` full-batch steps, and c_i+; weight decay is part of the gradient."""
    y = x.clone()
    for _ in range(steps):
        at = y.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(hand.scores(at, hand.pixels(data)), data.labels_N), at)
        y = y - rate * (g + 1e-2 * y - c_i + c)
    return y, c_i - c + (x - y) / (steps * rate)


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_two_rounds_by_hand(hand, run_rounds, server_lr):
    """Three clients, of which two are there in the first round and two others in the second."""
    strategy, ctx = Scaffold(training=RECIPE, server_lr=server_lr), hand.context()
    shards, kept = [hand.shard(number) for number in (0, 2, 5)], {}
    x = hand.flat(strategy.init(ctx).weights)
    c, own = torch.zeros_like(x), {}
    state = None
    for round, there in enumerate(([0, 1], [1, 2])):
        asked = [shards[number] for number in there]
        state, (clients,) = run_rounds(strategy, replace(ctx, round=round), [asked], state, kept)
        moves, changes = [], []
        for data in asked:
            before = own.get(data.origin.client, torch.zeros_like(x))
            y, after = local(hand, x, c, before, data, 0.05, 3)
            own[data.origin.client] = after
            moves.append(y - x)
            changes.append(after - before)
        x = x + server_lr / 2 * sum(moves)  # equation 5; clients count alike, whatever they hold
        c = c + sum(changes) / clients.num_clients
        torch.testing.assert_close(hand.flat(state.weights), x, rtol=0, atol=2e-6)
        torch.testing.assert_close(state.tensors["control"].double(), c, rtol=0, atol=2e-5)
        for data in asked:
            found = kept[data.origin.client].tensors["control"].double()
            torch.testing.assert_close(found, own[data.origin.client], rtol=0, atol=2e-5)


def test_a_sampled_client_moves_the_control_by_its_share_of_all_clients(hand, run_rounds, given):
    """c <- c + 1/N sum: N is all clients, sampled or not."""
    strategy, ctx = Scaffold(training=RECIPE), hand.context()
    state = strategy.init(ctx)
    reply = Reply(
        client=0, num_examples=5, weights=state.weights, tensors={"control": torch.ones_like(state.tensors["control"])}
    )
    clients = given(reply)
    clients.num_clients = 4
    after = strategy.round(state, clients, ctx)
    assert after.tensors["control"].unique().tolist() == [0.25]
    assert all(torch.equal(after.weights[name], state.weights[name]) for name in state.weights)


def test_both_controls_travel_as_one_tensor_each(hand, run_rounds):
    strategy, ctx = Scaffold(training=RECIPE), hand.context()
    _, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(1, count=0)]])
    size = 4 * 4 + 4 + 3 * 4 + 3
    assert clients.asked[0].tensors["control"].shape == (size,)
    full, empty = clients.replies
    assert full.tensors["control"].shape == (size,)
    assert (empty.num_examples, empty.weights, empty.tensors, empty.keep) == (0, None, {}, None)


def test_nobody_there_changes_nothing(hand, run_rounds):
    strategy, ctx = Scaffold(training=RECIPE), hand.context()
    before = strategy.init(ctx)
    state, _ = run_rounds(strategy, ctx, [[hand.shard(0, count=0)]])
    assert torch.equal(hand.flat(state.weights), hand.flat(before.weights))
    assert not state.tensors["control"].any()


def test_running_statistics_are_averaged_and_counters_go_on(hand, run_rounds):
    strategy, ctx = Scaffold(training=RECIPE, server_lr=0.5), replace(hand.context(), model=BatchNormMLP(hidden=(4,)))
    before = strategy.init(ctx)
    state, (clients,) = run_rounds(strategy, ctx, [[hand.shard(0), hand.shard(3)]])
    parameters = {name for name, _ in strategy.model(state, ctx).named_parameters()}
    assert state.tensors["control"].numel() == sum(before.weights[name].numel() for name in parameters)
    for name in {*before.weights} - parameters:
        sent = [reply.weights[name] for reply in clients.replies]
        expected = sum(sent) / 2 if sent[0].is_floating_point() else torch.maximum(*sent)
        torch.testing.assert_close(state.weights[name], expected)


def test_a_control_of_another_size_is_refused(hand):
    strategy, ctx = Scaffold(), hand.context()
    right = strategy.init(ctx).tensors["control"]
    for control, problem in ((right, None), (right[1:], "expected"), (right.long(), "int64")):
        said = strategy.unusable("train", Reply(client=0, num_examples=1, tensors={"control": control}), ctx)
        assert said is problem if problem is None else problem in said


@pytest.mark.parametrize("change", [{"momentum": 0.9}, {"optimizer": "adam"}, {"clip": 1.0}, {"average": 0.9}])
def test_only_plain_sgd(change):
    with pytest.raises(ConfigError, match="plain SGD"):
        Scaffold(training=replace(RECIPE, **change))
    with pytest.raises(ConfigError, match="server_lr"):
        Scaffold(server_lr=0)


def test_a_schedule_counts_each_of_its_step_sizes():
    recipe = replace(RECIPE, schedule="step", milestones=(0.5,), decay=0.1, epochs=4)
    assert Scaffold(training=recipe)._way(5) == pytest.approx(0.05 * 2 + 0.005 * 2)
