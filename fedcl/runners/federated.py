"""`fedcl federated`: rounds between a server and clients, and the record that they leave."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fedcl.client_memory import stored
from fedcl.compute import keep_large_blocks
from fedcl.data.base import Dataset
from fedcl.data.cells import Cells
from fedcl.describe import settings_of
from fedcl.distill.files import load_summary, save_summary
from fedcl.errors import ConfigError, FedclError
from fedcl.evaluation import accuracy
from fedcl.federated import Reply, ServerState, Strategy, Tools
from fedcl.flower.adapter import RoundResult
from fedcl.flower.client import ClientWorld
from fedcl.flower.runtime import Runtime
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.ledger import Ledger
from fedcl.pictures import draw_partition, draw_summaries
from fedcl.progress import SILENT, Progress
from fedcl.record import accuracy_part, write_atomically, write_record
from fedcl.runners.continual_pictures import draw_continual
from fedcl.runners.job import GridJob
from fedcl.runners.matrix import Columns
from fedcl.runners.resume import Checkpoint, begin, pack_server, unpack_server, write_checkpoint
from fedcl.scenario import Scenario
from fedcl.stopping import Stop
from fedcl.types import Summary
from fedcl.wire import Wire


@dataclass(frozen=True, kw_only=True)
class FederatedJob(GridJob):
    """Everything that decides a federated run."""

    strategy: Strategy
    runtime: Runtime = field(default_factory=Serial)
    wire: Wire = field(default_factory=Wire)
    num_rounds: int | None = None  # per step of the scenario; None: the strategy's own number
    clients_per_round: int | None = None  # None: all
    min_success: int = 1  # replies that a round needs to count
    stop: Stop = field(default_factory=Stop)  # what ends the run before its last round

    def __post_init__(self) -> None:
        if self.num_rounds is not None and self.num_rounds < 1:
            raise ConfigError(f"num_rounds={self.num_rounds} must be at least 1, or null for the strategy's own number")

    def check_clients(self, num_clients: int) -> None:
        """Raise ConfigError where the clients of a round do not fit those that there are."""
        count = num_clients if self.clients_per_round is None else self.clients_per_round
        if not 1 <= count <= num_clients:
            raise ConfigError(f"clients_per_round={count} must lie in 1..{num_clients}, or be null for all clients")
        if not 1 <= self.min_success <= count:
            raise ConfigError(f"min_success={self.min_success} must lie in 1..{count}, the clients of a round")

    def check_stop(self, num_steps: int) -> None:
        """Raise ConfigError where a budget would cut a stream off, whose matrix needs every step."""
        if num_steps > 1 and not self.stop.idle:
            raise ConfigError(
                f"stop.* ends a run early, and a stream of {num_steps} steps is judged after its last one; "
                "leave stop.* null, or type num_rounds=... for fewer rounds a step"
            )

    @property
    def rounds_per_step(self) -> int:
        return self.num_rounds or self.strategy.num_rounds


def make_world(job: FederatedJob, progress: Progress = SILENT) -> tuple[ClientWorld, Dataset, Scenario]:
    """Load the data, deal the shares, and gather the tools.

    Raises:
        FedclError: the data, the scenario or the model cannot be made; nothing has been written.
    """
    data, scenario = job.load()
    job.check_clients(scenario.num_clients)
    job.check_stop(scenario.num_steps)
    tools = job.make_tools(Tools, data, progress, folder=job.out.absolute() / "clients")
    shards = Cells(train=data.train.to(tools.device), scenario=scenario)
    world = ClientWorld(
        strategy=job.strategy, tools=tools, shard=shards, num_clients=scenario.num_clients, wire=job.wire
    )
    return world, data, scenario


def remake_world(job: FederatedJob) -> ClientWorld:
    """The same world in a worker process."""
    keep_large_blocks()
    return make_world(job)[0]


def run_federated(job: FederatedJob, progress: Progress = SILENT) -> dict[str, Any]:
    """Run the job, or go on with it, and return its record, which lies in `job.out` with summaries and pictures.

    Raises:
        FedclError: the job cannot be done, or every client of a round failed.
    """
    start = time.perf_counter()
    keep_large_blocks()
    world, data, scenario = make_world(job, progress)
    run = _Run(job=job, world=world, data=data, scenario=scenario, start=start)
    checkpoint = begin(job.out, settings_of(job))
    first_round, state = (0, run.open()) if checkpoint is None else (checkpoint.done, run.reopen(checkpoint))
    num_rounds = job.rounds_per_step * scenario.num_steps
    # a worker needs the recipe of the world and the folder of its clients, not the notes of this run
    bare = replace(job, out=job.out.absolute(), config={}, command=[])
    try:
        # with no round left this is a roll call, which an uninterrupted run has in its ledger too
        _, ledger = simulate(
            world,
            job.runtime,
            num_rounds=first_round if "stopped" in run.record else num_rounds,
            clients_per_round=job.clients_per_round,
            min_success=job.min_success,
            on_round=run.round,
            load=partial(remake_world, bare),
            step_of_round=lambda round: round // job.rounds_per_step,
            start_round=first_round,
            state=state,
            ledger=run.ledger,
        )
        run.ledger = Ledger(rows=tuple(sorted(ledger.rows, key=lambda row: row.kind != "roll call")))
    except FedclError as error:
        run.save(failure=str(error))
        raise
    run.close()
    return run.record


class _Run:
    """The record of one run as it grows."""

    def __init__(
        self, *, job: FederatedJob, world: ClientWorld, data: Dataset, scenario: Scenario, start: float
    ) -> None:
        self.job, self.world, self.data, self.scenario, self.start = job, world, data, scenario, start
        self.ledger = Ledger()
        self.test = data.test.to(world.tools.device)
        self.columns = Columns.of(data, self.test, scenario)
        self.before = 0.0  # seconds that the run took until it was interrupted
        self.record: dict[str, Any] = {}

    @property
    def continual(self) -> bool:
        """Whether there are steps, and so a matrix."""
        return self.scenario.num_steps > 1

    def open(self) -> ServerState:
        """The state before the first round, the first record, and the picture of who holds what."""
        state = self.world.strategy.init(self.world.tools)
        counts = self.scenario.counts(self.data.labels.train_N)
        draw_partition(counts, self.data.class_names, self.job.out / "partition")
        about = {"class_counts": counts.tolist(), **(self.columns.about() if self.continual else {})}
        self.record = self.job.first_record("federated", self.scenario, **about) | {"rounds": []}
        if self.continual:
            model = self.world.strategy.model(state, self.world.tools)
            self.record |= {"random_accuracy": self.columns.row(model), "matrix": []}
        self.save()
        return state

    def reopen(self, checkpoint: Checkpoint) -> ServerState:
        """The state, the record and the ledger of the last finished round."""
        state, self.ledger = unpack_server(checkpoint)
        self.record = dict(checkpoint.record)
        self.before = self.record["seconds"]
        self.world.tools.progress.say(f"going on after round {checkpoint.done - 1}")
        return state

    def round(self, result: RoundResult) -> bool:
        """Evaluate, note and write what one round left; True where a budget ends the run."""
        tools = self.world.tools
        self.ledger = self.ledger.add(result.rows)
        rounds = self.record["rounds"]
        if result.counted or not rounds:
            model = self.world.strategy.model(result.state, tools)
            score = accuracy(model, self.test, self.data.normalization)
        else:
            score = rounds[-1]["accuracy"]
        rounds.append(
            {
                "round": result.round,
                "step": result.step,
                "accuracy": score,
                "clients": list(result.clients),
                "failed": [dict(failure) for failure in result.failed],
                "counted": result.counted,
                "up": dict(result.up),
                "down": dict(result.down),
                **self.keep_summaries(result.replies),
                "seconds": round(result.seconds, 3),
            }
        )
        if self.continual and (result.round + 1) % self.job.rounds_per_step == 0:
            self.note_step(result)
        self.note_stop(result.round + 1)
        self.save()
        tensors, about = pack_server(result.state, self.ledger)
        done = Checkpoint(done=result.round + 1, record=self.record, tensors=tensors, about=about)
        write_checkpoint(self.job.out, done)
        sent = self.ledger.communication()["total_wire_bytes"]
        for failure in result.failed:
            tools.progress.say(f"round {result.round}: client {failure['client']} failed: {failure['reason']}")
        tools.progress.advance("rounds", 0, accuracy=score, bytes=sent)
        return "stopped" in self.record

    def note_stop(self, done: int) -> None:
        """Which budget, if any, ends the run before its last round."""
        if self.job.stop.idle or done == self.job.rounds_per_step * self.scenario.num_steps:
            return
        found = self.job.stop.reached(
            total_wire_bytes=self.ledger.communication()["total_wire_bytes"],
            accuracy=self.record["rounds"][-1]["accuracy"],
            seconds=round(self.before + time.perf_counter() - self.start, 3),
        )
        if found is not None:
            self.record["stopped"] = found

    def note_step(self, result: RoundResult) -> None:
        """One more row of the matrix, at the end of a step."""
        tools = self.world.tools
        row = self.columns.row(self.world.strategy.model(result.state, tools))
        self.record["matrix"] = [*self.record["matrix"], row]
        self.record["continual"] = self.columns.part(self.record["matrix"], self.record["random_accuracy"])
        self.record["continual_clients"] = self.columns.by_client(self.record["matrix"])
        kept = result.state.summaries
        self.record["memory"] = {
            "bytes": sum(summary.payload_bytes for summary in kept),
            "images": sum(summary.num_images for summary in kept),
            **stored(self.job.out / "clients"),
        }
        tools.progress.say(f"step {result.step}: {'  '.join(f'{value:.3f}' for value in row)}")

    def keep_summaries(self, replies: tuple[Reply, ...]) -> dict[str, Any]:
        """Write each client's latest summary; their hash and size for the record."""
        summaries = [(reply.client, summary) for reply in replies for summary in reply.summaries]
        if not summaries:
            return {}
        folder = self.job.out / "summaries"
        folder.mkdir(exist_ok=True)
        recipe = settings_of(self.job).get("strategy", {})
        digest = hashlib.sha256()
        for client, summary in summaries:
            digest.update(summary.sha256().encode())
            save_summary(summary, folder / f"client-{client:04d}.safetensors", recipe)
        return {
            "summaries": {
                "sha256": digest.hexdigest(),
                "decoded_images": sum(summary.num_images for _, summary in summaries),
            }
        }

    def save(self, failure: str | None = None) -> None:
        """Bring the totals up to date and write the record and the ledger."""
        if self.record["rounds"]:
            self.record["accuracy"] = accuracy_part([entry["accuracy"] for entry in self.record["rounds"]])
        self.record["communication"] = self.ledger.communication()
        self.record["seconds"] = round(self.before + time.perf_counter() - self.start, 3)
        failed = {} if failure is None else {"failure": failure}
        write_atomically(self.job.out / "ledger.csv", self.ledger.to_csv())
        write_record(self.job.out, self.record | failed)
        self.world.tools.progress.wrote(self.record)

    def close(self) -> None:
        """The pictures, and a finished record."""
        files = sorted((self.job.out / "summaries").glob("client-*.safetensors"))
        if files:
            summaries: list[Summary] = [load_summary(file) for file in files]
            draw_summaries(summaries, self.job.out / "summaries.png", self.data.class_names)
        if self.continual:
            draw_continual(self.record, None, self.job.out, self.data.class_names)
        self.record["finished"] = True
        self.save()
