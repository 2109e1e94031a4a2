"""Exact values for a reader's script: results.csv, one line a run, and the JSON inside the page."""

import csv
import io
import json
from itertools import product
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from fedcl.report.compare import Comparison, Listed

SENT = tuple(product(("up", "down"), ("payload_bytes", "wire_bytes")))
# column -> keys of its value in the record, () where it is made here
COLUMNS: dict[str, tuple[str, ...]] = dict.fromkeys(("run", "verb", "group", "method", "seed", "dataset", "model"), ())
COLUMNS |= dict.fromkeys(("scenario", "partition_sha256", "wire", "participation"), ())
COLUMNS |= {f"accuracy_{name}": ("accuracy", name) for name in ("last", "mean_last5", "best")} | {"rounds": ()}
COLUMNS |= {f"{way}_{size}": ("communication", way, size) for way, size in SENT}
COLUMNS |= {"total_wire_bytes": ("communication", "total_wire_bytes"), "times_fewer_than_fedavg": ()}
COLUMNS |= {"compared_with": (), "ipc": ("distillation", "ipc"), "summary_bytes": ("distillation", "bytes")}
COLUMNS |= {"summary_accuracy": ("distillation", "accuracy", "mean")}
COLUMNS |= {f"{name}_accuracy": ("distillation", "controls", name, "accuracy", "mean") for name in ("random", "kmeans")}
COLUMNS |= {"memory_bytes": ("memory", "bytes"), "seconds": ("seconds",), "repeat": ()}
ROUND = ("round", "step", "accuracy", "up_payload", "up_wire", "down_payload", "down_wire", "seconds")


def results_csv(comparison: Comparison) -> str:
    """One line a run, exact values (fractions, bytes, seconds); empty where a verb has no such part."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(listed) for listed in comparison.listed())
    return out.getvalue()


def _line(listed: Listed) -> dict[str, Any]:
    run, group, method = listed.run, listed.group, listed.method
    line = {"run": run.path, "verb": run.verb, "group": listed.group_number, "method": method.name, "seed": run.seed}
    line |= {"dataset": group.dataset, "model": group.model, "scenario": group.scenario}
    line |= {"partition_sha256": run.partition, "wire": method.wire, "participation": method.participation}
    line |= {"rounds": len(run.record["rounds"]) if "rounds" in run.record else None, "repeat": int(listed.repeat)}
    line |= {column: run.at(*path) for column, path in COLUMNS.items() if path}
    base = group.baseline(method)
    theirs = base and base.by_partition().get((run.seed, run.partition))
    if base and theirs and run.total_bytes:
        line |= {"times_fewer_than_fedavg": (theirs.total_bytes or 0) / run.total_bytes, "compared_with": base.name}
    return line


def embedded(comparison: Comparison) -> str:
    """Every run as JSON that is safe inside a script element: markup, which a template leaves as it is."""
    content = {"columns_of_rounds": ROUND, "runs": [_numbers(listed) for listed in comparison.listed()]}
    return htmlsafe_json_dumps(content, json.dumps, separators=(",", ":"), allow_nan=False)


def _numbers(listed: Listed) -> dict[str, Any]:
    """The record, its rounds as rows of numbers, beside where the page puts it."""
    record = dict(listed.run.record)
    rows = [
        [row["round"], row.get("step"), row.get("accuracy")]
        + [row[way][size] for way, size in SENT]
        + [row.get("seconds")]
        for row in record.pop("rounds", ())
    ]
    placed = {"path": str(listed.run.path), "group": listed.group_number, "method": listed.method.name}
    return {**placed, "repeat": listed.repeat, "record": record, "rounds": rows}
