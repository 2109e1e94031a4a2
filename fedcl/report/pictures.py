"""Pictures that runs left in their folders, as data URIs; and a partition drawn from its counts."""

from __future__ import annotations

import base64
from pathlib import Path

from fedcl.report import html
from fedcl.report.compare import Group
from fedcl.report.records import Run, leads_out

TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
MOST_BYTES = 2_000_000  # of one picture
MOST_PARTITIONS = 3  # drawn in a group
MOST_SUMMARIES = 8  # grids in a group


class Album:
    """Embeds pictures until the page would grow too big, and counts those that it left out."""

    def __init__(self, most_bytes: int = 24_000_000) -> None:
        self.room = most_bytes
        self.left_out = 0

    def add(self, path: Path, alt: str) -> str:
        """An <img> with the picture inside, or "" when it is missing, unreadable, too big or a link to elsewhere."""
        try:
            if not path.is_file() or leads_out(path):
                return ""
            if path.stat().st_size > min(MOST_BYTES, self.room):
                self.left_out += 1
                return ""
            data = path.read_bytes()
        except OSError:
            return ""
        self.room -= len(data)
        uri = f"data:{TYPES[path.suffix]};base64,{base64.b64encode(data).decode()}"
        return html.opened(f'<img class="paper" loading="lazy" alt="{html.text(alt)}" src="{uri}">')


def partitions(group: Group, album: Album) -> str:
    """The first partitions of a group: the run's own picture, else one drawn from `class_counts`."""
    by_partition = {run.partition: run for run in reversed(group.runs) if run.partition}
    drawn = []
    for sha in group.partitions:
        if len(drawn) == MOST_PARTITIONS:
            break
        run = by_partition[sha]
        when = ", at the first step" if run.record["scenario"].get("num_steps", 1) > 1 else ""
        caption = f"Who holds what{when}: {group.scenario}, seed {run.seed}, partition {sha[:12]}"
        alt = f"{caption}: a row for each client, its examples by class"
        body = album.add(run.path / "partition.svg", alt) or album.add(run.path / "partition.png", alt)
        body = body or counts_table(run)
        if body:
            drawn.append(html.figure(body, caption))
    if not drawn:
        return ""
    more = len(group.partitions) - len(drawn)
    note = f'<p class="note">{more} more partition(s) lie in their runs’ folders.</p>' if more > 0 else ""
    return f'<h3>Partitions</h3>\n<div class="figures pictures">{"".join(drawn)}</div>{note}\n'


def counts_table(run: Run) -> str:
    """`scenario.class_counts` as a tinted table, "" when the record has none."""
    counts = run.record.get("scenario", {}).get("class_counts")
    if not _is_counts(counts):
        return ""
    top = max(max(row) for row in counts) or 1
    head = "".join(f'<th scope="col">{index}</th>' for index in range(len(counts[0])))
    rows = "".join(
        f'<tr><th scope="row">{client}</th>'
        + "".join(f'<td style="--a:{100 * n / top:.0f}%">{n}</td>' for n in row)
        + "</tr>"
        for client, row in enumerate(counts)
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="examples by client and class">'
        '<table class="matrix"><caption><span>Examples by client (rows) and class (columns)</span></caption>'
        f'<thead><tr><th scope="col">client</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _is_counts(counts: object) -> bool:
    """A rectangular table of whole numbers, small enough to show."""
    return (
        isinstance(counts, list)
        and 0 < len(counts) <= 100
        and all(isinstance(row, list) and 0 < len(row) <= 100 and len(row) == len(counts[0]) for row in counts)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for row in counts for n in row)
    )


def summaries(group: Group, album: Album) -> str:
    """Image grids of what was sent or kept: of each method, the run with the first seed."""
    drawn = []
    for method in group.methods:
        if len(drawn) == MOST_SUMMARIES:
            break
        run = method.runs[0]
        caption = f"{method.name}, seed {run.seed}: its summaries"
        body = album.add(run.path / "summaries.png", f"{caption}, one small image a synthetic or selected example")
        if body:
            drawn.append(html.figure(body, caption))
    return f'<h3>Summaries</h3>\n<div class="figures wide">{"".join(drawn)}</div>\n' if drawn else ""
