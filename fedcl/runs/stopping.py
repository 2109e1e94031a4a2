"""Budgets: what ends a run early, after the round that used one up."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fedcl.core.rules import Checked, number, whole


@dataclass(frozen=True, kw_only=True)
class Stop(Checked):
    """Limits that are looked at after every round; None is no limit.

    A run stops after the first round that reaches a limit, so bytes and seconds may exceed theirs by a round.
    `accuracy` is on the test set: good for "how many bytes until 95 %", not for choosing a model. It is looked at
    in evaluated rounds only (`evaluate_every`). The clock decides only when `seconds` ends a run, never a number in it.
    """

    config_key = "stop"

    # up and down, as in record.json: communication.total_wire_bytes
    total_wire_bytes: Annotated[int | None, whole(1, example=1_000_000)] = None
    accuracy: Annotated[float | None, number(above=0, most=1, example=0.95)] = None  # in [0, 1]
    # as in record.json: of all sessions of the run
    seconds: Annotated[float | None, number(above=0, example=3600)] = None

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
