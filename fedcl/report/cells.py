"""Tables of the report as plain data: what a reader sees in each cell, beside the exact value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fedcl.report.compare import Group, Method, Value
from fedcl.report.formats import NOTHING, Spread, plural


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a reader sees, and the exact value that the page sorts by."""

    text: str
    value: float | str | None = None  # None sorts last
    tip: str = ""  # more, shown beside the cell on request
    tint: float | None = None  # percent of the tint behind it


@dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    headers: Sequence[str]  # the first column names the row, the others hold numbers
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    label: str = ""  # for screen readers; "" where it is the caption


Column = tuple[str, Callable[[Group, Method], Cell]]  # header, and the cell of a method of a group


def table(group: Group, columns: Iterable[Column], caption: str, note: str = "", *, drop_empty: bool = False) -> Table:
    """A row for each method; `drop_empty` leaves columns out in which no method has a value."""
    made = [(header, [cell(group, method) for method in group.methods]) for header, cell in columns]
    if drop_empty:
        made = [(header, cells) for header, cells in made if any(cell.value is not None for cell in cells)]
    names = [Cell(text=method.name, value=method.name) for method in group.methods]
    rows = list(zip(names, *(cells for _, cells in made), strict=True))
    return Table(caption=caption, headers=("method", *(header for header, _ in made)), rows=rows, note=note)


def mean(header: str, value: Value, say: Callable[[Spread], str]) -> Column:
    """The mean of `value(run)` over the seeds, with its spread."""
    return header, lambda group, method: spread_cell(method.spread(value), say)


def spread_cell(value: Spread | None, say: Callable[[Spread], str], nothing: str = NOTHING) -> Cell:
    """A mean with its spread; `nothing` where there is none."""
    if value is None:
        return Cell(text=nothing)
    return Cell(text=say(value), value=value.mean, tip=f"{value.mean:.10g}, {plural(value.count, 'seed')}")
