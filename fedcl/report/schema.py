"""What a record must hold before a report trusts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcl.core.errors import FedclError

VERBS = ("federated", "continual", "distill")


class Unreadable(FedclError):
    """A record that cannot be reported; the message says why in plain words."""


def check(record: Any) -> None:
    """Return if `record` is a finished record that this version understands.

    Raises:
        Unreadable: it is foreign, from a later version, not finished, or contradicts itself.
    """
    if not isinstance(record, Mapping) or "verb" not in record or "finished" not in record:
        raise Unreadable("this is JSON, but not a record of fedcl: it has no 'verb' and 'finished'")
    if record["verb"] not in VERBS:
        raise Unreadable(
            f"the record is of the verb {str(record['verb'])[:60]!r}, which this version of fedcl does not "
            "know; report it with the version that wrote it"
        )
    if record["finished"] is not True:
        rounds = record.get("rounds")
        done = f" after {len(rounds)} round(s)" if isinstance(rounds, list) and rounds else ""
        failure = record.get("failure")
        what = "the run is still going, or stopped" if failure is None else "the run failed"
        why = "" if failure is None else f" ({' '.join(str(failure).split())[:300]})"
        raise Unreadable(f"{what}{done}{why}; start it again with the same out= to finish it")
    _mapping(record, "config")
    _mapping(record, "versions")
    _whole(record, "seed", low=None)
    _number(record, "seconds")
    {"federated": _federated, "continual": _continual, "distill": _distill}[record["verb"]](record)
    for part in ("scenario", "accuracy", "continual", "memory", "distillation"):
        if part in record:
            _mapping(record, part)
    if "matrix" in record:
        _matrix(record)
    if "scenario" in record:
        _scenario(record)


def _federated(record: Mapping) -> None:
    _scenario(record)
    _accuracy(record)
    for way in ("up", "down"):
        for size in ("payload_bytes", "wire_bytes"):
            _whole(record, f"communication.{way}.{size}")
    total = _whole(record, "communication.total_wire_bytes")
    kinds = _mapping(record, "communication.by_kind")
    for kind in kinds:
        _number(kinds, kind)
    rounds = _sequence(record, "rounds")
    for index, row in enumerate(rounds):
        place = f"rounds[{index}]."
        _whole(row, "round", place)
        if row.get("accuracy") is not None:
            _number(row, "accuracy", place, high=1)
        for way in ("up", "down"):
            for size in ("payload_bytes", "wire_bytes"):
                _whole(row, f"{way}.{size}", place)
        for failure in row.get("failed", []):
            if not isinstance(failure, Mapping):
                raise Unreadable(f"'{place}failed' holds {str(failure)[:60]!r}, not a client with a reason")
    ways = {way: record["communication"][way]["wire_bytes"] for way in ("up", "down")}
    in_rounds = sum(row[way]["wire_bytes"] for row in rounds for way in ways)
    if not total == sum(ways.values()) == in_rounds:
        raise Unreadable(
            f"the record contradicts itself: {total} wire bytes in total, but {sum(ways.values())} up and "
            f"down, and {in_rounds} in its rounds"
        )


def _continual(record: Mapping) -> None:
    _accuracy(record)
    _matrix(record)


def _distill(record: Mapping) -> None:
    _whole(record, "distillation.ipc")
    _whole(record, "distillation.bytes")
    _number(record, "distillation.accuracy.mean", high=1)
    if not isinstance(_get(record, "distillation.method"), str):
        raise Unreadable("'distillation.method' is not a name")
    for name in _mapping(record, "distillation.controls") if "controls" in record["distillation"] else ():
        _number(record, f"distillation.controls.{name}.accuracy.mean", high=1)


def _scenario(record: Mapping) -> None:
    for name in ("name", "sha256"):
        if not isinstance(_get(record, f"scenario.{name}"), str):
            raise Unreadable(f"'scenario.{name}' is not text")


def _accuracy(record: Mapping) -> None:
    for name in ("last", "mean_last5", "best"):
        _number(record, f"accuracy.{name}", high=1)


def _matrix(record: Mapping) -> None:
    groups = _sequence(record, "scenario.groups")
    if len(_sequence(record, "scenario.first_steps")) != len(groups):
        raise Unreadable("'scenario.first_steps' and 'scenario.groups' are of different lengths")
    for index, row in enumerate(_sequence(record, "matrix")):
        known = isinstance(row, list) and len(row) == len(groups)
        if not known or any(not (_is_number(v) and 0 <= v <= 1) for v in row if v is not None):
            raise Unreadable(f"'matrix[{index}]' is not a row of {len(groups)} accuracies in [0, 1]")


def _get(record: Any, path: str, place: str = "") -> Any:
    value = record
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise Unreadable(f"the record lacks '{place}{path}': it is of another version of fedcl, or damaged")
        value = value[name]
    return value


def _mapping(record: Any, path: str) -> Mapping:
    value = _get(record, path)
    if not isinstance(value, Mapping):
        raise Unreadable(f"'{path}' should be a table of names, not {str(value)[:60]!r}")
    return value


def _sequence(record: Any, path: str) -> Sequence:
    value = _get(record, path)
    if not isinstance(value, list) or not value:
        raise Unreadable(f"'{path}' should be a list with at least one row")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(record: Any, path: str, place: str = "", high: float | None = None) -> float:
    value = _get(record, path, place)
    if not _is_number(value) or value < 0 or (high is not None and value > high):
        limits = f"from 0 to {high}" if high is not None else "of 0 or more"
        raise Unreadable(f"'{place}{path}' should be a number {limits}, not {str(value)[:60]!r}")
    return value


def _whole(record: Any, path: str, place: str = "", low: int | None = 0) -> int:
    value = _get(record, path, place)
    if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
        raise Unreadable(f"'{place}{path}' should be a whole number, not {str(value)[:60]!r}")
    return value
