"""Figures of the report: matplotlib Figures without global state, as SVG that reads in light and dark.

Lines are drawn in the colours of `SERIES`; everything else in `INK`. For the page, INK becomes
`currentColor` and the colours become variables of the page's style; for a file they stay, on white.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from fedcl.report.compare import Group
from fedcl.report.formats import Spread, round_size
from fedcl.report.series import MOST_LINES, Line, over_rounds, over_sizes, over_steps
from fedcl.report.statements import terms
from fedcl.report.ticks import even_ticks, log_ticks, percents, thin_out

Say = Callable[[float], str]
INK = "#1f2430"
SERIES = ("#2f6fd0", "#d1602a", "#2a9462", "#a4509f", "#a7861a", "#1c93a8", "#c94a6b", "#6b6fc4")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.6)))  # neighbours differ, so that one shows through the gaps of the other
WIDTHS = (3.2, 2.4, 1.7, 1.3)  # and so that it shows at its sides
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_MARKERS = 10  # of a line
HEIGHT, ROW = 2.9, 0.2  # inches, without the legend and for each of its rows
STYLE: dict[Any, Any] = {
    **dict.fromkeys([f"{part}.color" for part in ("text", "xtick", "ytick", "grid")], INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.parse_math", "axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **{"font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "axes.linewidth": 0.8},
    **{"grid.alpha": 0.14, "grid.linewidth": 0.7, "lines.linewidth": 1.9, "lines.markersize": 4.5},
}


def accuracy_against_bytes(group: Group) -> Figure | None:
    """Accuracy against cumulative wire bytes on a log axis, with bands over seeds."""
    lines = over_rounds(group, lambda point: point.wire_bytes)
    return _figure(lines, f"wire bytes so far, up and down{terms(group)}", round_size)


def accuracy_against_rounds(group: Group) -> Figure | None:
    """The same accuracies against rounds, counted from 1."""
    return _figure(over_rounds(group, lambda point: point.round + 1), "rounds")


def accuracy_over_steps(group: Group) -> Figure | None:
    """Mean accuracy on what was seen so far, after each step, with bands over seeds."""
    return _figure(over_steps(group), "steps learned")


def accuracy_against_ipc(group: Group) -> Figure | None:
    """Accuracy of `distill` runs against images a class on a log axis, with controls."""
    lines = over_sizes(group, "ipc")
    ticks = sorted({x for _, points in lines for x, _ in points})
    return _figure(lines[:MOST_LINES], "images a class", "{:g}".format, ticks)


def accuracy_against_summary(group: Group) -> Figure | None:
    """The same accuracies against bytes of the summary."""
    return _figure(over_sizes(group, "bytes")[:MOST_LINES], "bytes of the summary", round_size)


def _figure(lines: Sequence[Line], label: str, say: Say | None = None, ticks: Sequence[float] = ()) -> Figure | None:
    """A figure of these lines with its legend below the axes; None when no line has a point.

    x has a log axis where `say` says its ticks: those given, as far as they keep apart, or round numbers.
    """
    if not any(points for _, points in lines):
        return None
    with matplotlib.rc_context(STYLE):
        legend = ROW * len(lines)
        height = HEIGHT + legend
        figure = Figure(figsize=(4.9, height))
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(lines):
            if points:
                _draw(axes, name, points, index, len(lines))
        if say is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            places = thin_out(ticks, low, high) if ticks else log_ticks(low, high)
            said = {say(tick): tick for tick in places}  # no text twice
            axes.set_xticks(list(said.values()), list(said))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(low, high)
        axes.grid(True)
        axes.set_xlabel(label)
        axes.set_title("accuracy on the test set", loc="left", fontsize=10)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.005), min(high, 1.005))
        ticks = even_ticks(*axes.get_ylim())
        axes.set_yticks(ticks, percents(ticks))
        figure.subplots_adjust(left=0.14, right=0.975, top=1 - 0.3 / height, bottom=(legend + 0.55) / height)
        place = {"loc": "lower left", "bbox_to_anchor": (0.12, 0.0), "labelspacing": 0.25, "borderaxespad": 0.1}
        figure.legend(*axes.get_legend_handles_labels(), **place)
    return figure


def _draw(axes: Axes, name: str, points: Sequence[tuple[float, Spread]], index: int, count: int) -> None:
    """Line `index` with a band of one standard deviation, a single point with a bar; earlier ones are seen beneath."""
    colour, dashes = SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]
    xs = [x for x, _ in points]
    means = np.array([y.mean for _, y in points])
    stds = np.array([y.std or 0.0 for _, y in points])
    every = max(1, len(xs) // MOST_MARKERS)
    axes.plot(
        xs,
        means,
        label=name,
        color=colour,
        linestyle="none" if len(xs) == 1 else ":" if name.startswith("control: ") else dashes,
        linewidth=WIDTHS[index * len(WIDTHS) // max(count, len(WIDTHS))],
        marker=MARKERS[index % len(MARKERS)],
        markersize=7.0 - 4 * index / max(count, 2),
        markerfacecolor="none" if index % 2 else colour,
        markevery=(len(axes.lines) % every, every),
    )
    if stds.any() and len(xs) == 1:
        axes.errorbar(xs, means, yerr=stds, capsize=3, fmt="none", ecolor=colour)
    elif stds.any():
        axes.fill_between(xs, means - stds, means + stds, color=colour, alpha=0.18, linewidth=0)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG file on white, the same bytes for the same figure; ids begin with `name`."""
    out = io.BytesIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=empty, facecolor="#ffffff")
    text = re.sub(r'\bid="', f'id="{name}-', out.getvalue().decode())
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    fonts = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
    text = re.sub(r"font: (\S+) [^;\"]*", rf"font: \1 {fonts}", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def for_page(svg: str, title: str) -> str:
    """The SVG of a file as a part of the page: no background, the page's ink, a name for screen readers."""
    body = svg[svg.index("<svg") :].replace("#ffffff", "none").replace(INK, "currentColor")
    for index, colour in enumerate(SERIES):
        body = body.replace(colour, f"var(--series-{index + 1})")
    head, _, rest = body.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}">{rest}'
