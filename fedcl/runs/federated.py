"""`fedcl federated`: what a job is made of, and its run from top to bottom."""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

from fedcl.core.coding import Wire
from fedcl.core.compute import keep_large_blocks
from fedcl.core.errors import ConfigError
from fedcl.core.progress import SILENT, Progress
from fedcl.core.record import open_folder
from fedcl.core.rules import whole
from fedcl.data.base import Dataset
from fedcl.data.sharded import ShardedDataset
from fedcl.distill.context import Context
from fedcl.federated.client_state import ClientStore
from fedcl.federated.contract import Strategy, sends_weights
from fedcl.federated.limits import Limits
from fedcl.federated.transforms.base import NoTransform, Transform
from fedcl.flower.client import SimulationContext
from fedcl.flower.rounds import check_clients
from fedcl.flower.runtime import Runtime
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.runs.federated_record import FederatedRecord
from fedcl.runs.job import GridJob
from fedcl.runs.stopping import Stop
from fedcl.scenario.base import Scenario


@dataclass(frozen=True, kw_only=True)
class FederatedJob(GridJob):
    """Everything that decides a federated run."""

    strategy: Strategy
    runtime: Runtime = field(default_factory=Serial)
    wire: Wire = field(default_factory=Wire)
    compress: Transform | tuple[Transform, ...] = field(default_factory=NoTransform)  # between a reply and the wire
    # per step of the scenario; None: the strategy's own number
    num_rounds: Annotated[int | None, whole(1, example=10)] = None
    clients_per_round: int | None = None  # None: all
    min_success: int = 1  # replies that a round needs to count
    stop: Stop = field(default_factory=Stop)  # what ends the run before its last round
    limits: Limits = field(default_factory=Limits)  # of what one client may send
    # rounds between two looks at the test set; the last round and ends of steps have theirs
    evaluate_every: Annotated[int, whole(1, example=1)] = 1
    evaluate_clients: bool = False  # also at clients, each on its own share of the test set
    # rounds between two checkpoints, the work that a kill may cost; the last has its own
    checkpoint_every: Annotated[int, whole(1, example=1)] = 1

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """Those that do something, in their order at a client."""
        several = (self.compress,) if isinstance(self.compress, Transform) else self.compress
        return tuple(transform for transform in several if not isinstance(transform, NoTransform))

    def check(self, num_steps: int) -> None:
        """Raise ConfigError where nothing is sent to compress, or a budget would cut off a stream of so many steps."""
        if self.transforms and not sends_weights(self.strategy):
            raise ConfigError(
                f"compress={self.transforms[0].name} compresses weights, and clients of this strategy "
                f"({type(self.strategy).__name__}) send none; type compress=none, or strategy=fedavg"
            )
        if num_steps > 1 and not self.stop.idle:
            raise ConfigError(
                f"stop.* ends a run early, and a stream of {num_steps} steps is judged after its last one; "
                "leave stop.* null, or type num_rounds=... for fewer rounds a step"
            )

    @property
    def rounds_per_step(self) -> int:
        return self.num_rounds or self.strategy.num_rounds


def make_simulation(job: FederatedJob, progress: Progress = SILENT) -> tuple[SimulationContext, Dataset, Scenario]:
    """Load the data, deal the shares, and gather what both halves live in; nothing is written."""
    data, scenario = job.load()
    check_clients(job.strategy, scenario.num_clients, job.clients_per_round, job.min_success)
    job.check(scenario.num_steps)
    ctx = job.make_context(Context, data, progress)
    sim = SimulationContext(
        strategy=job.strategy,
        ctx=ctx,
        shard=ShardedDataset(train=data.train.to(ctx.device), scenario=scenario),
        num_clients=scenario.num_clients,
        wire=job.wire,
        compress=job.transforms,
        states=ClientStore(job.out.absolute() / "clients"),
        limits=job.limits,
        registered=lambda client, step: len(scenario.share(client=client, step=step)),
    )
    return sim, data, scenario


def remake_simulation(job: FederatedJob) -> SimulationContext:
    """The same simulation in a worker process."""
    keep_large_blocks()
    return make_simulation(job)[0]


def run_federated(job: FederatedJob, progress: Progress = SILENT) -> dict[str, Any]:
    """Run the job, or go on with it, and return its record, which lies in `job.out` with summaries and pictures.

    Raises:
        FedclError: the job cannot be done, or no round counted.
    """
    start = time.perf_counter()
    keep_large_blocks()
    sim, data, scenario = make_simulation(job, progress)
    run = FederatedRecord(job, sim, data, scenario, start)
    with open_folder(job.out):
        first_round, state = run.begin()
        # a worker needs the recipe of the simulation and the folder of its clients, not the notes of this run
        bare = replace(job, out=job.out.absolute(), choices={}, command=[])
        with run.failure_noted():
            if first_round < run.num_rounds and "stopped" not in run.record:
                simulate(
                    sim,
                    job.runtime,
                    num_rounds=run.num_rounds,
                    clients_per_round=job.clients_per_round,
                    min_success=job.min_success,
                    on_round=run.round,
                    on_reply=run.reply,
                    on_roll_call=None if first_round else run.note_messages,  # the ledger has it already
                    load=partial(remake_simulation, bare),
                    step_of_round=lambda round: round // job.rounds_per_step,
                    start_round=first_round,
                    state=state,
                )
            run.finish()
        return run.record
