"""The comparison in a few columns, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from fedcl.report import formats
from fedcl.report.cells import Cell, name_cell, spread_cell
from fedcl.report.compare import accuracy, compare
from fedcl.report.costs import times_fewer
from fedcl.report.records import Run
from fedcl.report.statements import where
from fedcl.report.tables import no_ratio


def _short(runs: Sequence[Run]) -> list[tuple[str, list[tuple[Cell, ...]]]]:
    """(what the group shares, rows) with the columns of the demo's table."""
    found = []
    for group in compare(runs).groups:
        rows = []
        for method in group.methods:
            last = method.spread(accuracy)
            values = [method.spread(lambda r, w=way: _wire(r, w)) for way in ("up", "down")]
            rows.append(
                (
                    name_cell(method.name),
                    spread_cell(last, formats.percent),
                    *(spread_cell(value, formats.size) for value in values),
                    spread_cell(method.spread(lambda r: r.total_bytes), formats.size),
                    spread_cell(times_fewer(group, method), formats.number, nothing=no_ratio(group, method)),
                    spread_cell(method.spread(lambda r: r.record["seconds"]), formats.seconds),
                )
            )
        found.append((where(group), rows))
    return found


def _wire(run: Run, way: str) -> int | None:
    return run.record["communication"][way]["wire_bytes"] if "communication" in run.record else None


SHORT = ("method", "accuracy", "bytes up", "bytes down", "bytes total", "times fewer than FedAvg", "seconds")


def comparison_table(runs: Sequence[Run]) -> RichTable:
    """The comparison for a terminal; one block for each group of comparable runs."""
    table = RichTable(box=box.SIMPLE_HEAD)
    for index, header in enumerate(SHORT):
        table.add_column(header, justify="left" if index == 0 else "right")
    blocks = _short(runs)
    for shared, rows in blocks:
        if len(blocks) > 1:
            table.add_section()
            table.add_row(f"[italic]{escape(shared)}[/italic]")
        for row in rows:
            table.add_row(*(escape(cell.text) for cell in row))
    if len(blocks) == 1:
        table.title = escape(blocks[0][0])
    return table


def comparison_markdown(runs: Sequence[Run]) -> str:
    """The same table in Markdown, for a README; ends with a line break."""
    lines = []
    for shared, rows in _short(runs):
        lines += [
            f"{_md(shared)}:",
            "",
            "| " + " | ".join(SHORT) + " |",
            "|---|" + "---:|" * (len(SHORT) - 1),
        ]
        lines += ["| " + " | ".join(_md(cell.text) for cell in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
