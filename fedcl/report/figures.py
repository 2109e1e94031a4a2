"""Figures of the report: matplotlib Figures without global state, as SVG that reads in light and dark.

Lines are drawn in the colours of `SERIES`; everything else in `INK`. For the page, INK becomes
`currentColor` and the colours become variables of the page's style; for a file they stay, on white.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from fedcl.report import formats
from fedcl.report.compare import Group, Method
from fedcl.report.formats import Spread, spread
from fedcl.report.records import Point, Run
from fedcl.report.statements import terms
from fedcl.report.ticks import log_ticks, percents, thin_out

INK = "#1f2430"
SERIES = ("#2f6fd0", "#d1602a", "#2a9462", "#a4509f", "#a7861a", "#1c93a8", "#c94a6b", "#6b6fc4")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.6)))  # neighbours differ, so that one shows through the gaps of the other
WIDTHS = (3.2, 2.4, 1.7, 1.3)  # and so that it shows at its sides
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_LINES = 10
MOST_MARKERS = 10  # of a line
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.9,
    "lines.markersize": 4.5,
}


def shown(group: Group) -> list[Method]:
    """The methods that a figure draws: all, or FedAvg and the cheapest when there are too many."""
    if len(group.methods) <= MOST_LINES:
        return list(group.methods)
    first = group.baselines[: MOST_LINES // 2]
    rest = [method for method in group.methods if not any(method is one for one in first)]
    kept = {method.name for method in first + rest[: MOST_LINES - len(first)]}
    return [method for method in group.methods if method.name in kept]


def look(index: int, count: int) -> dict[str, Any]:
    """Colour, dashes, width and marker of line `index` of `count`: the earlier ones are seen beneath the later ones."""
    return {
        "color": SERIES[index % len(SERIES)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": WIDTHS[index * len(WIDTHS) // max(count, len(WIDTHS))],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 7.0 - 4 * index / max(count, 2),
        "markerfacecolor": "none" if index % 2 else SERIES[index % len(SERIES)],
    }


def accuracy_against_bytes(group: Group) -> Figure | None:
    """Accuracy against cumulative wire bytes on a log axis, with bands over seeds."""

    def place(points: Sequence[Point]) -> Spread | None:
        return spread(point.wire_bytes for point in points)

    figure = _lines(group, place, f"wire bytes so far, up and down{terms(group)}")
    if figure is not None:
        _log_axis(figure.axes[0], formats.round_size)
    return figure


def accuracy_against_rounds(group: Group) -> Figure | None:
    """The same accuracies against rounds, counted from 1."""

    def place(points: Sequence[Point]) -> Spread | None:
        return spread(point.round + 1 for point in points)

    figure = _lines(group, place, "rounds")
    if figure is not None:
        figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def accuracy_over_steps(group: Group) -> Figure | None:
    """Continual: mean accuracy on what was seen so far, after each step, with bands over seeds."""

    def draw(axes: Axes) -> int:
        drawn = 0
        for index, method in enumerate(shown(group)):
            curves = [seen_so_far(run) for run in method.runs if "matrix" in run.record]
            steps = max((len(curve) for curve in curves), default=0)
            values = [spread(curve[step] for curve in curves if len(curve) > step) for step in range(steps)]
            xs = [float(step + 1) for step, value in enumerate(values) if value]
            drawn += _line(axes, xs, [v for v in values if v], method.name, look(index, len(shown(group))))
        axes.set_xlabel("steps learned")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return drawn

    return _figure(draw, len(shown(group)))


def seen_so_far(run: Run) -> list[float | None]:
    """After each step, the mean over the groups seen by then; None where the step was not evaluated."""
    first = run.record["scenario"]["first_steps"]
    curve = []
    for step, row in enumerate(run.record["matrix"]):
        value = spread(cell for cell, seen in zip(row, first, strict=True) if seen <= step)
        curve.append(value.mean if value else None)
    return curve


def _lines(group: Group, place: Callable[[Sequence[Point]], Spread | None], label: str) -> Figure | None:
    def draw(axes: Axes) -> int:
        drawn = 0
        for index, method in enumerate(shown(group)):
            at_round: dict[int, list[Point]] = {}
            for run in method.runs:
                for point in run.curve:
                    at_round.setdefault(point.round, []).append(point)
            xs, ys = [], []
            for _, points in sorted(at_round.items()):
                x, y = place(points), spread(point.accuracy for point in points)
                if x is not None and y is not None and x.mean > 0:
                    xs.append(x.mean)
                    ys.append(y)
            drawn += _line(axes, xs, ys, method.name, look(index, len(shown(group))))
        axes.set_xlabel(label)
        return drawn

    return _figure(draw, len(shown(group)))


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[Spread], name: str, style: dict[str, Any]) -> int:
    """One method: a line with a band of one standard deviation; a single point has a bar instead."""
    if not xs:
        return 0
    means = np.array([y.mean for y in ys])
    stds = np.array([y.std or 0.0 for y in ys])
    if len(xs) == 1:
        axes.plot(xs, means, **{**style, "linestyle": "none"}, label=name)
        if stds.any():
            axes.errorbar(xs, means, yerr=stds, capsize=3, fmt="none", ecolor=style["color"])
        return 1
    every = max(1, len(xs) // MOST_MARKERS)
    axes.plot(xs, means, label=name, markevery=(len(axes.lines) % every, every), **style)
    if stds.any():
        axes.fill_between(xs, means - stds, means + stds, color=style["color"], alpha=0.18, linewidth=0)
    return 1


def _figure(draw: Callable[[Axes], int], entries: int) -> Figure | None:
    """A figure with its legend below the axes; None when `draw` draws nothing."""
    with matplotlib.rc_context(STYLE):
        height, row = 2.9, 0.2
        figure = Figure(figsize=(4.9, height + row * entries))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        if not draw(axes):
            return None
        axes.grid(True)
        axes.set_title("accuracy on the test set", loc="left", fontsize=10)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.005), min(high, 1.005))
        low, high = axes.get_ylim()
        ticks = [
            tick for tick in MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= tick <= high
        ]
        axes.set_yticks(ticks, percents(ticks))
        total = height + row * entries
        figure.subplots_adjust(left=0.14, right=0.975, top=1 - 0.3 / total, bottom=(row * entries + 0.55) / total)
        handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        ordered = [line.get_label() for line in axes.lines if line.get_label() in handles]
        figure.legend(
            handles=[handles[label] for label in ordered],
            labels=ordered,
            loc="lower left",
            bbox_to_anchor=(0.12, 0.0),
            labelspacing=0.25,
            borderaxespad=0.1,
        )
    return figure


def distilled(
    group: Group, against: str, series: Sequence[tuple[str, Sequence[tuple[float, Spread]]]]
) -> Figure | None:
    """Accuracy of `distill` runs against images a class (`against="ipc"`) or bytes, with controls.

    Args:
        series: name and points (x, accuracy) of each line.
    """

    def draw(axes: Axes) -> int:
        drawn = 0
        for index, (name, points) in enumerate(series[:MOST_LINES]):
            style = look(index, min(len(series), MOST_LINES))
            style |= {"linestyle": ":"} if name.startswith("control: ") else {}
            drawn += _line(axes, [x for x, _ in points], [y for _, y in points], name, style)
        axes.set_xlabel("images a class" if against == "ipc" else "bytes of the summary")
        if against == "ipc":
            _log_axis(axes, lambda value: f"{value:g}", sorted({x for _, points in series for x, _ in points}))
        else:
            _log_axis(axes, formats.round_size)
        return drawn

    return _figure(draw, len(series[:MOST_LINES]))


def _log_axis(axes: Axes, say: Callable[[float], str], ticks: Sequence[float] = ()) -> None:
    """A log axis for x whose ticks are said by `say`: those given, as far as they keep thin_out, or round numbers."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    said = {
        say(tick): tick for tick in (thin_out(ticks, low, high) if ticks else log_ticks(low, high))
    }  # no text twice
    axes.set_xticks(list(said.values()), list(said))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG file on white, the same bytes for the same figure; ids begin with `name`."""
    out = io.BytesIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=empty, facecolor="#ffffff")
    text = out.getvalue().decode()
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(
        r"font: (\S+) [^;\"]*",
        r"font: \1 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
        text,
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def for_page(svg: str, title: str) -> str:
    """The SVG of a file as a part of the page: no background, the page's ink, a name for screen readers."""
    body = svg[svg.index("<svg") :]
    body = body.replace("#ffffff", "none").replace(INK, "currentColor")
    for index, colour in enumerate(SERIES):
        body = body.replace(colour, f"var(--series-{index + 1})")
    head, _, rest = body.partition(">")
    label = f' role="img" aria-label="{title}"'
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f"{head}{label}>{rest}"
