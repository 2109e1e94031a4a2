"""Bookkeeping of a federated run: what a round costs early and late, with clients that do nothing.

    python scripts/benchmark_bookkeeping.py [--rounds 1000] [--clients 10] [--checkpoint-every 1]

The real runner on digits: sampling, messages, ledger, evaluation, record and checkpoint, with a client that sends
back what it got. Prints the seconds of the first and of the last tenth of the rounds, their medians a round, and
milliseconds a message; exits with 1 if the median of the last tenth is more than 1.2 times that of the first (a busy
machine moves sums more than medians).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedcl.core.progress import Progress
from fedcl.core.types import LabeledSet
from fedcl.data.digits import Digits
from fedcl.distill.context import Context
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from scenarios.iid import IID

LIMIT = 1.2


@dataclass(frozen=True, kw_only=True)
class Echo(Strategy):
    """Clients send the model back as it came."""

    num_rounds: int = 1

    def init(self, ctx: Context) -> ServerState:
        return ServerState(weights=ctx.new_model(0).state_dict())

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        replies = clients.ask(self.echo, Payload(weights=state.weights))
        return ServerState(weights=next(replies).weights)

    @client_work(sends=["weights"])
    def echo(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        return Reply(client=ctx.client, num_examples=len(data), weights=ask.weights)

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        model = ctx.new_model(0)
        model.load_state_dict(dict(state.weights or {}))
        return model


class Clock(Progress):
    """Notes when each round was over, its checkpoint and record included."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task == "rounds" and amount:
            self.times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Of each round but the first, which also has the start of the run in it."""
        return [after - before for before, after in zip(self.times[1:-1], self.times[2:], strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--checkpoint-every", type=int, default=1, help="rounds between two checkpoints")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="fedcl-bookkeeping-") as folder:
        run_federated(
            FederatedJob(
                device="cpu",
                source=Digits(),
                model=MLP(hidden=(8,)),
                recipe=IID(num_clients=options.clients),
                strategy=Echo(num_rounds=options.rounds),
                checkpoint_every=options.checkpoint_every,
                out=Path(folder) / "run",
            ),
            clock,
        )
    tenth = max(1, options.rounds // 10)
    first, last = clock.seconds[:tenth], clock.seconds[-tenth:]
    messages = 2 * options.clients
    for name, part in (("first", first), ("last", last)):
        middle = 1000 * statistics.median(part)
        each = f"median {middle:.2f} ms, {middle / messages:.3f} ms a message"
        print(f"{name} {len(part)} rounds: {sum(part):.2f} s, {each}")
    ratio, of_medians = sum(last) / sum(first), statistics.median(last) / statistics.median(first)
    print(f"last / first: {ratio:.2f} of the seconds, {of_medians:.2f} of the medians (limit {LIMIT})")
    return int(of_medians > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
