"""Tables of the report: of federated groups, of streams, of distillations."""

from __future__ import annotations

from functools import partial
from itertools import product, zip_longest

from fedcl.report.cells import Cell, Column, Table, mean, spread_cell, table
from fedcl.report.compare import Group, Method, accuracy, control, controls_of
from fedcl.report.costs import accuracy_at, budgets, cost, targets, times_fewer
from fedcl.report.formats import NOTHING, Spread, count, number, percent, plural, round_size, seconds, size, spread
from fedcl.report.records import Run, at, total_bytes
from fedcl.report.settings import published, unlike
from fedcl.report.statements import no_baseline, terms

MOST_NAMED = 3  # settings of a published protocol in a cell; all of them stand beside it on request
# of the record's `continual` part; other variants of forgetting repeat one of these
FIGURES = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer", "forward_transfer")
MEMORY = {"bytes": "memory", "images": "images of the memory"}


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
    return table(
        group,
        [
            LAST,
            mean("accuracy, mean of last 5", at("accuracy", "mean_last5"), percent),
            mean("rounds", lambda run: len(run.record["rounds"]), count),
            *BYTES,
            SECONDS,
            SEEDS,
        ],
        f"Every method{terms(group)}: accuracy on the test set and wire bytes, mean ± standard deviation over seeds",
        "Wire bytes are serialised Flower messages, all clients together; the roll call is in no total. “Times "
        "fewer” divides the total of FedAvg by the method's, seed by seed on the same partition, and only where both "
        "ran on the same wire with as many clients a round.",
    )


def bytes_to_accuracy(group: Group) -> Table:
    columns = [(f"{100 * target:g} %", partial(_price, target)) for target in targets(group)]
    caption = f"Wire bytes{terms(group)}, up and down, until an accuracy is first reached"
    return table(group, columns, caption, f"{NOTHING} means never reached.")


def _price(target: float, group: Group, method: Method) -> Cell:
    price = cost(method, target)
    if price.bytes is None:
        return Cell(text=NOTHING, tip="never reached")
    text = size(price.bytes) + ("" if price.always else f" ({price.reached} of {price.seeds} seeds)")
    return Cell(text=text, value=price.bytes.mean, tip=f"{price.bytes.mean:.10g} bytes")


def accuracy_at_budget(group: Group) -> Table:
    columns = [mean(round_size(b), partial(accuracy_at, budget=b), percent) for b in budgets(group)]
    note = "The last round inside the budget (a one-shot method has a single one); "
    note += f"{NOTHING} means that not even the first round fits."
    return table(group, columns, f"Accuracy at a budget of wire bytes{terms(group)}", note)


def contents(group: Group) -> Table:
    """What the bytes are: kinds of payload, framing, and payload beside wire."""
    kinds = sorted({kind for run in group.runs for kind in run.at("communication", "by_kind")})
    columns = [mean(kind, at("communication", "by_kind", kind), size) for kind in kinds]
    for way, kind in product(("up", "down"), ("payload", "wire")):
        columns.append(mean(f"{kind} {way}", at("communication", way, f"{kind}_bytes"), size))
    columns.append(mean("roll call", at("communication", "not_counted_wire_bytes"), size))
    return table(
        group,
        columns,
        f"What is in the bytes{terms(group)}: payload by content, then payload beside wire in each direction",
        "Payload is the elements of the arrays as they travel; framing is what serialisation adds; the roll call "
        "is in no total.",
    )


def continual(group: Group) -> Table:
    """Every method after the last step."""
    figures = [_figure("average_incremental_accuracy"), _figure("forgetting")]
    return table(
        group,
        [LAST, *figures, mean("memory", at("memory", "bytes"), size), SECONDS, SEEDS],
        "Every method after the last step, mean ± standard deviation over seeds",
        "– means that a figure does not exist: a method that is trained at the last step only forgets nothing.",
    )


def _figure(name: str) -> Column:
    return mean(name.replace("_", " "), at("continual", name), percent)


def stream(group: Group) -> Table:
    """Every figure of the stream, and the memory, without the columns that no method has."""
    runs = [run for method in group.methods for run in method.runs]
    columns = [_figure(name) for name in FIGURES]
    for name in dict.fromkeys(name for run in runs for name in run.at("memory") or ()):
        say = size if name.endswith("bytes") else count
        columns.append(mean(MEMORY.get(name) or name.replace("_", " "), at("memory", name), say))
    return table(group, columns, "Figures of the stream, and memory after the last step", drop_empty=True)


def distill(group: Group) -> Table:
    """Every method and size: accuracy beside controls of equal bytes, and beside what was published."""
    return table(
        group,
        [
            ("images a class", _ipc),
            mean("bytes", at("distillation", "bytes"), size),
            ("accuracy", _with_nets),
            *(mean(f"control: {name}", control(name), percent) for name in controls_of(group.runs)),
            ("published", _published),
            mean("seconds", at("distillation", "seconds"), seconds),
            SEEDS,
        ],
        "Accuracy of networks trained on the summaries alone, beside controls of equal bytes",
        "± is over seeds; with one seed, over the networks that were trained on its summary. Beside a "
        "published number stands what its protocol has and this run has not.",
        drop_empty=True,
    )


def _ipc(group: Group, method: Method) -> Cell:
    ipc = method.runs[0].at("distillation", "ipc")
    return Cell(text=f"{ipc}", value=ipc)


def _with_nets(group: Group, method: Method) -> Cell:
    """One seed has no spread over seeds: show the record's own spread over networks, and say how many."""
    own = method.runs[0].at("distillation", "accuracy")

    def say(value: Spread) -> str:
        if value.count > 1 or own.get("std") is None:
            return percent(value)
        return f"{percent(Spread(mean=value.mean, std=own['std'], count=2))} ({own['nets']} nets)"

    return spread_cell(method.spread(accuracy), say)


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
    seeds = plural(len(matrices), "seed")
    caption = f"{method.name}: accuracy in % on each group after each step (mean of {seeds})"
    return Table(caption=caption, headers=["after step", *method.runs[0].at("scenario", "groups")], rows=rows)


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
    caption, label = "Examples by client (rows) and class (columns)", "examples by client and class"
    return Table(caption=caption, headers=["client", *map(str, range(len(counts[0])))], rows=rows, label=label)
