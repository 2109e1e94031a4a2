"""Runtime `ray`: Flower's simulation engine, one actor a CPU (or GPU share), one machine or a Ray cluster."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.rules import number
from fedcl.flower.client import SimulationContext, WorkerFactory, make_client_app
from fedcl.flower.compat import run_on_ray
from fedcl.flower.runtime import Runtime, counted

_START_SECONDS = 120.0  # for nodes to register and actors to start
_POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Ray(Runtime):
    """Clients in parallel, in processes of their own; worth its seconds of start when clients work long."""

    # CPUs an actor holds; the machine's CPUs divided by it is the number of actors
    num_cpus: Annotated[float, number(above=0, example=1)] = 1.0
    num_gpus: Annotated[float, number(least=0, example=0)] = 0.0  # share of a GPU an actor holds
    address: str | None = None  # of a running Ray cluster ("auto", "ray://..."); None starts Ray on this machine
    timeout: Annotated[float | None, number(above=0, example=600)] = None  # seconds that a client's work may take

    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        if load is None:
            raise ConfigError(
                "runtime=ray needs simulate(..., load=...), which makes the simulation in another process"
            )
        app = make_client_app(self.job(WorkerFactory.of(load)), sim.mods)
        over = threading.Event()
        outer = ServerApp()

        @outer.main()
        def main(grid: Grid, context: Context) -> None:
            server(_PolledGrid(grid, sim, self.timeout, over), context)  # type: ignore[arg-type]

        try:
            run_on_ray(outer, app, sim.num_clients, self._config())
        finally:
            over.set()  # the server's thread stops waiting for replies that cannot come any more

    def _config(self) -> dict[str, Any]:
        init: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "include_dashboard": False}
        if self.address is not None:
            init["address"] = self.address
        return {"client_resources": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}, "init_args": init}


class _PolledGrid:
    """Flower's grid, polled faster, given up when the engine is gone or the clients are overdue."""

    def __init__(self, grid: Grid, sim: SimulationContext, timeout: float | None, over: threading.Event) -> None:
        self._grid, self._progress, self._timeout, self._over = grid, sim.ctx.progress, timeout, over
        self._wait(lambda: len(list(grid.get_node_ids())) >= sim.num_clients, _START_SECONDS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def _wait(self, done: Callable[[], bool], seconds: float | None) -> None:
        """Poll until `done`, or until the time is up."""
        end = None if seconds is None else time.monotonic() + seconds
        while not done() and (end is None or time.monotonic() < end):
            if self._over.wait(_POLL_SECONDS):
                raise RunError("Flower's simulation engine stopped before the run was over")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Replies that came. A client judges its own time; this is the backstop for one that hangs."""
        messages = list(messages)
        waiting = set(self._grid.push_messages(messages))
        replies: list[Message] = []

        def collect() -> bool:
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
                advance()
            return not waiting

        with counted(self._progress, messages) as advance:
            self._wait(collect, None if self._timeout is None else _START_SECONDS + self._timeout * len(messages))
        return replies
