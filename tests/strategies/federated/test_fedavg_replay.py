"""FedAvg with memory at the clients, and server memory in a stream: by hand on two-pixel data."""

from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import RunError
from fedcl.core.types import LabeledSet, Normalization, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.client_state import file_of, recall, remembers, stored
from fedcl.federated.contract import Reply, ServerState
from fedcl.memory.files import load_buffer
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.loop import Training
from strategies.federated.fedavg_replay import FedAvgReplay
from strategies.federated.feddm import FedDM
from strategies.federated.one_shot import OneShot

TRAINING = Training(updates=2, batch_size=8)


def shard(client, step, classes=(0, 1), count=4):
    labels = torch.tensor(classes).repeat_interleave(count).long()
    generator = torch.Generator().manual_seed(10 * client + step)
    images = torch.randint(256, (len(labels), 1, 2, 2), generator=generator, dtype=torch.uint8)
    origin = Origin(client=client, step=step)
    return LabeledSet(images_NCHW=images, labels_N=labels, num_classes=4, origin=origin)


@pytest.fixture
def ctx(tmp_path):
    return Context(
        model=MLP(hidden=(4,)),
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        shape_CHW=(1, 2, 2),
        num_classes=4,
        seed=0,
        distiller=Distiller(name="random", augmentation=NoAugmentation(), ipc=1, steps=0),
        folder=tmp_path / "clients",
    )


def test_the_mean_is_weighted_by_examples_and_skips_who_has_none(ctx):
    strategy = FedAvgReplay(training=TRAINING)
    state = ServerState(weights={"w": torch.tensor([0.0]), "n": torch.tensor([1])})
    replies = [
        Reply(client=0, num_examples=1, weights={"w": torch.tensor([4.0]), "n": torch.tensor([2])}),
        Reply(client=1, num_examples=0),
        Reply(client=2, num_examples=3, weights={"w": torch.tensor([8.0]), "n": torch.tensor([5])}),
    ]
    combined = strategy.combine(state, replies, 0, ctx)
    assert combined.weights["w"].tolist() == [7.0]
    assert combined.weights["n"].tolist() == [5]
    assert strategy.combine(state, [replies[1]], 0, ctx) is state


def test_a_client_keeps_each_step_once_and_trains_on_what_it_kept(ctx):
    strategy = FedAvgReplay(training=TRAINING)
    request = strategy.request(strategy.init(ctx), 0, ctx)
    (reply,) = strategy.client_work(request, [shard(3, 0)], 0, ctx)
    assert reply.num_examples == 8  # no memory of earlier steps yet
    path = file_of(ctx.folder, 3, 0)
    kept = path.read_bytes()
    assert load_buffer(path).labels_N.tolist() == [0, 1]
    strategy.client_work(request, [shard(3, 0)], 1, ctx)
    assert path.read_bytes() == kept
    (reply,) = strategy.client_work(request, [shard(3, 1, classes=(2, 3))], 2, ctx)
    assert reply.num_examples == 8 + 8  # two old images, as often as there are images of a new class
    (reply,) = strategy.client_work(request, [shard(3, 2, classes=())], 3, ctx)
    assert reply.num_examples == 4  # nothing new: the memory alone
    assert not remembers(ctx.folder, 3, 2)
    (reply,) = strategy.client_work(request, [shard(5, 0, classes=())], 4, ctx)
    assert (reply.num_examples, reply.weights) == (0, None)
    assert len(recall(ctx.folder, 3, 2)) == 2
    assert stored(ctx.folder) == {"client_bytes": 4 * 5, "client_images": 4}


def test_without_replay_nothing_is_kept(ctx):
    strategy = FedAvgReplay(training=TRAINING, replay=False)
    request = strategy.request(strategy.init(ctx), 0, ctx)
    strategy.client_work(request, [shard(0, 0)], 0, replace(ctx, folder=None))
    assert not ctx.folder.exists()
    with pytest.raises(RunError, match="folder"):
        FedAvgReplay(training=TRAINING).client_work(request, [shard(0, 0)], 0, replace(ctx, folder=None))


def work(strategy, state, step, round, ctx, shards):
    request = strategy.request(state, round, ctx)
    replies = strategy.client_work(request, shards, round, ctx)
    return strategy.combine(state, replies, round, ctx)


@pytest.mark.parametrize("memory", [True, False])
def test_feddm_keeps_the_last_summaries_of_earlier_steps(ctx, memory):
    strategy = FedDM(objective=None, steps=None, training=TRAINING, memory=memory)
    state = strategy.init(ctx)
    for round in range(4):
        step = round // 2
        classes = (0, 1) if step == 0 else (2, 3)
        state = work(strategy, state, step, round, ctx, [shard(0, step, classes), shard(1, step, ())])
    origins = [(s.origin.step, s.origin.round) for s in state.summaries]
    assert origins == ([(0, 1), (1, 3)] if memory else [(1, 3)])


@pytest.mark.parametrize("strategy", [OneShot(training=TRAINING), FedDM(objective=None, steps=None, training=TRAINING)])
def test_a_round_in_which_nobody_has_anything_changes_nothing(ctx, strategy):
    state = strategy.init(ctx)
    after = work(strategy, state, 0, 0, ctx, [shard(0, 0, ()), shard(1, 0, ())])
    assert all(torch.equal(after.weights[name], state.weights[name]) for name in state.weights)
    state = work(strategy, state, 0, 1, ctx, [shard(0, 0), shard(1, 0, ())])
    assert [s.origin.client for s in state.summaries] == [0]


def test_one_shot_remembers_every_step(ctx):
    strategy = OneShot(training=TRAINING)
    state = strategy.init(ctx)
    for step, classes in enumerate([(0, 1), (2, 3)]):
        state = work(strategy, state, step, step, ctx, [shard(0, step, classes)])
    assert [s.origin.step for s in state.summaries] == [0, 1]
