"""The comparison in a few columns, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from fedcl.report.cells import Table, mean, table
from fedcl.report.compare import accuracy, compare
from fedcl.report.formats import percent
from fedcl.report.records import Run
from fedcl.report.statements import where
from fedcl.report.tables import BYTES, SECONDS

COLUMNS = (mean("accuracy", accuracy, percent), *BYTES, SECONDS)
HEADERS = ("method", *(header for header, _ in COLUMNS))


def _short(runs: Sequence[Run]) -> list[Table]:
    """The columns of the demo's table, for each group; the caption is what the group shares."""
    return [table(group, COLUMNS, where(group)) for group in compare(runs).groups]


def comparison_table(runs: Sequence[Run]) -> RichTable:
    """The comparison for a terminal; one block for each group of comparable runs."""
    blocks = _short(runs)
    made = RichTable(box=box.SIMPLE_HEAD, title=escape(blocks[0].caption) if len(blocks) == 1 else None)
    for index, header in enumerate(HEADERS):
        made.add_column(header, justify="right" if index else "left")
    for block in blocks:
        if len(blocks) > 1:
            made.add_section()
            made.add_row(f"[italic]{escape(block.caption)}[/italic]")
        for row in block.rows:
            made.add_row(*(escape(cell.text) for cell in row))
    return made


def comparison_markdown(runs: Sequence[Run]) -> str:
    """The same table in Markdown, for a README; ends with a line break."""
    lines = []
    for block in _short(runs):
        lines += [f"{_md(block.caption)}:", "", f"| {' | '.join(HEADERS)} |", "|---|" + "---:|" * len(COLUMNS)]
        lines += [f"| {' | '.join(_md(cell.text) for cell in row)} |" for row in block.rows] + [""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
