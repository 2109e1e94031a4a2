"""`fedcl continual`: steps one after the other, a learner with memory, and the record that they leave."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from fedcl.continual.contract import LearnerContext, State, Step, Strategy
from fedcl.continual.remember import stored_bytes
from fedcl.core.compute import keep_large_blocks
from fedcl.core.errors import ConfigError
from fedcl.core.progress import SILENT, Progress
from fedcl.core.record import accuracy_part, open_folder, row_line
from fedcl.data.sharded import ShardedDataset
from fedcl.memory.budget import Budget
from fedcl.memory.files import save_buffer
from fedcl.runs.checkpoint import Checkpoint, pack_state, unpack_state
from fedcl.runs.continual_pictures import draw_continual
from fedcl.runs.job import GridJob, GridRecord

MEMORY = "buffer.safetensors"
OFTEN = 20  # a stream of more steps is evaluated where a group ends


@dataclass(frozen=True, kw_only=True)
class ContinualJob(GridJob):
    """Everything that decides a continual run."""

    strategy: Strategy
    budget: Budget

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.strategy, Strategy):
            raise ConfigError(f"strategy {type(self.strategy).__name__} is no continual one; type e.g. strategy=replay")


def run_continual(job: ContinualJob, progress: Progress = SILENT) -> dict[str, Any]:
    """Run the job, or go on with it, and return its record, which also lies in `job.out`.

    Raises:
        FedclError: the job cannot be done.
    """
    start = time.perf_counter()
    keep_large_blocks()
    run = _Run(job, progress, start)
    with open_folder(job.out):
        first, state = run.begin()
        progress.begin("steps", run.scenario.num_steps - first)
        try:
            with run.failure_noted():
                for index in range(first, run.scenario.num_steps):
                    state = job.strategy.learn(state, run.step(index), run.ctx)
                    run.note(index, state)
                    progress.advance("steps")
        finally:
            progress.end("steps")
        run.finish(state)
        return run.record


class _Run(GridRecord):
    """A run: its data, its context, and its record as it grows."""

    job: ContinualJob
    ctx: LearnerContext

    def __init__(self, job: ContinualJob, progress: Progress, start: float) -> None:
        data, scenario = job.load()
        if scenario.num_clients != 1:
            raise ConfigError(
                f"scenario '{scenario.name}' has {scenario.num_clients} clients and a continual learner is "
                "alone; type scenario=class_incremental, or fedcl federated for many clients"
            )
        ctx = job.make_context(LearnerContext, data, progress, budget=job.budget, watch=self.watch)
        if job.strategy.needs_memory:
            who = f"strategy {type(job.strategy).__name__}"
            job.budget.require(sum(stored_bytes(job.distiller, ctx)), who)
        super().__init__(job, data, scenario, ctx, start)
        self.watched: list[float] = []

    @cached_property
    def cells(self) -> ShardedDataset:
        return ShardedDataset(train=self.data.train.to(self.ctx.device), scenario=self.scenario)

    def watch(self, model: nn.Module) -> None:
        """Look at all groups in mid-training, for protocols that publish the best epoch."""
        self.watched.append(self.columns.look(model)[1])

    def step(self, index: int) -> Step:
        held_TC = self.columns.held_TC
        return Step(
            data=self.cells(0, index),
            index=index,
            num_steps=self.scenario.num_steps,
            old_C=torch.from_numpy(held_TC[:index].any(0)),
            seen_C=torch.from_numpy(held_TC[: index + 1].any(0)),
            history=lambda: self.cells.history(0, index),
        )

    def open(self) -> State:
        state = self.job.strategy.init(self.ctx)
        self.record = self.first("continual", **self.columns.about())
        untrained = self.columns.look(self.job.strategy.model(state, self.ctx))[0]
        self.record |= {"random_accuracy": untrained, "matrix": [], "steps": []}
        self.rows.begin()
        self.save(rows=False)
        return state

    def reopen(self, checkpoint: Checkpoint) -> State:
        super().reopen(checkpoint)
        self.watched = list(checkpoint.about["watched"])
        self.save(rows=False)
        self.progress.say(f"going on after step {checkpoint.done} of {self.scenario.num_steps}")
        return unpack_state(checkpoint)

    def evaluated(self, index: int) -> bool:
        """True where a row is worth its time: always in short streams, else where the next step brings a group.

        A strategy that trains at the last step alone has nothing to look at before it.
        """
        num_steps = self.scenario.num_steps
        if not self.job.strategy.every_step:
            return index + 1 == num_steps
        return num_steps <= OFTEN or index + 1 in (*self.columns.first_G.tolist(), num_steps)

    def note(self, index: int, state: State) -> None:
        """Evaluate, note and save what one step left."""
        looked, num_steps = self.evaluated(index), self.scenario.num_steps
        entry: dict[str, Any] = {"step": index, **state.buffer.memory}
        row: list[float | None] = [None] * len(self.columns.groups)
        if looked:
            found, entry["accuracy"] = self.columns.look(self.job.strategy.model(state, self.ctx))
            firsts = self.columns.first_G
            row = [*found]
            seen = [f"{value:.3f}" if first <= index else "  .  " for value, first in zip(found, firsts, strict=True)]
            memory = f"memory {state.buffer.num_bytes:,} B"
            self.progress.say(f"step {index + 1} of {num_steps}: {'  '.join(seen)}   {memory}")
        entry["seconds"] = self.seconds
        self.record["matrix"].append(row)
        self.record["steps"].append(entry)
        self.rows.append(row_line(steps=entry, matrix=row))
        self.record["memory"] = {name: entry[name] for name in ("bytes", "images", "stored_images")}
        if looked:
            self.summarise()
        if looked or num_steps <= OFTEN or index % 10 == 9:  # tiny steps: a checkpoint now and then
            self.keep(index + 1, pack_state(state), watched=self.watched)

    def summarise(self) -> None:
        """The parts of the record that follow from all its rows; at an evaluation, for it takes as long as they are."""
        self.record["accuracy"] = accuracy_part([e["accuracy"] for e in self.record["steps"] if "accuracy" in e])
        self.record["continual"] = self.columns.part(self.record["matrix"], self.record["random_accuracy"])
        if self.watched:
            self.record["epochs"] = {"accuracy": self.watched, "best": max(self.watched), "last": self.watched[-1]}

    def finish(self, state: State) -> None:
        """Write the buffer, the pictures, and a finished record."""
        if len(state.buffer):
            save_buffer(state.buffer, self.job.out / MEMORY)
        draw_continual(self.record, state.buffer, self.job.out, self.data.class_names)
        self.close()
