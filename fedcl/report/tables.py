"""Tables of the report as plain data: what a reader sees in each cell, beside the exact value."""

from __future__ import annotations

from dataclasses import dataclass

from fedcl.report import words
from fedcl.report.compare import Group, Method
from fedcl.report.costs import accuracy_at, budgets, cost, targets, times_fewer
from fedcl.report.records import Run
from fedcl.report.settings import choice
from fedcl.report.statements import control
from fedcl.report.words import NOTHING, Spread, spread


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a reader sees, and the exact value that the page sorts by."""

    text: str
    value: float | str | None = None  # None sorts last
    tip: str = ""  # more, shown beside the cell on request


@dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    headers: tuple[str, ...]  # the first column names the row
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: tuple[int, ...] = (0,)  # columns that hold text; the others hold numbers
    note: str = ""


def name_cell(text: str, tip: str = "") -> Cell:
    return Cell(text=text, value=text, tip=tip)


def spread_cell(value: Spread | None, say, tip: str = "") -> Cell:
    if value is None:
        return Cell(text=NOTHING)
    count = words.plural(value.count, "seed")
    return Cell(text=say(value), value=value.mean, tip=tip or f"{value.mean:.10g}, {count}")


def comparison(group: Group) -> Table:
    """The main table of a group, cheapest method first."""
    return {"federated": _federated, "continual": _continual, "distill": _distill}[group.verb](group)


def _seeds(method: Method) -> Cell:
    seeds = [run.seed for run in method.runs]
    return Cell(text=str(len(seeds)), value=len(seeds), tip="seeds " + ", ".join(map(str, seeds)))


def _partition(group: Group, method: Method) -> Cell:
    shas = list(dict.fromkeys(run.partition for run in method.runs if run.partition))
    text = (group.scenario or NOTHING) + (f" #{shas[0][:8]}" if shas else "") + (" …" if len(shas) > 1 else "")
    return Cell(text=text, value=text, tip="SHA-256 " + ", ".join(shas) if shas else "")


def _federated(group: Group) -> Table:
    rows = []
    for method in group.methods:
        ways = {
            way: method.spread(lambda r, w=way: r.record["communication"][w]["wire_bytes"]) for way in ("up", "down")
        }
        rows.append(
            (
                name_cell(method.name),
                spread_cell(method.spread(lambda r: r.record["accuracy"]["last"]), words.percent),
                spread_cell(method.spread(lambda r: r.record["accuracy"]["mean_last5"]), words.percent),
                spread_cell(ways["up"], words.size),
                spread_cell(ways["down"], words.size),
                spread_cell(method.spread(lambda r: r.total_bytes), words.size),
                spread_cell(times_fewer(group, method), words.number),
                spread_cell(method.spread(lambda r: r.record["seconds"]), words.seconds),
                spread_cell(method.spread(lambda r: r.one_off_bytes), words.size),
                _seeds(method),
                name_cell(f"{group.dataset}, {group.model}"),
                _partition(group, method),
            )
        )
    headers = (
        "method",
        "accuracy, last",
        "accuracy, mean of last 5",
        "bytes up",
        "bytes down",
        "bytes total",
    )
    headers += ("times fewer than FedAvg", "seconds", "one-off bytes", "seeds", "data, model", "partition")
    return Table(
        caption="Every method: accuracy on the test set and wire bytes, mean ± standard deviation over seeds",
        headers=headers,
        rows=tuple(rows),
        text_columns=(0, 10, 11),
        note=(
            "Wire bytes are serialised Flower messages, all clients together; evaluation traffic and the "
            "roll call are in no total. One-off bytes belong to no round and are in the total. “Times fewer” "
            "divides the total of FedAvg by the method's, seed by seed on the same partition"
            + (f", against {group.baseline.name}." if group.baseline else "; there is no FedAvg run here.")
        ),
    )


def forgetting(run: Run) -> float | None:
    """The headline figure where a record names several kinds."""
    value = run.record.get("continual", {}).get("forgetting")
    if isinstance(value, dict):
        value = next((v for _, v in sorted(value.items()) if isinstance(v, int | float)), None)
    return value if isinstance(value, int | float) else None


def _continual(group: Group) -> Table:
    rows = [
        (
            name_cell(method.name),
            spread_cell(method.spread(lambda r: r.record["accuracy"]["last"]), words.percent),
            spread_cell(
                method.spread(lambda r: r.record.get("continual", {}).get("average_incremental_accuracy")),
                words.percent,
            ),
            spread_cell(method.spread(forgetting), words.percent),
            spread_cell(method.spread(lambda r: r.record.get("memory", {}).get("bytes")), words.size),
            spread_cell(method.spread(lambda r: r.record["seconds"]), words.seconds),
            _seeds(method),
            name_cell(f"{group.dataset}, {group.model}"),
            _partition(group, method),
        )
        for method in group.methods
    ]
    headers = ("method", "accuracy, last", "average incremental accuracy", "forgetting", "memory", "seconds")
    headers += ("seeds", "data, model", "stream")
    return Table(
        caption="Every method after the last step, mean ± standard deviation over seeds",
        headers=headers,
        rows=tuple(rows),
        text_columns=(0, 7, 8),
    )


def _distill(group: Group) -> Table:
    names = sorted({name for run in group.runs for name in run.record["distillation"].get("controls", {})})
    rows = []
    for method in group.methods:
        part = method.runs[0].record["distillation"]
        rows.append(
            (
                name_cell(method.name),
                name_cell(f"{group.dataset}, {group.model}"),
                _seeds(method),
                Cell(text=f"{part['ipc']}", value=part["ipc"]),
                spread_cell(method.spread(lambda r: r.record["distillation"]["bytes"]), words.size),
                spread_cell(method.spread(lambda r: r.record["distillation"]["accuracy"]["mean"]), _with_nets(method)),
                *(spread_cell(method.spread(lambda r, n=n: control(r, n)), words.percent) for n in names),
                spread_cell(spread([published(method.runs[0])]), words.percent, tip="as published"),
                spread_cell(method.spread(lambda r: r.record["distillation"].get("seconds")), words.seconds),
            )
        )
    headers = ("method", "data, model", "seeds", "images a class", "bytes", "accuracy")
    headers += (*(f"control: {name}" for name in names), "published", "seconds")
    return Table(
        caption="Accuracy of networks trained on the summaries alone, beside controls of equal bytes",
        headers=headers,
        rows=tuple(rows),
        text_columns=(0, 1),
        note="± is over seeds; with one seed, over the networks that were trained on its summary.",
    )


def _with_nets(method: Method):
    """One seed has no spread over seeds: show the record's own spread over networks, and say how many."""

    def say(value: Spread) -> str:
        own = method.runs[0].record["distillation"]["accuracy"]
        if value.count == 1 and isinstance(own.get("std"), int | float):
            nets = f" ({own['nets']} nets)" if isinstance(own.get("nets"), int) else ""
            return words.percent(Spread(mean=value.mean, std=own["std"], count=2)) + nets
        return words.percent(value)

    return say


