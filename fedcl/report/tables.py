"""Tables of federated groups: accuracy, bytes, what an accuracy costs, what a budget buys, what is in the bytes."""

from __future__ import annotations

from fedcl.report import formats
from fedcl.report.cells import Cell, Table, name_cell, seeds_cell, spread_cell
from fedcl.report.compare import Group, Method
from fedcl.report.costs import accuracy_at, budgets, cost, targets, times_fewer
from fedcl.report.formats import NOTHING
from fedcl.report.statements import no_baseline, terms


def federated(group: Group) -> Table:
    """Every method: accuracy, bytes, and how many times fewer than FedAvg on the same wire."""
    rows = []
    for method in group.methods:
        ways = {
            way: method.spread(lambda r, w=way: r.record["communication"][w]["wire_bytes"]) for way in ("up", "down")
        }
        fewer = spread_cell(times_fewer(group, method), formats.number, nothing=no_ratio(group, method))
        rows.append(
            (
                name_cell(method.name),
                spread_cell(method.spread(lambda r: r.record["accuracy"]["last"]), formats.percent),
                spread_cell(method.spread(lambda r: r.record["accuracy"]["mean_last5"]), formats.percent),
                spread_cell(method.spread(lambda r: len(r.record["rounds"])), formats.count),
                spread_cell(ways["up"], formats.size),
                spread_cell(ways["down"], formats.size),
                spread_cell(method.spread(lambda r: r.total_bytes), formats.size),
                fewer,
                spread_cell(method.spread(lambda r: r.record["seconds"]), formats.seconds),
                seeds_cell(method),
            )
        )
    headers = ("method", "accuracy, last", "accuracy, mean of last 5", "rounds", "bytes up", "bytes down")
    headers += ("bytes total", "times fewer than FedAvg", "seconds", "seeds")
    return Table(
        caption=f"Every method{terms(group)}: accuracy on the test set and wire bytes, mean ± standard deviation "
        "over seeds",
        headers=headers,
        rows=tuple(rows),
        note="Wire bytes are serialised Flower messages, all clients together; the roll call is in no total. “Times "
        "fewer” divides the total of FedAvg by the method's, seed by seed on the same partition, and only where both "
        "ran on the same wire with as many clients a round.",
    )


def no_ratio(group: Group, method: Method) -> str:
    """What stands in place of a ratio: nothing at all without FedAvg, else which terms no FedAvg of the group has."""
    if group.baseline(method) is not None:
        return f"{NOTHING} (no common seed)"
    return f"{NOTHING} ({no_baseline(group, method)})"


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
            text = formats.size(price.bytes) + ("" if price.always else f" ({price.reached} of {price.seeds} seeds)")
            cells.append(Cell(text=text, value=price.bytes.mean, tip=f"{price.bytes.mean:.10g} bytes"))
        rows.append(tuple(cells))
    return Table(
        caption=f"Wire bytes{terms(group)}, up and down, until an accuracy is first reached",
        headers=("method", *(f"{100 * target:g} %" for target in columns)),
        rows=tuple(rows),
        note=f"{NOTHING} means never reached.",
    )


def accuracy_at_budget(group: Group) -> Table:
    columns = budgets(group)
    rows = tuple(
        (
            name_cell(method.name),
            *(spread_cell(method.spread(lambda r, b=b: accuracy_at(r, b)), formats.percent) for b in columns),
        )
        for method in group.methods
    )
    return Table(
        caption=f"Accuracy at a budget of wire bytes{terms(group)}",
        headers=("method", *(formats.round_size(b) for b in columns)),
        rows=rows,
        note="The last round inside the budget (a one-shot method has a single one); "
        f"{NOTHING} means that not even the first round fits.",
    )


def contents(group: Group) -> Table:
    """What the bytes are: kinds of payload, framing, and payload beside wire."""
    kinds = sorted({kind for run in group.runs for kind in run.record["communication"]["by_kind"]})
    sizes = [(way, size) for way in ("up", "down") for size in ("payload_bytes", "wire_bytes")]
    rows = []
    for method in group.methods:
        said = [method.spread(lambda r, k=kind: r.record["communication"]["by_kind"].get(k)) for kind in kinds]
        said += [method.spread(lambda r, w=way, s=size: r.record["communication"][w][s]) for way, size in sizes]
        said += [method.spread(lambda r: r.record["communication"].get("not_counted_wire_bytes"))]
        rows.append((name_cell(method.name), *(spread_cell(value, formats.size) for value in said)))
    headers = ("method", *kinds, "payload up", "wire up", "payload down", "wire down", "roll call")
    return Table(
        caption=f"What is in the bytes{terms(group)}: payload by content, then payload beside wire in each direction",
        headers=headers,
        rows=tuple(rows),
        note="Payload is the elements of the arrays as they travel; framing is what serialisation adds; the roll call "
        "is in no total.",
    )
