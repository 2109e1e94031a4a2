"""A federated run: one ServerApp, rounds in order, on whichever runtime."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedcl.core.errors import RunError
from fedcl.federated.contract import ServerState
from fedcl.federated.ledger import Transfer
from fedcl.flower.adapter import Adapter, RoundResult
from fedcl.flower.client import SimulationContext
from fedcl.flower.compat import quiet
from fedcl.flower.runtime import Runtime


def simulate(
    world: SimulationContext,
    runtime: Runtime,
    *,
    num_rounds: int,
    clients_per_round: int | None = None,
    min_success: int = 1,
    on_round: Callable[[RoundResult], bool | None] | None = None,
    on_roll_call: Callable[[tuple[Transfer, ...]], None] | None = None,
    load: Callable[[], SimulationContext] | None = None,
    step_of_round: Callable[[int], int] = lambda round: 0,
    start_round: int = 0,
    state: ServerState | None = None,
) -> ServerState:
    """Run rounds `start_round` to `num_rounds` (counted from 0) and give the last state.

    Args:
        world: strategy, ctx and data, in this process.
        clients_per_round: how many are asked each round; None for all.
        min_success: usable replies that a round needs to change the state.
        on_round: called after every round, also one that did not count; returning True stops the run. The replies
            are let go after it, so that those of two rounds are never held at once.
        on_roll_call: called once before the first round, with the ledger's rows of the roll call.
        load: makes an equal world in another process; only runtime=ray needs it. Cheap to pickle.
        step_of_round: which step of the scenario a round belongs to.
        start_round, state: to go on with a run, what it had before `start_round`.

    Raises:
        ConfigError: numbers that do not fit together, or Ray is missing.
        RunError: every client of a round failed. `on_round` has seen that round.
    """
    quiet()
    adapter = Adapter(
        world,
        clients_per_round=clients_per_round,
        min_success=min_success,
        step_of_round=step_of_round,
        state=state,
    )
    server = ServerApp()
    threads, progress = torch.get_num_threads(), world.ctx.progress
    failure: list[BaseException] = []  # kept here, because a runtime may run the server in a thread of its own

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(threads)
        progress.begin("rounds", num_rounds - start_round)
        try:
            rows = adapter.call_roll(grid)
            if on_roll_call is not None:
                on_roll_call(rows)
            for round in range(start_round, num_rounds):
                result = one_round(adapter, grid, round)
                stop = on_round(result) if on_round is not None else False
                progress.advance("rounds")
                if not result.replies:
                    first = result.failed[0]
                    said = f"client {first['client']}: {first['reason']}"
                    raise RunError(f"every client of round {round + 1} failed; {said}")
                del result
                if stop:
                    break
        except BaseException as error:
            failure.append(error)
        finally:
            progress.end("rounds")

    runtime.launch(server, world, load)
    if failure:
        raise failure[0]
    return adapter.state


def one_round(adapter: Adapter, grid: Grid, round: int) -> RoundResult:
    """Ask, wait, combine."""
    start = time.perf_counter()
    messages = adapter.configure_train(round + 1, ArrayRecord(), ConfigRecord(), grid)
    adapter.aggregate_train(round + 1, grid.send_and_receive(messages))
    result, adapter.result = adapter.result, None
    if result is None:
        raise RunError(f"round {round + 1} left no result")
    return replace(result, seconds=time.perf_counter() - start)
