"""Single runs on the page: what failed, what ended them, and in which settings they differ."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import count, groupby
from typing import Any

from fedcl.report.compare import Comparison, Listed, accuracy
from fedcl.report.formats import number, percent, plural
from fedcl.report.records import Run
from fedcl.report.settings import differences, flat

# parts of a record that the page shows elsewhere
KNOWN = {"verb", "finished", "config", "seed", "versions", "seconds", "scenario", "accuracy", "rounds", "command"}
KNOWN |= {"communication", "matrix", "continual", "memory", "distillation"}


def entries(comparison: Comparison) -> list[dict[str, Any]]:
    """What the page says of each run, in the order of the report."""
    changes = [own for group in comparison.groups for own in differences([flat(run.config) for run in group.runs])]
    return [_entry(listed, own) for listed, own in zip(comparison.listed(), changes, strict=True)]


def _entry(listed: Listed, changes: Mapping[str, str]) -> dict[str, Any]:
    run, record = listed.run, listed.run.record
    name, failed, command, ended = f"{listed.method.name}, seed {run.seed}", _failures(run), record.get("command"), ""
    if isinstance(by := record.get("stopped"), Mapping):  # a budget ended the run before its last round
        ended = f"stopped early by {by.get('by', '?')}={by.get('limit', '?')} at {by.get('value', '?')}"
    title = f"{name}: {percent(accuracy(run))}{' (repeats a seed; in no mean)' if listed.repeat else ''}"
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    facts = {"folder": run.path, "seconds": number(record["seconds"])} | ({"end": ended} if ended else {})
    more = {key: value for key, value in record.items() if key not in KNOWN and isinstance(value, str | int | float)}
    return {
        "listed": listed,
        "name": name,
        "title": ", ".join(filter(None, [title, ended, plural(len(failed), "failure") if failed else ""])),
        "command": shlex.join(command) if isinstance(command, list) else "the record does not say",
        "facts": facts | {"versions": versions} | {key.replace("_", " "): str(more[key])[:300] for key in more},
        "failed": failed,
        "changes": {key: value.strip('"') for key, value in changes.items() if key != "out"},  # in the group
    }


def _failures(run: Run) -> list[str]:
    """What failed, one plain sentence each kind, with the rounds in which it happened."""
    places: dict[tuple[int, str], list[int]] = {}
    for row in run.record.get("rounds", ()):
        for failure in row.get("failed", ()):
            key = (failure["client"], " ".join(failure["reason"].split()))
            places.setdefault(key, []).append(row["round"] + 1)
    return [
        f"Client {client} gave no usable answer in {_ranges(numbers)}: {reason[:300]}"
        for (client, reason), numbers in places.items()
    ]


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as "rounds 1-3, 7"."""
    counter = count()
    spans = [list(span) for _, span in groupby(sorted(set(numbers)), lambda number: number - next(counter))]
    text = ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans)
    return f"round {text}" if text.isdigit() else f"rounds {text}"
