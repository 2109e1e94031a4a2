"""Record of a federated run: rounds, bytes, accuracies, checkpoints and pictures, written as the run goes on."""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedcl.core.describe import describe
from fedcl.core.errors import RunError
from fedcl.core.journal import Journal
from fedcl.core.record import accuracy_part, row_line
from fedcl.data.base import Dataset
from fedcl.distill.blobs import encode
from fedcl.distill.files import load_summary, save_summary
from fedcl.federated.client_state import ClientState
from fedcl.federated.evaluation import FIGURES, ClientTests, at_clients
from fedcl.federated.ledger import FILE, HEADER, Ledger, Transfer
from fedcl.federated.payload import Reply, ServerState
from fedcl.federated.transforms.base import visible
from fedcl.flower.client import SimulationContext
from fedcl.flower.rounds import RoundResult
from fedcl.runs.checkpoint import Checkpoint, pack_server, unpack_server
from fedcl.runs.continual_pictures import draw_continual
from fedcl.runs.job import GridRecord
from fedcl.runs.pictures import draw_partition, draw_summaries
from fedcl.scenario.base import Scenario

if TYPE_CHECKING:
    from fedcl.runs.federated import FederatedJob


class FederatedRecord(GridRecord):
    """The record of one federated run as it grows, with the files beside it."""

    job: "FederatedJob"

    def __init__(self, job: "FederatedJob", sim: SimulationContext, data: Dataset, scenario: Scenario, start: float):
        super().__init__(job, data, scenario, sim.ctx, start)
        self.sim, self.ledger = sim, Journal(job.out / FILE)
        self.num_rounds = job.rounds_per_step * scenario.num_steps
        self.continual = scenario.num_steps > 1  # there are steps, and so a matrix
        self.client_tests = ClientTests(test=data.test.to(sim.ctx.device), scenario=scenario, labels=data.labels)
        self.latest: tuple[list[float], float] | None = None  # a look at the state as it is; None: nobody has looked
        self.curve: list[float] = []  # accuracies of the rounds in which somebody looked
        self.received: list[tuple[str, int]] = []  # hash and images of this round's summaries, as they came
        self.asked: set[int] = set()  # clients since the last checkpoint

    def open(self) -> ServerState:
        state = self.sim.strategy.init(self.ctx)
        counts = self.scenario.counts(self.data.labels.train_N)
        draw_partition(counts, self.data.class_names, self.job.out / "partition")
        about = {"class_counts": counts.tolist(), **(self.columns.about() if self.continual else {})}
        self.record = self.first("federated", **about) | {"rounds": []}
        if self.continual:
            model = self.sim.strategy.model(state, self.ctx)
            self.record |= {"random_accuracy": self.columns.look(model)[0], "matrix": []}
        self.record["communication"] = Ledger().communication()
        self.ledger.begin(HEADER)
        self.rows.begin()
        self.save(rows=False)
        return state

    def reopen(self, checkpoint: Checkpoint) -> ServerState:
        super().reopen(checkpoint)
        state = unpack_server(checkpoint)
        self.sim.states.forget_from(checkpoint.done)
        checkpoint.resume(self.ledger)
        self.curve = [row["accuracy"] for row in self.record["rounds"] if row["accuracy"] is not None]
        self.save(rows=False)
        self.progress.say(f"going on after round {checkpoint.done} of {self.num_rounds}")
        return state

    def round(self, result: RoundResult) -> bool:
        """Evaluate, note and write what one round left; True where a budget ends the run."""
        progress, done = self.progress, result.round + 1
        self.asked |= {*result.clients}
        self.note_messages(result.rows)
        if result.counted:
            self.latest = None  # it was of another state
        step_ends = self.continual and done % self.job.rounds_per_step == 0
        due = step_ends or done == self.num_rounds or done % self.job.evaluate_every == 0
        row, score = self.look(result.state) if due else ([], None)
        if done < self.num_rounds:
            self.note_stop(score)
        stopped = "stopped" in self.record
        if stopped and score is None:
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
            **self.note_summaries(),
            **({} if score is None or not self.job.evaluate_clients else self.note_clients(result)),
            "seconds": round(result.seconds, 3),
        }
        self.record["rounds"].append(entry)
        if score is not None:
            self.curve.append(score)
            self.record["accuracy"] = accuracy_part(self.curve)
        if step_ends:
            self.note_step(result, row)
        self.rows.append(row_line(rounds=entry, **({"matrix": row} if step_ends else {})))
        if done == self.num_rounds or stopped or done % self.job.checkpoint_every == 0:
            self.keep(done, pack_server(result.state), self.ledger)
            self.sim.states.forget_before(done, self.asked)
            self.asked.clear()
        else:
            progress.wrote(self.record)
        for failure in result.failed:
            progress.say(f"round {done}: client {failure['client']} failed: {failure['reason']}")
        if not result.counted:
            progress.say(f"round {done} does not count: {result.reason}")
        figures = {} if score is None else {"accuracy": score}
        progress.advance("rounds", 0, **figures, bytes=self.record["communication"]["total_wire_bytes"])
        return stopped

    def look(self, state: ServerState) -> tuple[list[float], float]:
        """Accuracies on the groups, and over all of them, of a state that may be the one of the last look."""
        if self.latest is None:
            self.latest = self.columns.look(self.sim.strategy.model(state, self.ctx))
        return self.latest

    def note_clients(self, result: RoundResult) -> dict[str, Any]:
        """Accuracies at clients: all of them in the record, their figures for a round's row."""
        sim, ctx = self.sim, replace(self.ctx, round=result.round, step=result.step)

        def mine(client: int) -> ClientState:
            return visible(sim.states.read(client), sim.compress)

        found = at_clients(self.client_tests, sim.strategy, result.state, mine, ctx)
        self.record["at_clients"] = found
        return {"at_clients": {name: found[name] for name in FIGURES}}

    def note_messages(self, rows: tuple[Transfer, ...]) -> None:
        """More lines of the ledger, and the totals with them."""
        more = Ledger(rows=rows)
        self.ledger.append(more.to_csv())
        self.record["communication"] = more.communication(self.record["communication"])

    def note_stop(self, score: float | None) -> None:
        """The budget that ends the run, if one does."""
        sent = self.record["communication"]["total_wire_bytes"]
        if found := self.job.stop.reached(total_wire_bytes=sent, accuracy=score, seconds=self.seconds):
            self.record["stopped"] = found

    def note_step(self, result: RoundResult, row: list[float]) -> None:
        """One more row of the matrix, at the end of a step, and what follows from it."""
        self.record["matrix"].append(row)
        self.record["continual"] = self.columns.part(self.record["matrix"], self.record["random_accuracy"])
        self.record["continual_clients"] = self.columns.by_client(self.record["matrix"])
        kept = result.state.summaries
        self.record["memory"] = {
            "bytes": sum(encode(summary).num_bytes for summary in kept),
            "images": sum(summary.num_images for summary in kept),
            **self.sim.states.sizes(),
        }
        shown = "  ".join(f"{value:.3f}" for value in row)
        self.progress.say(f"step {result.step + 1} of {self.scenario.num_steps}: {shown}")

    def reply(self, reply: Reply) -> None:
        """Write a client's summaries, the latest of which stays, and count them for the record."""
        folder = self.job.out / "summaries"
        for summary in reply.summaries:
            folder.mkdir(exist_ok=True)
            self.received.append((summary.sha256(), summary.num_images))
            save_summary(summary, folder / f"client-{reply.client:04d}.safetensors", describe(self.job.strategy))

    def note_summaries(self) -> dict[str, Any]:
        """The hash and the size of a round's summaries, for its row."""
        received, self.received = self.received, []
        digest = hashlib.sha256("".join(sha256 for sha256, _ in received).encode()).hexdigest()
        images = sum(images for _, images in received)
        return {"summaries": {"sha256": digest, "decoded_images": images}} if received else {}

    def finish(self) -> None:
        """The pictures, and a finished record; RunError where no round counted, so there is no result."""
        rounds = self.record["rounds"]
        if not any(entry["counted"] for entry in rounds):
            failed = rounds[0]["failed"][:1]
            said = f"client {failed[0]['client']}: {failed[0]['reason']}" if failed else rounds[0]["reason"]
            raise RunError(f"no round counted, so nothing was learned; in round 1 {said}")
        files = sorted((self.job.out / "summaries").glob("client-*.safetensors"))
        if files:
            summaries = [load_summary(file) for file in files]
            draw_summaries(summaries, self.job.out / "summaries.png", self.data.class_names)
        if self.continual:
            draw_continual(self.record, None, self.job.out, self.data.class_names)
        self.close()
