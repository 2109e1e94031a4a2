"""A runtime carries messages. It is a frozen dataclass, named by one YAML in `configs/runtime/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from flwr.serverapp import ServerApp

from fedcl.core.errors import ConfigError
from fedcl.flower.client import SimulationContext


class Runtime(ABC):
    """Where ClientApps run. The same ServerApp and ClientApp serve all of them."""

    timeout: float | None  # seconds that a client's work may take; None: as long as it likes

    @abstractmethod
    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        """Run `server` to its end against `sim.num_clients` clients; `load` remakes the simulation elsewhere."""


def check_timeout(timeout: float | None) -> None:
    """Raises ConfigError unless it is None or positive."""
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"runtime.timeout={timeout} must be positive seconds, or null for no limit")
