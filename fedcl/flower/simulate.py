"""A federated run: one ServerApp, rounds in order, on whichever runtime."""

from collections.abc import Callable

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcl.federated.ledger import Transfer
from fedcl.federated.payload import Reply, ServerState
from fedcl.flower.client import SimulationContext
from fedcl.flower.compat import quiet
from fedcl.flower.rounds import RoundClients, RoundResult, call_roll, check_clients, one_round, sample_clients
from fedcl.flower.runtime import Runtime


def simulate(
    sim: SimulationContext,
    runtime: Runtime,
    *,
    num_rounds: int,
    clients_per_round: int | None = None,
    min_success: int = 1,
    on_round: Callable[[RoundResult], bool | None] | None = None,
    on_reply: Callable[[Reply], None] | None = None,
    on_roll_call: Callable[[tuple[Transfer, ...]], None] | None = None,
    load: Callable[[], SimulationContext] | None = None,
    step_of_round: Callable[[int], int] = lambda round: 0,
    start_round: int = 0,
    state: ServerState | None = None,
) -> ServerState:
    """Run rounds `start_round` to `num_rounds` (counted from 0) and give the last state.

    Args:
        sim: strategy, ctx and data, in this process.
        clients_per_round: how many are asked each round; None for all.
        min_success: usable replies that each question of a round needs for the round to change the state.
        on_round: called after every round, also one that did not count; returning True stops the run.
        on_reply: called with every usable reply before the strategy has it; to be let go after that.
        on_roll_call: called once before the first round, with the ledger's rows of the roll call.
        load: makes an equal simulation in another process; only runtime=ray needs it. Cheap to pickle.
        step_of_round: which step of the scenario a round belongs to.
        start_round, state: to go on with a run, what it had before `start_round`.

    Raises:
        ConfigError: numbers that do not fit together, or Ray is missing.
        Exception: whatever the server half of the strategy raises; clients' exceptions cost them the round.
    """
    quiet()
    count = check_clients(sim.strategy, sim.num_clients, clients_per_round, min_success)
    sim.states.forget_from(start_round)
    latest = sim.strategy.init(sim.ctx) if state is None else state
    server = ServerApp()
    threads, progress = torch.get_num_threads(), sim.ctx.progress
    failure: list[BaseException] = []  # kept here, because a runtime may run the server in a thread of its own

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        nonlocal latest
        torch.set_num_threads(threads)
        progress.begin("rounds", num_rounds - start_round)
        try:
            nodes, rows = call_roll(grid, sim.num_clients)
            if on_roll_call is not None:
                on_roll_call(rows)
            for round in range(start_round, num_rounds):
                ids = sample_clients(sim.ctx.seed, round, sim.num_clients, count)
                told = {"step": step_of_round(round), "min_success": min_success, "on_reply": on_reply}
                result = one_round(RoundClients(sim, grid, nodes, ids, round=round, **told), latest)
                latest = result.state
                stop = on_round(result) if on_round is not None else False
                progress.advance("rounds")
                if stop:
                    break
        except BaseException as error:
            failure.append(error)
        finally:
            progress.end("rounds")

    runtime.launch(server, sim, load)
    if failure:
        raise failure[0]
    return latest
