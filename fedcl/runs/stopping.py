"""Budgets: what ends a run early, after the round that used one up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedcl.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Limits that are looked at after every round; None is no limit.

    A run stops after the first round that reaches a limit, so bytes and seconds may exceed theirs by a round.
    `accuracy` is on the test set: good for "how many bytes until 95 %", not for choosing a model. It is looked at
    in evaluated rounds only (`evaluate_every`). The clock decides only when `seconds` ends a run, never a number in it.
    """

    total_wire_bytes: int | None = None  # up and down, as in record.json: communication.total_wire_bytes
    accuracy: float | None = None  # in [0, 1]
    seconds: float | None = None  # as in record.json: of all sessions of the run

    def __post_init__(self) -> None:
        if self.total_wire_bytes is not None and self.total_wire_bytes < 1:
            raise ConfigError(f"stop.total_wire_bytes={self.total_wire_bytes} must be at least 1 byte, or null")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise ConfigError(f"stop.accuracy={self.accuracy:g} must lie in (0, 1], e.g. 0.95, or be null")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"stop.seconds={self.seconds:g} must be more than 0, or null")

    @property
    def idle(self) -> bool:
        """Whether there is no limit at all."""
        return self == Stop()

    def reached(self, *, total_wire_bytes: int, accuracy: float | None, seconds: float) -> dict[str, Any] | None:
        """{"by": "stop.accuracy", "value", "limit"} of the first limit that is reached, else None.

        An `accuracy` of None, of a round without evaluation, reaches nothing.
        """
        values = {"total_wire_bytes": total_wire_bytes, "accuracy": accuracy, "seconds": seconds}
        for name, limit in asdict(self).items():
            if limit is not None and (value := values[name]) is not None and value >= limit:
                return {"by": f"stop.{name}", "value": value, "limit": limit}
        return None
