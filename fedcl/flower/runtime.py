"""A runtime carries messages. It is a frozen dataclass, named by one YAML in `configs/runtime/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from flwr.app import Message, MessageType
from flwr.serverapp import ServerApp

from fedcl.core.errors import ConfigError
from fedcl.core.progress import SILENT, Progress
from fedcl.flower.client import ClientRuntime, SimulationContext


class Runtime(ABC):
    """Where ClientApps run. The same ServerApp and ClientApp serve all of them."""

    timeout: float | None  # seconds that a client's work may take; None: as long as it likes

    def __post_init__(self) -> None:
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"runtime.timeout={self.timeout} must be positive seconds, or null for no limit")

    @abstractmethod
    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        """Run `server` to its end against `sim.num_clients` clients; `load` remakes the simulation elsewhere."""

    def job(self, sim: Callable[[], SimulationContext]) -> ClientRuntime:
        return ClientRuntime(sim=sim, num_threads=torch.get_num_threads(), timeout=self.timeout)


@contextmanager
def counted(progress: Progress, messages: Iterable[Message]) -> Iterator[Callable[[], None]]:
    """Show how many clients have answered, each told of by a call; the roll call is not shown."""
    shown = sum(message.metadata.message_type == MessageType.TRAIN for message in messages)
    listener = progress if shown else SILENT
    listener.begin("clients", shown)
    try:
        yield partial(listener.advance, "clients")
    finally:
        listener.end("clients")
