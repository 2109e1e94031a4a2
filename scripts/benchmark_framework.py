"""What the framework itself costs: milliseconds a client message in `serial`, with clients that do nothing.

    python scripts/benchmark_framework.py [--clients 100] [--rounds 5]

One client message is a request and its reply: sampling, encoding, messages of Flower, decoding, checks,
ledger. Exits with 1 if the median round costs more than the limit of 2 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass

import torch
from torch import nn

from fedcl.core.coding import Wire
from fedcl.core.types import LabeledSet, Normalization, Origin, Summary
from fedcl.distill.context import Context
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.contract import Reply, Request, ServerState, Strategy
from fedcl.flower.batched import Batched
from fedcl.flower.client import SimulationContext
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.models.mlp import MLP

LIMIT_MS = 2.0
SHAPE, UNITS = (1, 8, 8), Normalization(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, kw_only=True)
class Idle(Strategy):
    """Weights of 10,000 numbers down; the same weights and a summary of ten 8x8 images up."""

    def init(self, ctx: Context) -> ServerState:
        return ServerState(weights={"w": torch.zeros(99, 100), "b": torch.zeros(100)})

    def request(self, state: ServerState, round: int, ctx: Context) -> Request:
        return Request(weights=state.weights, config={"round": round})

    def client_work(self, request, shards, round, ctx) -> list[Reply]:
        return [
            Reply(
                client=shard.origin.client,
                num_examples=len(shard),
                weights=request.weights,
                summaries=(
                    Summary(
                        arrays={"images": torch.zeros(10, *SHAPE)},
                        targets=torch.arange(10),
                        num_classes=10,
                        shape_CHW=SHAPE,
                        normalization=UNITS,
                        decoder=Pixels(),
                        method="idle",
                    ),
                ),
            )
            for shard in shards
        ]

    def combine(self, state, replies, round, ctx) -> ServerState:
        return state

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        return ctx.new_model(0)


def shard(client: int, step: int) -> LabeledSet:
    return LabeledSet(
        images_NCHW=torch.zeros(1, *SHAPE, dtype=torch.uint8),
        labels_N=torch.zeros(1, dtype=torch.int64),
        num_classes=10,
        origin=Origin(client=client, step=step),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    worst = 0.0
    for wire in ("float32", "uint8"):
        for runtime in (Serial(), Batched()):
            world = SimulationContext(
                strategy=Idle(),
                ctx=Context(
                    seed=0,
                    model=MLP(),
                    distiller=None,  # type: ignore[arg-type]  # nothing is distilled
                    normalization=UNITS,
                    shape_CHW=SHAPE,
                    num_classes=10,
                ),
                shard=shard,
                num_clients=options.clients,
                wire=Wire(dtype=wire),
            )
            seconds: list[float] = []
            simulate(
                world,
                runtime,
                num_rounds=options.rounds,
                on_round=lambda result, seconds=seconds: seconds.append(result.seconds),
            )
            cost = 1000 * statistics.median(seconds) / options.clients
            worst = max(worst, cost)
            name = type(runtime).__name__.lower()
            print(f"runtime={name:<8} wire={wire:<8} {cost:.2f} ms a client message ({options.clients} clients)")
    print(f"limit {LIMIT_MS} ms: {'kept' if worst <= LIMIT_MS else 'broken'}")
    return int(worst > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
