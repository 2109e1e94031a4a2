"""The numbers of the page as JSON, so that a reader's script finds them without the records."""

from __future__ import annotations

import json
from typing import Any

from fedcl.report.compare import Comparison
from fedcl.report.records import Run

COLUMNS = ("round", "step", "accuracy", "up_payload", "up_wire", "down_payload", "down_wire", "seconds")


def embedded(comparison: Comparison) -> str:
    """Every run as JSON that is safe inside a script element: no `<`, no `&`, no line separators."""
    runs = []
    for number, group in enumerate(comparison.groups, 1):
        for method in group.methods:
            runs += [_run(run, number, method.name, repeat=False) for run in method.runs]
            runs += [_run(run, number, method.name, repeat=True) for run in method.repeats]
    content = {"columns_of_rounds": COLUMNS, "runs": runs}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _run(run: Run, group: int, method: str, *, repeat: bool) -> dict[str, Any]:
    """The record, its rounds as rows of numbers, beside where the page puts it."""
    rest = {name: part for name, part in run.record.items() if name != "rounds"}
    rows = [
        [row["round"], row.get("step"), row.get("accuracy")]
        + [row[way][size] for way in ("up", "down") for size in ("payload_bytes", "wire_bytes")]
        + [row.get("seconds")]
        for row in run.record.get("rounds", [])
    ]
    placed = {"path": str(run.path), "group": group, "method": method, "repeat": repeat}
    return {**placed, "record": rest, "rounds": rows}
