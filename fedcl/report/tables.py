"""Tables of the report as plain data: what a reader sees in each cell, beside the exact value."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, zip_longest
from typing import NamedTuple

from fedcl.report.compare import Group, Method, Value, accuracy, control, controls_of
from fedcl.report.costs import accuracy_at, budgets, cost, targets, times_fewer
from fedcl.report.formats import NOTHING, Spread, count, number, percent, plural, round_size, seconds, size, spread
from fedcl.report.records import Run, at, total_bytes
from fedcl.report.settings import published, unlike
from fedcl.report.statements import no_baseline

MOST_NAMED = 3  # settings of a published protocol in a cell; all of them stand beside it on request
# of the record's `continual` part; other variants of forgetting repeat one of these
FIGURES = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer", "forward_transfer")
MEMORY = {"bytes": "memory", "images": "images of the memory"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a reader sees, and the exact value that the page sorts by."""

    text: str
    value: float | str | None = None  # None sorts last
    tip: str = ""  # more, shown beside the cell on request
    tint: float | None = None  # percent of the tint behind it


class Table(NamedTuple):
    headers: Sequence[str]  # the first column names the row, the others hold numbers
    rows: Sequence[Sequence[Cell]]


Column = tuple[str, Callable[[Group, Method], Cell]]  # header, and the cell of a method of a group


def table(group: Group, columns: Iterable[Column], *, drop_empty: bool = False) -> Table:
    """A row for each method; `drop_empty` leaves columns out in which no method has a value."""
    made = [(header, [cell(group, method) for method in group.methods]) for header, cell in columns]
    if drop_empty:
        made = [(header, cells) for header, cells in made if any(cell.value is not None for cell in cells)]
    made.insert(0, ("method", [Cell(text=method.name, value=method.name) for method in group.methods]))
    headers, below = zip(*made, strict=True)
    return Table(headers, list(zip(*below, strict=True)))


def mean(header: str, value: Value, say: Callable[[Spread], str]) -> Column:
    """The mean of `value(run)` over the seeds, with its spread."""
    return header, lambda group, method: spread_cell(method.spread(value), say)


def spread_cell(value: Spread | None, say: Callable[[Spread], str], nothing: str = NOTHING) -> Cell:
    """A mean with its spread; `nothing` where there is none."""
    if value is None:
        return Cell(text=nothing)
    return Cell(text=say(value), value=value.mean, tip=f"{value.mean:.10g}, {plural(value.count, 'seed')}")


def _fewer(group: Group, method: Method) -> Cell:
    """How many times fewer bytes than FedAvg; in place of a ratio, why there is none."""
    why = "no common seed" if group.baseline(method) else no_baseline(group, method)
    return spread_cell(times_fewer(group, method), number, nothing=f"{NOTHING} ({why})")


def _seeds(group: Group, method: Method) -> Cell:
    seeds = [run.seed for run in method.runs]
    return Cell(text=str(len(seeds)), value=len(seeds), tip="seeds " + ", ".join(map(str, seeds)))


LAST = mean("accuracy, last", at("accuracy", "last"), percent)
SECONDS = mean("seconds", at("seconds"), seconds)
SEEDS: Column = ("seeds", _seeds)
BYTES: tuple[Column, ...] = (
    mean("bytes up", at("communication", "up", "wire_bytes"), size),
    mean("bytes down", at("communication", "down", "wire_bytes"), size),
    mean("bytes total", total_bytes, size),
    ("times fewer than FedAvg", _fewer),
)


def federated(group: Group) -> Table:
    """Every method: accuracy, bytes, and how many times fewer than FedAvg on the same wire."""
    tail = mean("accuracy, mean of last 5", at("accuracy", "mean_last5"), percent)
    rounds = mean("rounds", lambda run: len(run.record["rounds"]), count)
    return table(group, [LAST, tail, rounds, *BYTES, SECONDS, SEEDS])


def bytes_to_accuracy(group: Group) -> Table:
    return table(group, [(f"{100 * target:g} %", partial(_price, target)) for target in targets(group)])


def _price(target: float, group: Group, method: Method) -> Cell:
    price = cost(method, target)
    if price.bytes is None:
        return Cell(text=NOTHING, tip="never reached")
    text = size(price.bytes) + ("" if price.always else f" ({price.reached} of {price.seeds} seeds)")
    return Cell(text=text, value=price.bytes.mean, tip=f"{price.bytes.mean:.10g} bytes")


def accuracy_at_budget(group: Group) -> Table:
    return table(group, [mean(round_size(b), partial(accuracy_at, budget=b), percent) for b in budgets(group)])


