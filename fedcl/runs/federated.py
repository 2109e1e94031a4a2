"""`fedcl federated`: rounds between a server and clients, and the record that they leave."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fedcl.core.coding import Wire
from fedcl.core.compute import keep_large_blocks
from fedcl.core.describe import describe, settings_of
from fedcl.core.errors import ConfigError, FedclError
from fedcl.core.journal import Journal
from fedcl.core.progress import SILENT, Progress
from fedcl.core.record import ROWS, accuracy_part, head_of, open_folder, row_line, write_record
from fedcl.core.types import Summary
from fedcl.data.base import Dataset
from fedcl.data.sharded import ShardedDataset
from fedcl.distill.context import Context
from fedcl.distill.files import load_summary, save_summary
from fedcl.federated.client_state import stored
from fedcl.federated.contract import Reply, ServerState, Strategy
from fedcl.federated.ledger import FILE, HEADER, Ledger, Transfer
from fedcl.flower.adapter import RoundResult
from fedcl.flower.client import SimulationContext
from fedcl.flower.runtime import Runtime
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.runs.checkpoint import (
    Checkpoint,
    begin,
    pack_server,
    resume_journal,
    resume_rows,
    unpack_server,
    write_checkpoint,
)
from fedcl.runs.continual_pictures import draw_continual
from fedcl.runs.job import GridJob
from fedcl.runs.matrix import Columns
from fedcl.runs.pictures import draw_partition, draw_summaries
from fedcl.runs.stopping import Stop
from fedcl.scenario.base import Scenario


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
    evaluate_every: int = 1  # rounds between two looks at the test set; the last round and ends of steps have theirs
    checkpoint_every: int = 1  # rounds between two checkpoints, the work that a kill may cost; the last has its own

    def __post_init__(self) -> None:
        for name in ("evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} must be at least 1; more rounds than the run has means the last only"
                )
        if self.num_rounds is not None and self.num_rounds < 1:
            raise ConfigError(f"num_rounds={self.num_rounds} must be at least 1, or null for the strategy's own number")

    def check_clients(self, num_clients: int) -> None:
        """Raise ConfigError where the clients of a round do not fit those that there are."""
        count = num_clients if self.clients_per_round is None else self.clients_per_round
        if not 1 <= count <= num_clients:
            raise ConfigError(f"clients_per_round={count} must lie in 1..{num_clients}, or be null for all clients")
        if not 1 <= self.min_success <= count:
            raise ConfigError(f"min_success={self.min_success} must lie in 1..{count}, the clients of a round")
        problem = self.strategy.too_few(count)
        if problem is not None:
            raise ConfigError(f"clients_per_round={count}: {problem}")

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


def make_simulation(job: FederatedJob, progress: Progress = SILENT) -> tuple[SimulationContext, Dataset, Scenario]:
    """Load the data, deal the shares, and gather the ctx.

    Raises:
        FedclError: the data, the scenario or the model cannot be made; nothing has been written.
    """
    data, scenario = job.load()
    job.check_clients(scenario.num_clients)
    job.check_stop(scenario.num_steps)
    ctx = job.make_context(Context, data, progress, folder=job.out.absolute() / "clients")
    shards = ShardedDataset(train=data.train.to(ctx.device), scenario=scenario)
    world = SimulationContext(
        strategy=job.strategy, ctx=ctx, shard=shards, num_clients=scenario.num_clients, wire=job.wire
    )
    return world, data, scenario


def remake_simulation(job: FederatedJob) -> SimulationContext:
    """The same world in a worker process."""
    keep_large_blocks()
    return make_simulation(job)[0]


def run_federated(job: FederatedJob, progress: Progress = SILENT) -> dict[str, Any]:
    """Run the job, or go on with it, and return its record, which lies in `job.out` with summaries and pictures.

    Raises:
        FedclError: the job cannot be done, or every client of a round failed.
    """
    start = time.perf_counter()
    keep_large_blocks()
    world, data, scenario = make_simulation(job, progress)
    run = _Run(job=job, world=world, data=data, scenario=scenario, start=start)
    with open_folder(job.out):
        checkpoint = begin(job.out, settings_of(job))
        first_round, state = (0, run.open()) if checkpoint is None else (checkpoint.done, run.reopen(checkpoint))
        # a worker needs the recipe of the world and the folder of its clients, not the notes of this run
        bare = replace(job, out=job.out.absolute(), choices={}, command=[])
        try:
            if first_round < run.num_rounds and "stopped" not in run.record:
                simulate(
                    world,
                    job.runtime,
                    num_rounds=run.num_rounds,
                    clients_per_round=job.clients_per_round,
                    min_success=job.min_success,
                    on_round=run.round,
                    on_roll_call=run.note_messages if checkpoint is None else None,  # the ledger has it already
                    load=partial(remake_simulation, bare),
                    step_of_round=lambda round: round // job.rounds_per_step,
                    start_round=first_round,
                    state=state,
                )
        except FedclError as error:
            run.save(failure=str(error))
            raise
        run.close()
        return run.record


class _Run:
    """The record of one run as it grows."""

    def __init__(
        self, *, job: FederatedJob, world: SimulationContext, data: Dataset, scenario: Scenario, start: float
    ) -> None:
        self.job, self.world, self.data, self.scenario, self.start = job, world, data, scenario, start
        self.ledger, self.rows = Journal(job.out / FILE), Journal(job.out / ROWS)
        self.columns = Columns.of(data, data.test.to(world.ctx.device), scenario)
        self.before = 0.0  # seconds that the run took until it was interrupted
        self.latest: tuple[list[float], float] | None = None  # a look at the state as it is; None: nobody has looked
        self.curve: list[float] = []  # accuracies of the rounds in which somebody looked
        self.record: dict[str, Any] = {}

    @property
    def num_rounds(self) -> int:
        """Of all steps together."""
        return self.job.rounds_per_step * self.scenario.num_steps

    @property
    def continual(self) -> bool:
        """Whether there are steps, and so a matrix."""
        return self.scenario.num_steps > 1

    def open(self) -> ServerState:
        """The state before the first round, the first record, and the picture of who holds what."""
        state = self.world.strategy.init(self.world.ctx)
        counts = self.scenario.counts(self.data.labels.train_N)
        draw_partition(counts, self.data.class_names, self.job.out / "partition")
        about = {"class_counts": counts.tolist(), **(self.columns.about() if self.continual else {})}
        self.record = self.job.first_record("federated", self.data, self.scenario, **about) | {"rounds": []}
        if self.continual:
            model = self.world.strategy.model(state, self.world.ctx)
            self.record |= {"random_accuracy": self.columns.look(model)[0], "matrix": []}
        self.record["communication"] = Ledger().communication()
        self.ledger.begin(HEADER)
        self.rows.begin()
        self.save_head()
        self.world.ctx.progress.wrote(self.record)
        return state

    def reopen(self, checkpoint: Checkpoint) -> ServerState:
        """The state, the record and the ledger as the checkpoint has them."""
        self.job.check_same(checkpoint.record, self.scenario)
        state = unpack_server(checkpoint)
        resume_journal(checkpoint, self.ledger)
        self.record = resume_rows(checkpoint, self.rows)
        self.curve = [row["accuracy"] for row in self.record["rounds"] if row["accuracy"] is not None]
        self.before = self.record["seconds"]
        self.save_head()
        self.world.ctx.progress.say(f"going on after round {checkpoint.done} of {self.num_rounds}")
        return state

    def round(self, result: RoundResult) -> bool:
        """Evaluate, note and write what one round left; True where a budget ends the run."""
        progress, done = self.world.ctx.progress, result.round + 1
        self.note_messages(result.rows)
        if result.counted:
            self.latest = None  # it was of another state
        step_ends = self.continual and done % self.job.rounds_per_step == 0
        due = step_ends or done == self.num_rounds or done % self.job.evaluate_every == 0
        row, score = self.look(result.state) if due else ([], None)
        if self.note_stop(done, score) and score is None:
            row, score = self.look(result.state)  # so it is the last round
        entry = {
            "round": result.round,
            "step": result.step,
            "accuracy": score,
            "clients": list(result.clients),
            "failed": [dict(failure) for failure in result.failed],
            "counted": result.counted,
            **({} if result.counted else {"reason": result.reason}),
            "up": dict(result.up),
            "down": dict(result.down),
            **self.keep_summaries(result.replies),
            "seconds": round(result.seconds, 3),
        }
        self.record["rounds"].append(entry)
        if score is not None:
            self.curve.append(score)
            self.record["accuracy"] = accuracy_part(self.curve)
        if step_ends:
            self.note_step(result, row)
        self.rows.append(row_line(rounds=entry, **({"matrix": row} if step_ends else {})))
        if done == self.num_rounds or "stopped" in self.record or done % self.job.checkpoint_every == 0:
            self.keep(done, result.state)
        progress.wrote(self.record)
        for failure in result.failed:
            progress.say(f"round {done}: client {failure['client']} failed: {failure['reason']}")
        if not result.counted:
            progress.say(f"round {done} does not count: {result.reason}")
        figures = {} if score is None else {"accuracy": score}
        progress.advance("rounds", 0, **figures, bytes=self.record["communication"]["total_wire_bytes"])
        return "stopped" in self.record

    def look(self, state: ServerState) -> tuple[list[float], float]:
        """Accuracies on the groups, and over all of them, of a state that may be the one of the last look."""
        if self.latest is None:
            self.latest = self.columns.look(self.world.strategy.model(state, self.world.ctx))
        return self.latest

    def note_messages(self, rows: tuple[Transfer, ...]) -> None:
        """More lines of the ledger, and the totals with them."""
        more = Ledger(rows=rows)
        self.ledger.append(more.to_csv())
        self.record["communication"] = more.communication(self.record["communication"])

    def note_stop(self, done: int, score: float | None) -> bool:
        """Whether a budget ends the run before its last round, and in the record which."""
        if self.job.stop.idle or done == self.num_rounds:
            return False
        found = self.job.stop.reached(
            total_wire_bytes=self.record["communication"]["total_wire_bytes"],
            accuracy=score,
            seconds=self.seconds,
        )
        if found is not None:
            self.record["stopped"] = found
        return found is not None

    def note_step(self, result: RoundResult, row: list[float]) -> None:
        """One more row of the matrix, at the end of a step, and what follows from it."""
        self.record["matrix"].append(row)
        self.record["continual"] = self.columns.part(self.record["matrix"], self.record["random_accuracy"])
        self.record["continual_clients"] = self.columns.by_client(self.record["matrix"])
        kept = result.state.summaries
        self.record["memory"] = {
            "bytes": sum(summary.payload_bytes for summary in kept),
            "images": sum(summary.num_images for summary in kept),
            **stored(self.job.out / "clients"),
        }
        shown = "  ".join(f"{value:.3f}" for value in row)
        self.world.ctx.progress.say(f"step {result.step + 1} of {self.scenario.num_steps}: {shown}")

    def keep_summaries(self, replies: tuple[Reply, ...]) -> dict[str, Any]:
        """Write each client's latest summary; their hash and size for the record."""
        summaries = [(reply.client, summary) for reply in replies for summary in reply.summaries]
        if not summaries:
            return {}
        folder = self.job.out / "summaries"
        folder.mkdir(exist_ok=True)
        recipe = describe(self.job.strategy)
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

    @property
    def seconds(self) -> float:
        """Of all sessions of the run."""
        return round(self.before + time.perf_counter() - self.start, 3)

    def keep(self, done: int, state: ServerState) -> None:
        """The checkpoint of a round, and the record without its rows: nothing here grows with the rounds."""
        head = self.save_head()
        tensors, about = pack_server(state)
        marks = {journal.path.name: journal.mark() for journal in (self.ledger, self.rows)}
        write_checkpoint(self.job.out, Checkpoint(done=done, record=head, tensors=tensors, about=about, marks=marks))

    def save_head(self) -> dict[str, Any]:
        """Write the record without its rows, and return it."""
        self.record["seconds"] = self.seconds
        head = head_of(self.record)
        write_record(self.job.out, head)
        return head

    def save(self, failure: str | None = None) -> None:
        """Write the whole record."""
        self.record["seconds"] = self.seconds
        write_record(self.job.out, self.record | ({} if failure is None else {"failure": failure}))
        self.world.ctx.progress.wrote(self.record)

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
        self.rows.path.unlink(missing_ok=True)  # the record has them now
