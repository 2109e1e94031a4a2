"""Does a replay step cost the same after 1,000 tiny steps as after 10?

    python scripts/benchmark_replay.py [--steps 1000] [--repeats 30]

Learns a stream of ten-image steps with a full buffer, and times single steps early and late. Prints one JSON line;
exits with 1 if the late median is more than 1.2 times the early one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.distiller import Distiller
from fedcl.distill.objectives.base import NoObjective
from fedcl.memory.budget import Budget
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from strategies.continual.replay import Replay

LIMIT = 1.2


def make_context() -> LearnerContext:
    return LearnerContext(
        model=MLP(hidden=(100,)),
        inputs=InputSpec(shape=(1, 28, 28), preprocess=Normalization(mean=(0.5,), std=(0.25,)), invariances=("flip",)),
        num_classes=10,
        seed=0,
        distiller=Distiller(name="random", objective=NoObjective(), augmentation=NoAugmentation(), ipc=1, steps=0),
        budget=Budget(images=500),
    )


def tiny_step(index: int, num_steps: int) -> Step:
    """Ten random images, one of each class, so that the buffer is full after fifty steps."""
    generator = torch.Generator().manual_seed(index)
    images = torch.randint(256, (10, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = LabeledSet(inputs=images, labels_N=torch.arange(10), num_classes=10, origin=Origin(step=index))
    seen = torch.ones(10, dtype=torch.bool)
    return Step(data=data, index=index, num_steps=num_steps, old_C=seen, seen_C=seen, history=lambda: data)


def median_of_a_step(
    strategy: Replay, state: State, index: int, num_steps: int, ctx: LearnerContext, repeats: int
) -> float:
    """Seconds of one `learn` from `state`, which stays what it is."""
    step, times = tiny_step(index, num_steps), []
    for _ in range(repeats):
        start = time.perf_counter()
        strategy.learn(state, step, ctx)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="tiny steps before the late measurement")
    parser.add_argument("--repeats", type=int, default=30, help="timings of a step, of which the median counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ctx = make_context()
    training = Training(epochs=1, batch_size=10, optimizer="sgd", lr=0.01, schedule="constant")
    strategy = Replay(training=training)
    # Full before the first measurement: the cost of more steps is asked for, not that of more memory.
    full = 60
    state = strategy.init(ctx)
    states = {}
    for index in range(full + arguments.steps):
        state = strategy.learn(state, tiny_step(index, 0), ctx)
        states |= {index + 1 - full: state} if index + 1 - full in (10, arguments.steps) else {}
    early, late = (
        median_of_a_step(strategy, states[count], full + count, 0, ctx, arguments.repeats)
        for count in (10, arguments.steps)
    )
    ratio = late / early
    print(json.dumps({"early_seconds": early, "late_seconds": late, "ratio": ratio, "limit": LIMIT}))
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
