"""Pieces of HTML. Everything that comes from a record passes `text` before it gets here."""

from __future__ import annotations

import html
from collections.abc import Iterable

from fedcl.report.cells import Cell, Table


def text(value: object) -> str:
    """Any value as text that HTML shows and never interprets."""
    return html.escape(str(value), quote=True)


def table(content: Table, colours: dict[str, int] | None = None) -> str:
    """A sortable table in a container that scrolls by itself.

    Args:
        colours: number of the figure's line by method, for the mark beside its name.
    """
    head = "".join(
        f'<th scope="col"{_kind(index in content.text_columns)}><button type="button">{text(header)}</button></th>'
        for index, header in enumerate(content.headers)
    )
    rows = "\n".join(f"<tr>{_row(row, content.text_columns, colours or {})}</tr>" for row in content.rows)
    note = f'<p class="note">{text(content.note)}</p>' if content.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(content.caption)}">\n<table>\n'
        f"<caption><span>{text(content.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{note}\n"
    )


def _kind(is_text: bool) -> str:
    return ' class="t"' if is_text else ""


def _row(row: tuple[Cell, ...], text_columns: tuple[int, ...], colours: dict[str, int]) -> str:
    cells = []
    for index, cell in enumerate(row):
        value = f' data-v="{text(cell.value)}"' if cell.value is not None else ""
        tip = f' title="{text(cell.tip)}"' if cell.tip else ""
        if index == 0:
            mark = f'<i class="mark m{colours[cell.text]}"></i>' if cell.text in colours else ""
            cells.append(f'<th scope="row" class="t"{value}{tip}>{mark}{text(cell.text)}</th>')
        else:
            cells.append(f"<td{_kind(index in text_columns)}{value}{tip}>{text(cell.text)}</td>")
    return "".join(cells)


def figure(body: str, caption: str) -> str:
    """A picture (SVG or img, already HTML) with its caption."""
    return f"<figure>{body}<figcaption>{text(caption)}</figcaption></figure>\n"


def opened(picture: str) -> str:
    """A picture that a click shows in full size, in the page itself: browsers follow no link to a data URI."""
    return f'<button type="button" class="opens" title="show in full size">{picture}</button>'


def details(summary: str, body: str, *, opened: bool = False, ident: str = "") -> str:
    """A part that opens on request; `body` is HTML, `summary` is text."""
    name = f' id="{ident}"' if ident else ""
    return f"<details{name}{' open' if opened else ''}><summary>{text(summary)}</summary>\n{body}</details>\n"


def listing(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>\n"


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """Names beside values, both HTML-escaped here."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in items)
    return f"<dl>{rows}</dl>\n"


def matrix(rows: list[list[float | None]], caption: str, columns: list[str]) -> str:
    """An accuracy matrix: percentages on a tint that grows with the accuracy."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = []
    for step, row in enumerate(rows):
        cells = "".join(
            f'<td data-v="{text(value)}" style="--a:{100 * value:.0f}%">{100 * value:.1f}</td>'
            if value is not None
            else "<td>–</td>"
            for value in row
        )
        body.append(f'<tr><th scope="row">{step + 1}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table class="matrix">'
        f"<caption><span>{text(caption)}</span></caption><thead><tr>"
        f'<th scope="col">after step</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>\n'
    )
