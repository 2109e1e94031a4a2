"""The answer in sentences, computed from the records."""

import math
from functools import partial

from fedcl.report.compare import Comparison, Group, Method, accuracy, control, controls_of
from fedcl.report.costs import TARGET, TARGETS, Cost, bytes_to, cost
from fedcl.report.formats import Spread, number, percent, plural, size, spread
from fedcl.report.records import at, total_bytes


def statements(comparison: Comparison) -> list[str]:
    """One paragraph of plain text for each group, in order."""
    if not comparison.groups:
        return ["No finished run was found, so there is nothing to compare."]
    return [statement(group) for group in comparison.groups]


def statement(group: Group) -> str:
    """The paragraph of one group."""
    say = {"federated": _federated, "continual": _continual, "distill": _distill}[group.verb]
    return f"On {where(group)}, {say(group)}"


def where(group: Group) -> str:
    """ "digits, convnet, dirichlet(0.5), 10 clients, all clients a round, wire uint8": what all methods share."""
    clients = group.methods[0].runs[0].num_clients or 0
    parts = [group.dataset, group.model, group.scenario, plural(clients, "client") if clients > 1 else ""]
    return ", ".join(filter(None, parts + _terms(group)))


def terms(group: Group) -> str:
    """ " (all clients a round, wire uint8)": what bytes depend on, as far as it is not in the methods' names."""
    shared = _terms(group)
    return f" ({', '.join(shared)})" if shared else ""


def _terms(group: Group) -> list[str]:
    clients = {method.participation for method in group.methods}
    wires = {method.wire for method in group.methods}
    found = [f"{share} a round" for share in clients if share and len(clients) == 1]
    return found + [f"wire {wire}" for wire in wires if wire and len(wires) == 1]


def _federated(group: Group) -> str:
    none = f"no method reaches {100 * TARGET:g} % accuracy under every seed"
    target, reached = _target(group)
    if not reached:
        best = max(group.methods, key=_accurate)
        return f"{none}; the best last accuracy is {percent(best.spread(accuracy))}, by {best.name}."
    (best, price), *others = reached
    least, goal = f"{best.name} needs the fewest bytes", f"{100 * target:g} %"
    lead = f"{least} for {goal} accuracy" if target == TARGET else f"{none}. For {goal}, {least}"
    spent = f"{size(price.bytes)} on the wire, up and down ({plural(price.seeds, 'seed')})"
    return f"{lead}: {spent}, {_against(group, best, target)}{_rest(group, best, price, others, target)}"


def _target(group: Group) -> tuple[float, list[tuple[Method, Cost]]]:
    """95 %, or the next lower target that someone reaches under every seed; with who does.

    Cheapest first; of two that cost the same, the more accurate one.
    """
    for target in sorted((t for t in TARGETS if t <= TARGET), reverse=True):
        reached = [(m, price, price.bytes) for m in group.methods if (price := cost(m, target)).always and price.bytes]
        if reached:
            reached.sort(key=lambda one: (one[2].mean, -_accurate(one[0])[0], one[0].name))
            return target, [(method, price) for method, price, _ in reached]
    return TARGET, []


def _against(group: Group, best: Method, target: float) -> str:
    """How that compares with FedAvg on the same wire, seed by seed."""
    base = group.baseline(best)
    if base is None:
        return f"with {no_baseline(group, best)} to compare it with."
    if best is base:
        return "and that is the FedAvg run itself."

    needed, price = partial(bytes_to, target=target), cost(base, target)
    ratio = spread(best.ratios(base, needed, needed))
    if ratio is not None:
        seeds = "" if price.always else f" under the {ratio.count} of {price.seeds} seeds that reach it"
        return f"{number(ratio)} times fewer than {base.name}{seeds} ({size(price.bytes)})."
    if price.reached:
        return f"with no seed and partition in common with {base.name}."
    least = min(best.ratios(base, needed, total_bytes), default=0)
    least = math.floor(least) if least >= 10 else math.floor(10 * least) / 10  # a bound may not be rounded up
    bound = f", more than {least:,} times as many," if least else ""
    return f"while {base.name} spends {size(base.spread(total_bytes))}{bound} without getting there."


def no_baseline(group: Group, method: Method) -> str:
    """Why there is no ratio: "no FedAvg run", or which terms no FedAvg of the group has."""
    if not group.baselines:
        return "no FedAvg run"
    on_wire = any(base.wire == method.wire for base in group.baselines)
    return f"no FedAvg run with {method.participation} a round" if on_wire else f"no FedAvg run on {method.wire}"


def _rest(group: Group, best: Method, price: Cost, others: list[tuple[Method, Cost]], target: float) -> str:
    """One more sentence: who comes next, and who never gets there."""
    second = ""
    if others:
        method, spent = others[0][0].name, size(others[0][1].bytes)
        about = spent == size(price.bytes)
        second = f" {method} needs about as many." if about else f" Next comes {method} with {spent}."
    base = group.baseline(best)  # `_against` has said what became of it
    short = [m.name for m in group.methods if m is not base and not cost(m, target).always]
    if not short:
        return second
    listed = ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")
    return f"{second} Not reached under every seed by {listed}."


def _accurate(method: Method) -> tuple[float, str]:
    """For the most accurate method; a tie goes to the name."""
    found = method.spread(accuracy)
    return (found.mean if found else 0.0, method.name)


def _continual(group: Group) -> str:
    best, *rest = sorted(group.methods, key=_accurate, reverse=True)
    memory = best.spread(at("memory", "bytes"))
    kept = f" with {size(memory)} of memory" if memory else ""
    seeds = plural(len(best.runs), "seed")
    text = f"{best.name} ends with the highest accuracy, {percent(best.spread(accuracy))} ({seeds}){kept}"
    if not rest:
        return f"{text}; it is the only method here."
    return f"{text}; next is {rest[0].name} with {percent(rest[0].spread(accuracy))}."


def _distill(group: Group) -> str:
    best = max(group.methods, key=_accurate)
    images = plural(best.runs[0].at("distillation", "ipc"), "image")
    price = f"{size(best.spread(at('distillation', 'bytes')))}; {plural(len(best.runs), 'seed')}"
    controls = [f"{name} {percent(value)}" for name, value in _controls(best)]
    beside = f"Controls of as many bytes: {', '.join(controls)}." if controls else "It has no controls beside it."
    end = f"{percent(best.spread(accuracy))}, from {images} a class ({price}). {beside}"
    found = [(value, name, method.name) for method in group.methods for name, value in _controls(method)]
    value, name, method = max(found, key=lambda one: one[0].mean, default=(None, "", ""))
    if value is None or value.mean <= _accurate(best)[0]:
        return f"{best.name} gives the highest accuracy, {end}"
    top = f"{percent(value)}, of {name}, a control of as many bytes as {method}"
    return f"the highest accuracy is {top}. Of the methods, {best.name} gives the most, {end}"


def _controls(method: Method) -> list[tuple[str, Spread]]:
    """Accuracies of the controls that any run of the method has, by name."""
    found = [(name, method.spread(control(name))) for name in controls_of(method.runs)]
    return [(name, value) for name, value in found if value]
