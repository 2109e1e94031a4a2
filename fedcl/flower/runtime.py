"""A runtime carries messages. It is a frozen dataclass, named by one YAML in `configs/runtime/`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import torch
from flwr.app import Message, MessageType
from flwr.serverapp import ServerApp

from fedcl.core.progress import SILENT, Progress
from fedcl.core.rules import Checked, number
from fedcl.flower.client import ClientRuntime, SimulationContext


class Runtime(Checked, ABC):
    """Where ClientApps run. The same ServerApp and ClientApp serve all of them."""

    config_key = "runtime"

    # seconds that a client's work may take; None: as long as it likes
    timeout: Annotated[float | None, number(above=0, example=600)]

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
