"""FedAF by hand: what its two questions carry, a step of condensation, and the server's loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedcl.core.seeding import derive
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.federated.helpers import mean_over_clients, model_of
from fedcl.federated.payload import Reply
from fedcl.training.recipe import Training
from strategies.federated.fedaf import Collaborative, FedAF, _divergence

SERVER = Training(updates=3, batch_size=64, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")
FEDAF = FedAF(training=SERVER, steps=2, gamma=0.75, collaborative=0.5, matching=0.3, temperature=2.0)


def mixed(hand, ctx, weights):
    """gamma w + (1 - gamma) w~, in float64."""
    fresh = ctx.new_model(derive(ctx.seed, "resampled network", round=ctx.round)).state_dict()
    return 0.75 * hand.flat(weights) + 0.25 * hand.flat(fresh)


def test_class_means_go_up_and_their_mean_comes_down(hand, run_rounds):
    ctx = hand.context(ipc=1)
    shards = [hand.shard(0, (0, 1), count=5), hand.shard(1, (1,), count=3), hand.shard(2, count=0)]
    state, (clients,) = run_rounds(FEDAF, ctx, [shards])
    w = FEDAF.init(ctx).weights
    first, second = clients.asked
    assert [hand.flat(first.weights).equal(hand.flat(w)), first.tensors, second.weights] == [True, {}, None]
    z = mixed(hand, ctx, w)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    means = [hand.scores(z, hand.pixels(data)) for data in shards[:2]]
    expected[0] = means[0][shards[0].labels_N == 0].mean(0)
    expected[1] = (means[0][shards[0].labels_N == 1].mean(0) + means[1].mean(0)) / 2  # clients count alike
    torch.testing.assert_close(second.tensors["means"].double(), expected, rtol=0, atol=1e-5)
    up = clients.replies
    assert [reply.client for reply in up] == [0, 1, 2, 0, 1]  # who has nothing is not asked again
    assert [reply.tensors["held"].tolist() for reply in (up[0], up[1])] == [[True, True, False], [False, True, False]]
    assert (up[2].num_examples, up[2].tensors) == (0, {})
    soft = F.softmax(hand.scores(hand.flat(w), hand.pixels(shards[1])) / 2, 1).mean(0)
    torch.testing.assert_close(up[4].tensors["soft"][1].double(), soft, rtol=0, atol=1e-6)
    assert [summary.targets.tolist() for reply in up[3:] for summary in reply.summaries] == [[0, 1], [1]]
    assert all(not kept.tensors for kept in clients.states.values())  # w is kept between the questions only
    assert [summary.origin.client for summary in state.summaries] == [0, 1]


def test_the_collaborative_term_by_hand(hand):
    """Two images of class 2, one of class 0: || mean - real ||^2 + weight / 3 || mean logits - V_c ||^2, summed."""
    ctx = hand.context()
    network = ctx.new_model(1).eval()
    w = hand.flat(network.state_dict())
    near = torch.tensor([[1.0, 2, 3], [0, 0, 0], [-1, 0, 1]])
    images = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = MatchBatch(
        inputs=images, targets=torch.tensor([0, 2, 2]), segment_N=torch.tensor([0, 1, 1]), num_segments=2
    )
    real = torch.ones(2, 4)
    x = images.flatten(1).double()
    expected = 0.0
    for rows, label, target in (([0], 0, real[0]), ([1, 2], 2, real[1])):
        feature, logits = hand.hidden(w, x[rows]).mean(0), hand.scores(w, x[rows]).mean(0)
        expected += (feature - target).square().sum() + 0.5 / 3 * (logits - near[label]).square().sum()
    objective = Collaborative(near_CC=near, weight=0.5)
    for targets in (batch.targets, F.one_hot(batch.targets, 3).float()):
        found = objective.loss(replace(batch, targets=targets), [real], MatchStep(network=network))
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_both_directions_of_the_divergence():
    own, local = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), torch.full((3, 3), 1 / 3)
    soft = torch.stack([own[0] + 0.1, own[0] - 0.1, own[1]])  # two of class 0, whose mean counts
    targets = torch.tensor([0, 0, 2])
    kl = [F.kl_div(b.log(), a, reduction="sum") for c in (0, 1) for a, b in ((own[c], local[0]), (local[0], own[c]))]
    expected = sum(kl) / 2 / 2  # half of both directions, mean of two classes
    for given in (targets, F.one_hot(targets, 3).float()):
        assert _divergence(soft, given, local).item() == pytest.approx(float(expected), rel=1e-5)


def test_the_server_goes_on_with_cross_entropy_and_the_match(hand, run_rounds):
    ctx = hand.context(ipc=1)
    shards = [hand.shard(0, (0, 1), count=4), hand.shard(1, (1, 2), count=5)]
    state, (clients,) = run_rounds(FEDAF, ctx, [shards])
    replies = clients.replies[2:]
    images = torch.cat([reply.summaries[0].decode()[0] for reply in replies]).flatten(1).double()
    labels = torch.cat([reply.summaries[0].targets for reply in replies])
    local = mean_over_clients(replies, "soft", ctx).double()
    w = hand.flat(FEDAF.init(ctx).weights)
    for _ in range(3):
        w = w.clone().requires_grad_(True)
        z = hand.scores(w, images)
        own = torch.stack([F.softmax(z[labels == c] / 2, 1).mean(0) for c in range(3)])
        match = 0.5 * ((own - local) * (own.log() - local.log())).sum() / 3
        (g,) = torch.autograd.grad(F.cross_entropy(z, labels) + 0.3 * match, w)
        w = w.detach() - 0.1 * g
    torch.testing.assert_close(hand.flat(state.weights), w, rtol=0, atol=2e-5)


def test_condensation_is_drawn_to_the_other_clients(hand, run_rounds):
    """With a large weight the mean logits of a client's images end nearer to those of all clients."""
    ctx = hand.context(ipc=1, real_batch=8)
    shards = [hand.shard(0, (0,), count=4), hand.shard(1, (0,), count=4)]
    away = []
    for weight in (0.0, 5.0):
        strategy = replace(FEDAF, steps=20, collaborative=weight)
        _, (clients,) = run_rounds(strategy, ctx, [shards])
        network = model_of(strategy._mixed(strategy.init(ctx).weights, ctx), ctx).eval()
        wanted = clients.asked[1].tensors["means"][0]
        with torch.no_grad():
            away.append([(network(r.summaries[0].decode()[0]) - wanted).norm().item() for r in clients.replies[2:]])
    assert all(near < far for near, far in zip(away[1], away[0], strict=True))


def test_a_round_in_which_nobody_has_anything_changes_nothing(hand, run_rounds):
    ctx = hand.context(ipc=1)
    before = FEDAF.init(ctx)
    state, (clients,) = run_rounds(FEDAF, ctx, [[hand.shard(0, count=0)]])
    assert torch.equal(hand.flat(state.weights), hand.flat(before.weights))
    assert len(clients.replies) == 1


def test_means_of_other_classes_are_refused(hand):
    ctx = hand.context()
    for means, held, fine in ((3, 3, True), (2, 3, False), (3, 2, False)):
        for work, name in (("means", "means"), ("condense", "soft")):
            tensors = {name: torch.zeros(means, 3), "held": torch.ones(held).bool()}
            assert (FEDAF.unusable(work, Reply(client=0, num_examples=1, tensors=tensors), ctx) is None) == fine
