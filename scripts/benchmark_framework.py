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
from functools import partial

import torch
from torch import nn

from fedcl.core.coding import Wire
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin, Summary
from fedcl.distill.context import Context
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.payload import Payload, Reply, ServerState
from fedcl.flower.batched import Batched
from fedcl.flower.client import SimulationContext
from fedcl.flower.rounds import RoundResult
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.models.base import Model

LIMIT_MS = 2.0
SHAPE, UNITS = (1, 8, 8), Normalization(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, kw_only=True)
class Linear(Model):
    """One layer of 1,000 inputs, of which an image fills 64, and ten outputs."""

    def architecture(self, shape, num_classes) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.ConstantPad1d((0, 936), 0.0), nn.Linear(1000, num_classes))


@dataclass(frozen=True, kw_only=True)
class Idle(Strategy):
    """Weights of 10,000 numbers in two tensors down; the same weights and a summary of ten 8x8 images up."""

    def init(self, ctx: Context) -> ServerState:
        return ServerState(weights=ctx.new_model(0).state_dict())

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        for _ in clients.ask(self.idle, Payload(weights=state.weights, scalars={"round": ctx.round})):
            pass
        return state

    @client_work(batch=True, sends=["weights", "summaries"])
    def idle(self, ask, sets, mine, contexts) -> list[Reply]:
        return [
            Reply(
                client=data.origin.client,
                num_examples=len(data),
                weights=ask.weights,
                summaries=(
                    Summary(
                        arrays={"images": torch.zeros(10, *SHAPE)},
                        targets=torch.arange(10),
                        num_classes=10,
                        inputs=InputSpec(shape=SHAPE, preprocess=UNITS),
                        decoder=Pixels(),
                        method="idle",
                    ),
                ),
            )
            for data in sets
        ]

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        return ctx.new_model(0)


def shard(client: int, step: int) -> LabeledSet:
    return LabeledSet(
        inputs=torch.zeros(1, *SHAPE, dtype=torch.uint8),
        labels_N=torch.zeros(1, dtype=torch.int64),
        num_classes=10,
        origin=Origin(client=client, step=step),
    )


def note(seconds: list[float], result: RoundResult) -> None:
    """Keep the time of a round in which everybody did the work."""
    if result.failed:
        raise SystemExit(f"a client failed, so nothing was measured: {result.failed[0]}")
    seconds.append(result.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    worst = 0.0
    for wire in ("float32", "uint8"):
        for runtime in (Serial(), Batched()):
            sim = SimulationContext(
                strategy=Idle(),
                ctx=Context(
                    seed=0,
                    model=Linear(),
                    inputs=InputSpec(shape=SHAPE, preprocess=UNITS, invariances=("flip",)),
                    num_classes=10,
                ),
                shard=shard,
                num_clients=options.clients,
                wire=Wire(dtype=wire),
            )
            seconds: list[float] = []
            simulate(
                sim,
                runtime,
                num_rounds=options.rounds,
                on_round=partial(note, seconds),
            )
            cost = 1000 * statistics.median(seconds) / options.clients
            worst = max(worst, cost)
            name = type(runtime).__name__.lower()
            print(f"runtime={name:<8} wire={wire:<8} {cost:.2f} ms a client message ({options.clients} clients)")
    print(f"limit {LIMIT_MS} ms: {'kept' if worst <= LIMIT_MS else 'broken'}")
    return int(worst > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
