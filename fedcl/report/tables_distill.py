"""The table of distillations: accuracy beside controls of equal bytes, and beside what was published."""

from __future__ import annotations

from fedcl.report import formats
from fedcl.report.cells import Cell, Table, name_cell, seeds_cell, spread_cell, without_empty
from fedcl.report.compare import Group, Method
from fedcl.report.formats import Spread
from fedcl.report.published import published, unlike
from fedcl.report.statements import control

MOST_NAMED = 3  # settings of a published protocol in a cell; all of them stand beside it on request


def distill(group: Group) -> Table:
    """Every method and size."""
    names = sorted({name for run in group.runs for name in run.record["distillation"].get("controls", {})})
    rows = []
    for method in group.methods:
        part = method.runs[0].record["distillation"]
        rows.append(
            (
                name_cell(method.name),
                Cell(text=f"{part['ipc']}", value=part["ipc"]),
                spread_cell(method.spread(lambda r: r.record["distillation"]["bytes"]), formats.size),
                spread_cell(method.spread(lambda r: r.record["distillation"]["accuracy"]["mean"]), _with_nets(method)),
                *(spread_cell(method.spread(lambda r, n=n: control(r, n)), formats.percent) for n in names),
                _published(method),
                spread_cell(method.spread(lambda r: r.record["distillation"].get("seconds")), formats.seconds),
                seeds_cell(method),
            )
        )
    headers = ("method", "images a class", "bytes", "accuracy", *(f"control: {name}" for name in names))
    headers += ("published", "seconds", "seeds")
    return without_empty(
        Table(
            caption="Accuracy of networks trained on the summaries alone, beside controls of equal bytes",
            headers=headers,
            rows=tuple(rows),
            note="± is over seeds; with one seed, over the networks that were trained on its summary. Beside a "
            "published number stands what its protocol has and this run has not.",
        )
    )


def _published(method: Method) -> Cell:
    run = method.runs[0]
    value = published(run)
    if value is None:
        return Cell(text=formats.NOTHING)
    differs = unlike(run)
    more = [f"{len(differs) - MOST_NAMED} more"] if len(differs) > MOST_NAMED else []
    beside = f" ({', '.join([*differs[:MOST_NAMED], *more])})" if differs else ""
    return Cell(text=formats.percent(value) + beside, value=value, tip=", ".join(["as published", *differs]))


def _with_nets(method: Method):
    """One seed has no spread over seeds: show the record's own spread over networks, and say how many."""

    def say(value: Spread) -> str:
        own = method.runs[0].record["distillation"]["accuracy"]
        if value.count == 1 and isinstance(own.get("std"), int | float):
            return formats.percent(Spread(mean=value.mean, std=own["std"], count=2)) + f" ({own['nets']} nets)"
        return formats.percent(value)

    return say
