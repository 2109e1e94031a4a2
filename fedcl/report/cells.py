"""Tables of the report as plain data: what a reader sees in each cell, beside the exact value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedcl.report import formats
from fedcl.report.compare import Method
from fedcl.report.formats import NOTHING, Spread


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a reader sees, and the exact value that the page sorts by."""

    text: str
    value: float | str | None = None  # None sorts last
    tip: str = ""  # more, shown beside the cell on request


@dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    headers: tuple[str, ...]  # the first column names the row
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: tuple[int, ...] = (0,)  # columns that hold text; the others hold numbers
    note: str = ""


def name_cell(text: str, tip: str = "") -> Cell:
    return Cell(text=text, value=text, tip=tip)


def spread_cell(value: Spread | None, say: Callable[[Spread], str], tip: str = "", nothing: str = NOTHING) -> Cell:
    """A mean with its spread; `nothing` where there is none."""
    if value is None:
        return Cell(text=nothing)
    count = formats.plural(value.count, "seed")
    return Cell(text=say(value), value=value.mean, tip=tip or f"{value.mean:.10g}, {count}")


def seeds_cell(method: Method) -> Cell:
    seeds = [run.seed for run in method.runs]
    return Cell(text=str(len(seeds)), value=len(seeds), tip="seeds " + ", ".join(map(str, seeds)))


def without_empty(table: Table) -> Table:
    """The table without the columns in which no method has a value; the first one stays."""
    kept = [i for i in range(len(table.headers)) if i == 0 or any(row[i].value is not None for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, headers=tuple(table.headers[i] for i in kept), rows=rows)
