"""FedDM and one-shot distillation on three-number clients: what goes over the wire, and what is learned from it."""

from dataclasses import replace

import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.objectives.base import NoObjective
from fedcl.distill.objectives.distribution import Distribution
from fedcl.federated.contract import work_at_clients
from fedcl.federated.payload import ClientState, Payload
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from strategies.federated.feddm import FedDM
from strategies.federated.one_shot import OneShot

SELECTION = Distiller(name="random", objective=NoObjective(), augmentation=NoAugmentation(), ipc=1, steps=0)
MATCHING = replace(SELECTION, name="dm", objective=Distribution(), steps=2)
TRAINING = Training(updates=60, lr=0.1, weight_decay=0.0)


def new_context(distiller=SELECTION):
    return Context(
        seed=0,
        distiller=distiller,
        model=MLP(hidden=(8,)),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.5,))),
        num_classes=2,
    )


def shard(client, labels):
    """Class 0 is black, class 1 is white."""
    labels = torch.tensor(labels, dtype=torch.int64)
    images = (labels * 255).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return LabeledSet(inputs=images, labels_N=labels, num_classes=2, origin=Origin(client=client))


SHARDS = [shard(0, [0, 0, 0]), shard(1, [1, 1])]
BLACK_AND_WHITE = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 2, 2)


BOTH = pytest.mark.parametrize(
    "strategy", [OneShot(training=TRAINING), FedDM(objective=None, steps=None, training=TRAINING)]
)
WORK = {OneShot: "distill", FedDM: "match"}


def at_clients(strategy, ctx, sets, weights=None):
    contexts = [replace(ctx, client=held.origin.client) for held in sets]
    ask = Payload(weights=weights or strategy.init(ctx).weights)
    return work_at_clients(strategy, WORK[type(strategy)], ask, sets, [ClientState()] * len(sets), contexts)


@BOTH
def test_a_round_by_hand(strategy, run_rounds):
    ctx = new_context()
    after, (clients,) = run_rounds(strategy, ctx, [SHARDS])
    assert [(reply.client, reply.num_examples) for reply in clients.replies] == [(0, 3), (1, 2)]
    assert [reply.summaries[0].targets.tolist() for reply in clients.replies] == [[0], [1]]  # held classes, ipc 1
    assert [reply.summaries[0].num_source_C.tolist() for reply in clients.replies] == [[3, 0], [0, 2]]
    model = strategy.model(after, ctx).eval()
    with torch.no_grad():
        assert model(BLACK_AND_WHITE).argmax(1).tolist() == [0, 1]


def test_what_comes_down(run_rounds):
    ctx = new_context()
    one_shot, feddm = OneShot(training=TRAINING), FedDM(objective=None, steps=None, training=TRAINING)
    _, (clients,) = run_rounds(one_shot, ctx, [SHARDS])
    assert clients.asked == [Payload()]  # the question, and nothing with it
    _, (clients,) = run_rounds(feddm, ctx, [SHARDS])
    (ask,) = clients.asked
    assert all(torch.equal(ask.weights[name], tensor) for name, tensor in feddm.init(ctx).weights.items())
    assert ask.scalars == {}


@BOTH
def test_strategies_are_pure(strategy, run_rounds):
    ctx = new_context(MATCHING)
    state = strategy.init(ctx)
    weights = {name: tensor.clone() for name, tensor in state.weights.items()}
    one, two = (run_rounds(strategy, ctx, [SHARDS], state)[0] for _ in range(2))
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in weights)
    assert all(torch.equal(state.weights[name], weights[name]) for name in weights)
    assert any(not torch.equal(one.weights[name], weights[name]) for name in weights)


@BOTH
def test_a_batch_of_clients_gives_what_one_at_a_time_gives(strategy):
    ctx = new_context(MATCHING)
    batch = at_clients(strategy, ctx, SHARDS)
    single = [at_clients(strategy, ctx, [held])[0] for held in SHARDS]
    assert [reply.summaries[0].sha256() for reply in batch] == [reply.summaries[0].sha256() for reply in single]


def test_feddm_matches_around_the_weights_it_was_sent():
    ctx = new_context(replace(MATCHING, steps=3))
    strategy = FedDM(objective=None, steps=None, training=TRAINING, radius=0.0)
    moved = {name: tensor * 2 for name, tensor in strategy.init(ctx).weights.items()}
    held = [shard(0, [0, 0, 1])]
    held = [replace(held[0], inputs=torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2) * 20)]
    here, there = (at_clients(strategy, ctx, held, weights)[0].summaries[0] for weights in (None, moved))
    assert here.sha256() != there.sha256()


def test_feddm_leaves_small_classes_out():
    strategy = FedDM(objective=None, steps=None, training=TRAINING, min_class=2)
    (reply,) = at_clients(strategy, new_context(), [shard(0, [0, 0, 1])])
    assert reply.summaries[0].targets.tolist() == [0]
    assert reply.num_examples == 3


def test_feddm_goes_on_with_its_model_and_one_shot_starts_again(run_rounds):
    ctx = new_context()
    idle = Training(updates=0)
    for strategy, kept in ((FedDM(objective=None, steps=None, training=idle), True), (OneShot(training=idle), False)):
        state = strategy.init(ctx)
        moved = replace(state, weights={name: tensor + 1 for name, tensor in state.weights.items()})
        after, _ = run_rounds(strategy, ctx, [SHARDS], moved)
        reference = moved if kept else state
        assert all(torch.equal(after.weights[name], reference.weights[name]) for name in state.weights)
