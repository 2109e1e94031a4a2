"""What figures draw: of each line its name, and its points with their spread over seeds."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable

from fedcl.report.compare import Group, Method, Value, accuracy, control, controls_of
from fedcl.report.formats import Spread, spread
from fedcl.report.names import name_methods
from fedcl.report.records import Point, Run
from fedcl.report.settings import UNKNOWN, published, settings, unlike

MOST_LINES = 10
Line = tuple[str, list[tuple[float, Spread]]]  # name and points (x, accuracy)


def shown(group: Group) -> list[Method]:
    """The methods that a figure draws: all, or FedAvg and the cheapest when there are too many."""
    first = group.baselines[: MOST_LINES // 2]
    rest = [method for method in group.methods if not any(method is one for one in first)]
    kept = {method.name for method in [*first, *rest][:MOST_LINES]}
    return [method for method in group.methods if method.name in kept]


def over_rounds(group: Group, place: Callable[[Point], float]) -> list[Line]:
    """Accuracy of each method at every evaluated round, drawn at the mean of `place(point)`."""
    return [
        (method.name, _points((p.round, place(p), p.accuracy) for run in method.runs for p in run.curve))
        for method in shown(group)
    ]


def over_steps(group: Group) -> list[Line]:
    """Accuracy of each method on what was seen so far, after each step."""
    return [
        (method.name, _points((step, step, y) for run in method.runs for step, y in enumerate(seen_so_far(run), 1)))
        for method in shown(group)
    ]


def seen_so_far(run: Run) -> list[float | None]:
    """After each step, the mean over the groups seen by then; None where the step was not evaluated."""
    first = run.at("scenario", "first_steps")
    rows = enumerate(run.at("matrix") or ())
    curve = [spread(cell for cell, seen in zip(row, first, strict=True) if seen <= step) for step, row in rows]
    return [value.mean if value else None for value in curve]


def over_sizes(group: Group, against: str) -> list[Line]:
    """Accuracy of `distill` runs over "ipc" or "bytes": presets, then published numbers, then controls."""

    def line(runs: Iterable[Run], value: Value) -> list[tuple[float, Spread]]:
        return _points((x, x, value(run)) for run in runs for x in [run.at("distillation", against)])

    presets: dict[str, list[Run]] = defaultdict(list)
    first: dict[str, tuple[Run, dict[str, str]]] = {}
    for run in (run for method in group.methods for run in method.runs):
        own = {key: value for key, value in settings(run).items() if key != "distiller.ipc"}
        key = json.dumps(own, sort_keys=True)
        first.setdefault(key, (run, own))
        presets[key].append(run)
    named = list(zip(name_methods(list(first.values())), presets.values(), strict=True))
    lines = [(name, line(runs, accuracy)) for name, runs in named]
    for name, runs in named:
        if points := line(runs, published):
            lines.append((f"{name}, published{f', {UNKNOWN}' if any(map(unlike, runs)) else ''}", points))
    every = [run for runs in presets.values() for run in runs]
    return lines + [(f"control: {name}", line(every, control(name))) for name in controls_of(every)]


def _points(values: Iterable[tuple[float, float, float | None]]) -> list[tuple[float, Spread]]:
    """(place, x, accuracy) of runs as the mean x and the spread of accuracies at each place; x is for a log axis."""
    places: dict[float, list[tuple[float, float | None]]] = defaultdict(list)
    for place, x, y in values:
        places[place].append((x, y))
    found = [(spread(x for x, _ in both), spread(y for _, y in both)) for _, both in sorted(places.items())]
    return [(x.mean, y) for x, y in found if x and y and x.mean > 0]