def contents(group: Group) -> Table:
    """What the bytes are: kinds of payload, framing, and payload beside wire."""
    kinds = sorted({kind for run in group.runs for kind in run.at("communication", "by_kind")})
    columns = [mean(kind, at("communication", "by_kind", kind), size) for kind in kinds]
    for way, kind in product(("up", "down"), ("payload", "wire")):
        columns.append(mean(f"{kind} {way}", at("communication", way, f"{kind}_bytes"), size))
    columns.append(mean("roll call", at("communication", "not_counted_wire_bytes"), size))
    return table(group, columns)


def continual(group: Group) -> Table:
    """Every method after the last step."""
    memory = mean("memory", at("memory", "bytes"), size)
    return table(group, [LAST, _figure("average_incremental_accuracy"), _figure("forgetting"), memory, SECONDS, SEEDS])


def _figure(name: str) -> Column:
    return mean(name.replace("_", " "), at("continual", name), percent)


def stream(group: Group) -> Table:
    """Every figure of the stream, and the memory, without the columns that no method has."""
    runs = [run for method in group.methods for run in method.runs]
    columns = [_figure(name) for name in FIGURES]
    for name in dict.fromkeys(name for run in runs for name in run.at("memory") or ()):
        say = size if name.endswith("bytes") else count
        columns.append(mean(MEMORY.get(name) or name.replace("_", " "), at("memory", name), say))
    return table(group, columns, drop_empty=True)


def distill(group: Group) -> Table:
    """Every method and size: accuracy beside controls of equal bytes, and beside what was published."""
    columns = [("images a class", _ipc), mean("bytes", at("distillation", "bytes"), size), ("accuracy", _with_nets)]
    columns += [mean(f"control: {name}", control(name), percent) for name in controls_of(group.runs)]
    columns += [("published", _published), mean("seconds", at("distillation", "seconds"), seconds), SEEDS]
    return table(group, columns, drop_empty=True)


def _ipc(group: Group, method: Method) -> Cell:
    ipc = method.runs[0].at("distillation", "ipc")
    return Cell(text=f"{ipc}", value=ipc)


def _with_nets(group: Group, method: Method) -> Cell:
    """One seed has no spread over seeds: show the record's own spread over networks, and say how many."""
    cell, own = spread_cell(method.spread(accuracy), percent), method.runs[0].at("distillation", "accuracy")
    if len(method.runs) > 1 or own.get("std") is None or "nets" not in own:
        return cell
    return replace(cell, text=f"{percent(Spread(mean=own['mean'], std=own['std']))} ({own['nets']} nets)")


def _published(group: Group, method: Method) -> Cell:
    value = published(method.runs[0])
    if value is None:
        return Cell(text=NOTHING)
    differs = unlike(method.runs[0])
    named = differs[:MOST_NAMED] + ([f"{len(differs) - MOST_NAMED} more"] if len(differs) > MOST_NAMED else [])
    beside = f" ({', '.join(named)})" if differs else ""
    return Cell(text=percent(value) + beside, value=value, tip=", ".join(["as published", *differs]))


def streams(group: Group) -> list[Method]:
    """The methods that have an accuracy matrix."""
    return [method for method in group.methods if any("matrix" in run.record for run in method.runs)]


def mean_matrix(method: Method) -> Table:
    """Accuracy matrix of a method: the mean over its runs that have one, cell by cell."""
    matrices = [run.record["matrix"] for run in method.runs if "matrix" in run.record]
    rows = []
    for step, found in enumerate(zip_longest(*matrices, fillvalue=()), 1):
        means = [value and value.mean for value in map(spread, zip_longest(*found))]
        rows.append([Cell(text=str(step)), *(_tinted(mean) for mean in means)])
    return Table(["after step", *method.runs[0].at("scenario", "groups")], rows)


def _tinted(value: float | None) -> Cell:
    return Cell(text=NOTHING) if value is None else Cell(text=f"{100 * value:.1f}", value=value, tint=100 * value)


def class_counts(run: Run) -> Table | None:
    """`scenario.class_counts` as a tinted table; None where it is absent, ragged or too large to show."""
    counts = run.at("scenario", "class_counts")
    if not counts or len(counts) > 100 or not 0 < len(counts[0]) <= 100 or len(set(map(len, counts))) > 1:
        return None
    top = max(map(max, counts)) or 1
    rows = [[Cell(text=str(n), tint=100 * n / top) for n in row] for row in counts]
    rows = [[Cell(text=str(client)), *row] for client, row in enumerate(rows)]
    return Table(["client", *map(str, range(len(counts[0])))], rows)
