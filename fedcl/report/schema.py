"""Checks of a record before a report trusts it: its schema, and sums and lengths that a schema cannot say."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fedcl.core.errors import FedclError
from fedcl.core.record_schema import VERBS, checker


class Unreadable(FedclError):
    """A record that cannot be reported; the message says why in plain words."""


def known_parts(record: Any) -> dict[str, Any]:
    """The parts of a finished record that its verb has in this version.

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
        rounds, failure = record.get("rounds"), record.get("failure")
        what = "the run is still going, or stopped" if failure is None else "the run failed"
        done = f" after {len(rounds)} round(s)" if isinstance(rounds, list) and rounds else ""
        why = "" if failure is None else f" ({' '.join(str(failure).split())[:300]})"
        raise Unreadable(f"{what}{done}{why}; start it again with the same out= to finish it")
    record = {name: part for name, part in record.items() if name in VERBS[record["verb"]].__annotations__}
    try:
        checker(record["verb"]).validate_python(record, strict=True)
    except ValidationError as error:
        raise Unreadable(_in_words(error)) from None
    if "communication" in record:
        total = record["communication"]["total_wire_bytes"]
        both = sum(record["communication"][way]["wire_bytes"] for way in ("up", "down"))
        in_rounds = sum(row[way]["wire_bytes"] for row in record["rounds"] for way in ("up", "down"))
        if not total == both == in_rounds:
            sums = f"{total} wire bytes in total, but {both} up and down, and {in_rounds} in its rounds"
            raise Unreadable(f"the record contradicts itself: {sums}")
    if "matrix" in record:
        groups, firsts = (record["scenario"].get(name) for name in ("groups", "first_steps"))
        if not groups or not firsts or len(groups) != len(firsts):
            raise Unreadable("'scenario.first_steps' and 'scenario.groups' are absent or of different lengths")
        for index, row in enumerate(record["matrix"]):
            if len(row) != len(groups):
                raise Unreadable(f"'matrix[{index}]' is not a row of {len(groups)} accuracies in [0, 1]")
    return record


def _in_words(error: ValidationError) -> str:
    """The first thing that is wrong, by its place: "rounds[3].up.wire_bytes"."""
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    if first["type"] == "missing":
        return f"the record lacks '{place}': it is of another version of fedcl, or damaged"
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"'{place}' should be {wanted}, not {str(first['input'])[:60]!r}"
