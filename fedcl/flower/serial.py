"""Runtime `serial`: ClientApps in this process, one after the other. Starts in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedcl.core.progress import SILENT, Progress
from fedcl.flower.client import ClientRuntime, SimulationContext, make_client_app
from fedcl.flower.compat import new_context
from fedcl.flower.grid import InProcessGrid
from fedcl.flower.runtime import Runtime, check_timeout


class SerialGrid(InProcessGrid):
    """One ClientApp call a message."""

    def __init__(self, app: ClientApp, num_clients: int, progress: Progress = SILENT) -> None:
        super().__init__(num_clients)
        self._app, self._progress = app, progress

    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        return call_each(self._app, messages, self._progress)


def call_each(app: ClientApp, messages: Sequence[tuple[Message, Context]], progress: Progress) -> list[Message]:
    """One reply a message."""
    shown = [pair for pair in messages if pair[0].metadata.message_type == MessageType.TRAIN]
    if shown:
        progress.begin("clients", len(shown))
    replies = []
    try:
        for message, context in messages:
            replies.append(app(message, context))
            if shown:
                progress.advance("clients")
    finally:
        if shown:
            progress.end("clients")
    return replies


@dataclass(frozen=True, kw_only=True)
class Serial(Runtime):
    """The default: no processes, no threads, a debugger works."""

    timeout: float | None = None  # seconds; judged after the fact, because nothing can be interrupted here

    def __post_init__(self) -> None:
        check_timeout(self.timeout)

    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        job = ClientRuntime(sim=lambda: sim, num_threads=torch.get_num_threads(), timeout=self.timeout)
        server(SerialGrid(make_client_app(job, sim.mods), sim.num_clients, sim.ctx.progress), new_context(1, 0, 1))
