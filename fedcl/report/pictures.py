"""Pictures of the page, as far as there is room: figures drawn here, and files that runs left in their folders."""

import base64
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from fedcl.report.compare import Group, Method
from fedcl.report.figures import for_page, to_svg
from fedcl.report.records import Run, leads_out
from fedcl.report.tables import Table, class_counts

TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
MOST_BYTES = 2_000_000  # of one picture
MOST_PARTITIONS = 3  # drawn in a group
MOST_SUMMARIES = 8  # grids in a group


@dataclass
class Album:
    """Takes figures and files until the page would grow too big, and counts those that it left out."""

    figures: int = 40  # still to draw
    most_bytes: int = 24_000_000  # still to embed
    files: dict[str, str] = field(default_factory=dict)  # name of a figure's file -> SVG
    figures_left_out: int = 0
    files_left_out: int = 0

    def draw(self, name: str, title: str, figure: Callable[[Group], Figure | None], group: Group) -> Markup:
        """The figure of a group as SVG, empty when there is nothing to draw or no room left."""
        if self.figures == 0:
            self.figures_left_out += 1
            return Markup()
        made = figure(group)
        if made is None:
            return Markup()
        self.figures -= 1
        svg = self.files[f"{name}.svg"] = to_svg(made, name)
        return Markup(for_page(svg, html.escape(title)))

    def embed(self, path: Path) -> str:
        """The file as a data URI, or "" when it is missing, unreadable, too big or a link to elsewhere."""
        try:
            if not path.is_file() or leads_out(path):
                return ""
            if path.stat().st_size > min(MOST_BYTES, self.most_bytes):
                self.files_left_out += 1
                return ""
            data = path.read_bytes()
        except OSError:
            return ""
        self.most_bytes -= len(data)
        return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(data).decode()}"

    def partitions(self, group: Group) -> list[tuple[Run, str, Table | None]]:
        """The first partitions of a group: a run and its own picture, else a table of its `class_counts`."""
        first = {run.partition: run for run in reversed(group.runs)}
        found = (self._partition(first[sha]) for sha in group.partitions)
        return list(islice((one for one in found if any(one[1:])), MOST_PARTITIONS))

    def _partition(self, run: Run) -> tuple[Run, str, Table | None]:
        uri = self.embed(run.path / "partition.svg") or self.embed(run.path / "partition.png")
        return run, uri, None if uri else class_counts(run)

    def summaries(self, group: Group) -> list[tuple[Method, str]]:
        """Image grids of what was sent or kept: of each method, the run with the first seed."""
        found = ((method, self.embed(method.runs[0].path / "summaries.png")) for method in group.methods)
        return list(islice((one for one in found if one[1]), MOST_SUMMARIES))
