"""results.csv: one line a run, exact values."""

from __future__ import annotations

import csv
import io

from fedcl.report.compare import Comparison, Group, Method
from fedcl.report.records import Run
from fedcl.report.statements import control

COLUMNS = ("run", "verb", "group", "method", "seed", "dataset", "model", "scenario", "partition_sha256")
COLUMNS += ("wire", "participation")
COLUMNS += ("accuracy_last", "accuracy_mean_last5", "accuracy_best", "rounds")
COLUMNS += ("up_payload_bytes", "up_wire_bytes", "down_payload_bytes", "down_wire_bytes", "total_wire_bytes")
COLUMNS += ("times_fewer_than_fedavg", "compared_with", "ipc", "summary_bytes", "summary_accuracy")
COLUMNS += ("random_accuracy", "kmeans_accuracy", "memory_bytes", "seconds", "repeat")


def results_csv(comparison: Comparison) -> str:
    """One line a run, exact values (fractions, bytes, seconds); empty where a verb has no such part."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for number, group in enumerate(comparison.groups, 1):
        for method in group.methods:
            for run in (*method.runs, *method.repeats):
                writer.writerow(_line(run, group, method, number))
    return out.getvalue()


def _line(run: Run, group: Group, method: Method, number: int) -> dict:
    record = run.record
    wire = record.get("communication", {})
    part = record.get("distillation", {})
    scores = part.get("accuracy") if isinstance(part.get("accuracy"), dict) else {}
    line = {
        "run": str(run.path),
        "verb": run.verb,
        "group": number,
        "method": method.name,
        "seed": run.seed,
        "dataset": group.dataset,
        "model": group.model,
        "scenario": group.scenario,
        "partition_sha256": run.partition,
        "wire": method.wire,
        "participation": method.participation,
        "rounds": len(record["rounds"]) if "rounds" in record else "",
        "total_wire_bytes": wire.get("total_wire_bytes", ""),
        "ipc": part.get("ipc", ""),
        "summary_bytes": part.get("bytes", ""),
        "summary_accuracy": scores.get("mean", ""),
        "memory_bytes": record.get("memory", {}).get("bytes", ""),
        "seconds": record["seconds"],
        "repeat": int(any(run is one for one in method.repeats)),
    }
    for name in ("last", "mean_last5", "best"):
        line[f"accuracy_{name}"] = record.get("accuracy", {}).get(name, "")
    for way in ("up", "down"):
        for kind in ("payload_bytes", "wire_bytes"):
            line[f"{way}_{kind}"] = wire.get(way, {}).get(kind, "")
    for name in ("random", "kmeans"):
        found = control(run, name) if run.verb == "distill" else None
        line[f"{name}_accuracy"] = "" if found is None else found
    base = group.baseline(method)
    theirs = None if base is None else base.by_partition().get((run.seed, run.partition))
    if base is not None and theirs is not None and run.total_bytes:
        line["times_fewer_than_fedavg"] = (theirs.total_bytes or 0) / run.total_bytes
        line["compared_with"] = base.name
    return line
