"""One section of the page for each group of comparable runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedcl.report import figures, html, pictures, tables, tables_continual, tables_distill
from fedcl.report.compare import Group, accuracy
from fedcl.report.formats import Spread, plural, spread
from fedcl.report.names import name_methods
from fedcl.report.published import published, unlike
from fedcl.report.records import Run
from fedcl.report.settings import settings
from fedcl.report.statements import control, statement, terms, where

MOST_MATRICES = 6
TITLES = {"federated": "Federated", "continual": "Continual", "distill": "Distillation"}
MAIN = {"federated": tables.federated, "continual": tables_continual.continual, "distill": tables_distill.distill}


@dataclass
class Drawing:
    """Collects figures as files while the page is written; draws for the first groups only."""

    album: pictures.Album
    room: int = 40  # figures still to draw
    files: dict[str, str] = field(default_factory=dict)  # file name -> SVG
    left_out: int = 0

    def add(self, name: str, title: str, caption: str, draw) -> str:
        """HTML of a figure, "" when there is nothing to draw or no room left."""
        if self.room == 0:
            self.left_out += 1
            return ""
        made = draw()
        if made is None:
            return ""
        self.room -= 1
        svg = figures.to_svg(made, name)
        self.files[f"{name}.svg"] = svg
        return html.figure(figures.for_page(svg, html.text(title)), caption)


def section(group: Group, number: int, drawing: Drawing, *, repeat_statement: bool) -> str:
    """The whole section; `number` counts groups from 1."""
    facts = [
        f"{TITLES[group.verb]} runs: {len(group.runs)}",
        f"seeds {', '.join(map(str, group.seeds[:12]))}",
    ]
    if group.partitions:
        shas = ", ".join(sha[:12] for sha in group.partitions[:6])
        facts.append(f"partition (SHA-256) {shas}" + (" …" if len(group.partitions) > 6 else ""))
    parts = [
        f'<section id="group-{number}">\n',
        f"<h2>{html.text(TITLES[group.verb])}: {html.text(where(group))}</h2>\n",
        f'<p class="facts">{html.text(" · ".join(facts))}</p>\n',
    ]
    if repeat_statement:
        parts.append(f"<p>{html.text(statement(group))}</p>\n")
    if group.notes:
        parts.append(f'<div class="notice">{html.listing(group.notes)}</div>\n')
    colours = {method.name: index for index, method in enumerate(figures.shown(group))}
    parts.append(html.table(MAIN[group.verb](group), colours))
    name = f"group-{number}"
    if group.verb == "federated":
        parts.append(_federated(group, name, drawing))
    if any("matrix" in run.record for run in group.runs):
        parts.append(_continual(group, name, drawing))
    if group.verb == "distill":
        parts.append(_distill(group, name, drawing))
    parts.append(pictures.partitions(group, drawing.album))
    parts.append(pictures.summaries(group, drawing.album))
    parts.append("</section>\n")
    return "".join(parts)


def _federated(group: Group, name: str, drawing: Drawing) -> str:
    fewer = len(group.methods) - len(figures.shown(group))
    kept = f" Drawn: FedAvg and the cheapest; {fewer} more are in the tables." if fewer else ""
    band = "Line: mean over seeds; band: one standard deviation." + kept
    drawn = drawing.add(
        f"{name}-accuracy-bytes",
        f"Accuracy against wire bytes: {where(group)}",
        f"Accuracy against cumulative wire bytes{terms(group)}, up and down, log axis. {band}",
        lambda: figures.accuracy_against_bytes(group),
    ) + drawing.add(
        f"{name}-accuracy-rounds",
        f"Accuracy against rounds: {where(group)}",
        f"Accuracy against rounds{terms(group)}. {band}",
        lambda: figures.accuracy_against_rounds(group),
    )
    both = f'<div class="figures">{drawn}</div>\n' if drawn else ""
    return (
        f"{both}<h3>What an accuracy costs, and what a budget buys</h3>\n"
        + html.table(tables.bytes_to_accuracy(group))
        + html.table(tables.accuracy_at_budget(group))
        + "<h3>What is in the bytes</h3>\n"
        + html.table(tables.contents(group))
    )


def _continual(group: Group, name: str, drawing: Drawing) -> str:
    parts = ["<h3>Step by step</h3>\n"]
    curve = drawing.add(
        f"{name}-steps",
        f"Accuracy after each step: {where(group)}",
        "Mean accuracy on the groups seen so far, after each step. Line: mean over seeds; band: one standard "
        "deviation.",
        lambda: figures.accuracy_over_steps(group),
    )
    parts.append(f'<div class="figures">{curve}</div>\n' if curve else "")
    parts.append(html.table(tables_continual.figures(group)))
    with_matrix = [method for method in group.methods if any("matrix" in run.record for run in method.runs)]
    parts.append('<div class="figures">')
    for method in with_matrix[:MOST_MATRICES]:
        rows, columns, seeds = mean_matrix(method.runs)
        caption = f"{method.name}: accuracy in % on each group after each step (mean of {plural(seeds, 'seed')})"
        parts.append(html.matrix(rows, caption, columns))
    parts.append("</div>\n")
    if len(with_matrix) > MOST_MATRICES:
        parts.append(f'<p class="note">{len(with_matrix) - MOST_MATRICES} more matrices are in the records.</p>\n')
    return "".join(parts)


def mean_matrix(runs: Sequence[Run]) -> tuple[list[list[float | None]], list[str], int]:
    """Mean over the runs that have a matrix, cell by cell; names of the columns; how many runs."""
    matrices = [run.record["matrix"] for run in runs if "matrix" in run.record]
    steps = max(len(matrix) for matrix in matrices)
    width = max(len(row) for matrix in matrices for row in matrix)
    rows: list[list[float | None]] = []
    for step in range(steps):
        row: list[float | None] = []
        for column in range(width):
            cells = [m[step][column] for m in matrices if step < len(m) and column < len(m[step])]
            value = spread(cells)
            row.append(value.mean if value else None)
        rows.append(row)
    return rows, [str(name) for name in runs[0].record["scenario"]["groups"]], len(matrices)


def _distill(group: Group, name: str, drawing: Drawing) -> str:
    drawn = ""
    for against, words in (("ipc", "images a class"), ("bytes", "bytes")):
        drawn += drawing.add(
            f"{name}-accuracy-{against}",
            f"Accuracy against {words}: {where(group)}",
            f"Accuracy of networks trained on the summary alone, against {words} (log axis), with controls "
            "of equal bytes and published numbers where the preset has any; the table says how their protocol differs.",
            lambda against=against: figures.distilled(group, against, distill_series(group, against)),
        )
    return f'<div class="figures">{drawn}</div>\n' if drawn else ""


def distill_series(group: Group, against: str) -> list[tuple[str, list[tuple[float, Spread]]]]:
    """Lines of the distillation figures: presets over their sizes, then published numbers, then controls."""
    lines: dict[str, list[Run]] = {}
    first: dict[str, tuple[Run, dict[str, str]]] = {}
    for method in group.methods:
        for run in method.runs:
            own = {k: v for k, v in settings(run).items() if k != "distiller.ipc"}
            key = json.dumps(own, sort_keys=True)
            first.setdefault(key, (run, own))
            lines.setdefault(key, []).append(run)
    names = dict(zip(first, name_methods(list(first.values())), strict=True))
    series = [(names[key], _points(runs, against, accuracy)) for key, runs in lines.items()]
    for key, runs in lines.items():
        points = _points(runs, against, published)
        if points:
            series.append((f"{names[key]}, published{', another protocol' if any(map(unlike, runs)) else ''}", points))
    every = [run for runs in lines.values() for run in runs]
    controls = [run.record["distillation"].get("controls", {}) for run in every]
    for name in sorted({name for one in controls for name in one}):
        points = _points(every, against, lambda run, name=name: control(run, name))
        series.append((f"control: {name}", points))
    return series


def _points(runs: Sequence[Run], against: str, value) -> list[tuple[float, Spread]]:
    places: dict[float, list[float | None]] = {}
    for run in runs:
        x = run.record["distillation"][against]
        if x > 0:
            places.setdefault(x, []).append(value(run))
    return [(x, found) for x, values in sorted(places.items()) if (found := spread(values))]