def published(run: Run) -> float | None:
    """The published accuracy for this data and ipc, where the preset's `published` has one, as a fraction.

    `published` may be a number, or tables keyed by data set and by images per class in either order. Above 1
    it is a percentage.
    """
    value = run.config.get("distiller", {}).get("published") if isinstance(run.config.get("distiller"), dict) else None
    ipc = str(run.record["distillation"]["ipc"])
    names = (choice(run, "dataset"), ipc, f"ipc_{ipc}", f"ipc{ipc}", "accuracy", "mean")
    for _ in range(4):
        if isinstance(value, dict):
            value = next((value[name] for name in names if name in value), None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 100 if value > 1 else value


def bytes_to_accuracy(group: Group) -> Table:
    columns = targets(group)
    rows = []
    for method in group.methods:
        cells = [name_cell(method.name)]
        for target in columns:
            price = cost(method, target)
            if price.bytes is None:
                cells.append(Cell(text=NOTHING, tip="never reached"))
                continue
            text = words.size(price.bytes) + ("" if price.always else f" ({price.reached} of {price.seeds} seeds)")
            cells.append(Cell(text=text, value=price.bytes.mean, tip=f"{price.bytes.mean:.10g} bytes"))
        rows.append(tuple(cells))
    return Table(
        caption="Wire bytes, up and down, until an accuracy is first reached",
        headers=("method", *(f"{100 * target:g} %" for target in columns)),
        rows=tuple(rows),
        note=f"{NOTHING} means never reached.",
    )


def accuracy_at_budget(group: Group) -> Table:
    columns = budgets(group)
    rows = tuple(
        (
            name_cell(method.name),
            *(spread_cell(method.spread(lambda r, b=b: accuracy_at(r, b)), words.percent) for b in columns),
        )
        for method in group.methods
    )
    return Table(
        caption="Accuracy at a budget of wire bytes",
        headers=("method", *(words.size(float(b)).replace(".00 ", " ").replace(".0 ", " ") for b in columns)),
        rows=rows,
        note="The last round inside the budget (a one-shot method has a single one); "
        f"{NOTHING} means that not even the first round fits.",
    )


def contents(group: Group) -> Table:
    """What the bytes are: kinds of payload, framing, and payload beside wire."""
    kinds = sorted({kind for run in group.runs for kind in run.record["communication"]["by_kind"]})
    rows = []
    for method in group.methods:
        cells = [name_cell(method.name)]
        for kind in kinds:
            cells.append(
                spread_cell(method.spread(lambda r, k=kind: r.record["communication"]["by_kind"].get(k)), words.size)
            )
        for way in ("up", "down"):
            for kind in ("payload_bytes", "wire_bytes"):
                cells.append(
                    spread_cell(method.spread(lambda r, w=way, k=kind: r.record["communication"][w][k]), words.size)
                )
        apart = method.spread(lambda r: r.record["communication"].get("not_counted_wire_bytes"))
        rows.append((*cells, spread_cell(apart, words.size)))
    return Table(
        caption="What is in the bytes: payload by content, then payload beside wire in each direction",
        headers=("method", *kinds, "payload up", "wire up", "payload down", "wire down", "not counted"),
        rows=tuple(rows),
        note="Payload is the elements of the arrays as they travel; framing is what serialisation adds; “not "
        "counted” is evaluation traffic and the roll call.",
    )


def continual_metrics(group: Group) -> Table | None:
    """Every number that the records' `continual` and `memory` parts hold, by name."""
    runs = [run for method in group.methods for run in method.runs]
    names = sorted({name for run in runs for name in _metrics(run)})
    if not names:
        return None
    say = {True: words.size, False: words.percent}
    rows = []
    for method in group.methods:
        cells = [
            spread_cell(
                method.spread(lambda r, n=name: _metrics(r).get(n)),
                words.number if name == "memory images" else say[name == "memory bytes"],
            )
            for name in names
        ]
        rows.append((name_cell(method.name), *cells))
    caption = "Continual metrics by name, and memory"
    return Table(caption=caption, headers=("method", *names), rows=tuple(rows))


def _metrics(run: Run) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in run.record.get("continual", {}).items():
        for suffix, one in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                found[f"{name} {suffix}".strip().replace("_", " ")] = one
    for name, value in run.record.get("memory", {}).items():
        if isinstance(value, int | float):
            found[f"memory {name}"] = value
    return found
