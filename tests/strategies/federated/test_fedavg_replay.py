"""FedAvg with memory at the clients, and server memory in a stream: by hand on two-pixel data."""

import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.helpers import mean_weights
from fedcl.federated.payload import Reply
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from strategies.federated.fedavg_replay import FedAvgReplay
from strategies.federated.feddm import FedDM
from strategies.federated.one_shot import OneShot

TRAINING = Training(updates=2, batch_size=8)


def shard(client, step, classes=(0, 1), count=4):
    labels = torch.tensor(classes).repeat_interleave(count).long()
    generator = torch.Generator().manual_seed(10 * client + step)
    images = torch.randint(256, (len(labels), 1, 2, 2), generator=generator, dtype=torch.uint8)
    origin = Origin(client=client, step=step)
    return LabeledSet(inputs=images, labels_N=labels, num_classes=4, origin=origin)


@pytest.fixture
def ctx():
    return Context(
        model=MLP(hidden=(4,)),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.25,)), invariances=("flip",)),
        num_classes=4,
        seed=0,
        distiller=Distiller(name="random", augmentation=NoAugmentation(), ipc=1, steps=0),
    )


def test_the_mean_is_weighted_by_examples_and_skips_who_has_none():
    start = {"w": torch.tensor([0.0]), "n": torch.tensor([1])}
    replies = [
        Reply(client=0, num_examples=1, weights={"w": torch.tensor([4.0]), "n": torch.tensor([2])}),
        Reply(client=1, num_examples=0),
        Reply(client=2, num_examples=3, weights={"w": torch.tensor([8.0]), "n": torch.tensor([5])}),
    ]
    mean = mean_weights(iter(replies), start)
    assert (mean["w"].tolist(), mean["n"].tolist()) == ([7.0], [5])
    assert (mean["w"].dtype, mean["n"].dtype) == (torch.float32, torch.int64)
    assert mean_weights([replies[1]], start) == start


def test_a_client_keeps_each_step_once_and_trains_on_what_it_kept(ctx, run_rounds):
    strategy, states = FedAvgReplay(training=TRAINING), {}
    _, seen = run_rounds(
        strategy,
        ctx,
        [
            [shard(3, 0)],
            [shard(3, 0)],
            [shard(3, 1, classes=(2, 3))],
            [shard(3, 2, classes=())],
            [shard(5, 0, classes=())],
        ],
        states=states,
    )
    first, again, second, third, other = (clients.replies[0] for clients in seen)
    assert first.num_examples == 8  # no memory of earlier steps yet
    assert first.keep.summaries[0].targets.tolist() == [0, 1]
    assert first.keep.storage == "uint8"
    assert (again.num_examples, again.keep) == (8, None)
    assert second.num_examples == 8 + 8  # two old images, as often as there are images of a new class
    assert [summary.origin.step for summary in second.keep.summaries] == [0, 1]
    assert (third.num_examples, third.keep) == (4, None)  # nothing new: the memory alone
    assert (other.num_examples, other.weights, other.keep) == (0, None, None)
    assert set(states) == {3}


def test_without_replay_nothing_is_kept(ctx, run_rounds):
    _, (clients,) = run_rounds(FedAvgReplay(training=TRAINING, replay=False), ctx, [[shard(0, 0)]])
    assert clients.states == {}


@pytest.mark.parametrize("memory", [True, False])
def test_feddm_keeps_the_last_summaries_of_earlier_steps(ctx, memory, run_rounds):
    strategy = FedDM(objective=None, steps=None, training=TRAINING, memory=memory)
    classes = [(0, 1), (0, 1), (2, 3), (2, 3)]
    shards = [[shard(0, round // 2, held), shard(1, round // 2, ())] for round, held in enumerate(classes)]
    state, _ = run_rounds(strategy, ctx, shards)
    origins = [(s.origin.step, s.origin.round) for s in state.summaries]
    assert origins == ([(0, 1), (1, 3)] if memory else [(1, 3)])


@pytest.mark.parametrize("strategy", [OneShot(training=TRAINING), FedDM(objective=None, steps=None, training=TRAINING)])
def test_a_round_in_which_nobody_has_anything_changes_nothing(ctx, strategy, run_rounds):
    start = strategy.init(ctx)
    nothing, something = [shard(0, 0, ()), shard(1, 0, ())], [shard(0, 0), shard(1, 0, ())]
    after, _ = run_rounds(strategy, ctx, [nothing])
    assert all(torch.equal(after.weights[name], start.weights[name]) for name in start.weights)
    after, _ = run_rounds(strategy, ctx, [nothing, something])
    assert [s.origin.client for s in after.summaries] == [0]


def test_one_shot_remembers_every_step(ctx, run_rounds):
    shards = [[shard(0, step, classes)] for step, classes in enumerate([(0, 1), (2, 3)])]
    state, _ = run_rounds(OneShot(training=TRAINING), ctx, shards)
    assert [s.origin.step for s in state.summaries] == [0, 1]
