"""Tables of streams: the main one, and every figure that the records hold."""

from __future__ import annotations

from fedcl.report import formats
from fedcl.report.cells import Table, name_cell, seeds_cell, spread_cell, without_empty
from fedcl.report.compare import Group
from fedcl.report.records import Run

FIGURES = {  # of the record's `continual` part: words of a column; other variants of forgetting repeat one of these
    "average_accuracy": "average accuracy",
    "average_incremental_accuracy": "average incremental accuracy",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
}


def continual(group: Group) -> Table:
    """Every method after the last step."""
    rows = [
        (
            name_cell(method.name),
            spread_cell(method.spread(lambda r: r.record["accuracy"]["last"]), formats.percent),
            spread_cell(method.spread(lambda r: figure(r, "average_incremental_accuracy")), formats.percent),
            spread_cell(method.spread(lambda r: figure(r, "forgetting")), formats.percent),
            spread_cell(method.spread(lambda r: r.record.get("memory", {}).get("bytes")), formats.size),
            spread_cell(method.spread(lambda r: r.record["seconds"]), formats.seconds),
            seeds_cell(method),
        )
        for method in group.methods
    ]
    headers = ("method", "accuracy, last", "average incremental accuracy", "forgetting", "memory", "seconds", "seeds")
    return Table(
        caption="Every method after the last step, mean ± standard deviation over seeds",
        headers=headers,
        rows=tuple(rows),
        note="– means that a figure does not exist: a method that is trained at the last step only forgets nothing.",
    )


def figures(group: Group) -> Table:
    """Every figure of the stream, and the memory, without the columns that no method has."""
    runs = [run for method in group.methods for run in method.runs]
    memory = list(dict.fromkeys(name for run in runs for name in run.record.get("memory", {})))
    rows = []
    for method in group.methods:
        cells = [name_cell(method.name)]
        for name in FIGURES:
            cells.append(spread_cell(method.spread(lambda r, n=name: figure(r, n)), formats.percent))
        for name in memory:
            say = formats.size if name.endswith("bytes") else formats.count
            cells.append(spread_cell(method.spread(lambda r, n=name: r.record.get("memory", {}).get(n)), say))
        rows.append(tuple(cells))
    headers = ("method", *FIGURES.values(), *(_memory_words(name) for name in memory))
    caption = "Figures of the stream, and memory after the last step"
    return without_empty(Table(caption=caption, headers=headers, rows=tuple(rows)))


def figure(run: Run, name: str) -> float | None:
    """A figure of the record's `continual` part, or None where it does not exist."""
    return run.record.get("continual", {}).get(name)


def _memory_words(name: str) -> str:
    words_of = {"bytes": "memory", "images": "images of the memory"}
    return words_of.get(name, name.replace("_", " "))
