"""The comparison in a few columns, for a terminal and for a README."""

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from fedcl.report.compare import accuracy, compare
from fedcl.report.formats import percent
from fedcl.report.records import Run
from fedcl.report.statements import where
from fedcl.report.tables import BYTES, SECONDS, mean, table

COLUMNS = (mean("accuracy", accuracy, percent), *BYTES, SECONDS)
HEADERS = ("method", *(header for header, _ in COLUMNS))


def _short(runs: Sequence[Run]) -> list[tuple[str, list[list[str]]]]:
    """What a group shares, and its rows of text: the columns of the demo's table."""
    groups = compare(runs).groups
    return [(where(group), [[cell.text for cell in row] for row in table(group, COLUMNS).rows]) for group in groups]


def comparison_table(runs: Sequence[Run]) -> Table:
    """The comparison for a terminal; one block for each group of comparable runs."""
    blocks = _short(runs)
    made = Table(box=box.SIMPLE_HEAD, title=escape(blocks[0][0]) if len(blocks) == 1 else None)
    for index, header in enumerate(HEADERS):
        made.add_column(header, justify="right" if index else "left")
    for shared, rows in blocks:
        if len(blocks) > 1:
            made.add_section()
            made.add_row(f"[italic]{escape(shared)}[/italic]")
        for row in rows:
            made.add_row(*map(escape, row))
    return made


def comparison_markdown(runs: Sequence[Run]) -> str:
    """The same table in Markdown, for a README; ends with a line break."""
    lines = []
    for shared, rows in _short(runs):
        lines += [f"{_md(shared)}:", "", f"| {' | '.join(HEADERS)} |", "|---|" + "---:|" * len(COLUMNS)]
        lines += [f"| {' | '.join(map(_md, row))} |" for row in rows] + [""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
