"""The answer in sentences, computed from the records."""

from __future__ import annotations

import math

from fedcl.report.compare import Comparison, Group, Method, accuracy
from fedcl.report.costs import TARGET, TARGETS, Cost, bytes_to, cost
from fedcl.report.formats import Spread, number, percent, plural, size
from fedcl.report.records import Run


def statements(comparison: Comparison) -> list[str]:
    """One paragraph of plain text for each group, in order."""
    if not comparison.groups:
        return ["No finished run was found, so there is nothing to compare."]
    return [statement(group) for group in comparison.groups]


def where(group: Group) -> str:
    """ "digits, convnet, dirichlet(0.5), 10 clients, all clients a round, wire uint8": what all methods share."""
    parts = [group.dataset, group.model] + ([group.scenario] if group.scenario else [])
    clients = group.methods[0].runs[0].num_clients
    if clients is not None and clients > 1:
        parts.append(plural(clients, "client"))
    return ", ".join(parts + _terms(group))


def terms(group: Group) -> str:
    """ " (all clients a round, wire uint8)": what bytes depend on, as far as it is not in the methods' names."""
    shared = _terms(group)
    return f" ({', '.join(shared)})" if shared else ""


def _terms(group: Group) -> list[str]:
    clients = {method.participation for method in group.methods}
    wires = {method.wire for method in group.methods}
    found = [f"{share} a round" for share in clients if share and len(clients) == 1]
    return found + [f"wire {wire}" for wire in wires if wire and len(wires) == 1]


def statement(group: Group) -> str:
    """The paragraph of one group."""
    return {"federated": _federated, "continual": _continual, "distill": _distill}[group.verb](group)


def _federated(group: Group) -> str:
    target, reached = _target(group)
    start = f"On {where(group)}, "
    if not reached:
        best = max(group.methods, key=_accurate)
        last = percent(best.spread(accuracy))
        goal = f"{_goal(TARGET)} accuracy under every seed"
        return f"{start}no method reaches {goal}; the best last accuracy is {last}, by {best.name}."
    (best, price), *others = reached
    lead = f"{start}{best.name} needs the fewest bytes for {_goal(target)} accuracy"
    if target != TARGET:
        lead = (
            f"{start}no method reaches {_goal(TARGET)} accuracy under every seed. "
            f"For {_goal(target)}, {best.name} needs the fewest bytes"
        )
    text = f"{lead}: {_price(price)}"
    return f"{text}, {_against(group, best, target)}{_rest(group, best, target, others)}"


def _target(group: Group) -> tuple[float, list[tuple[Method, Cost]]]:
    """95 %, or the next lower target that someone reaches under every seed; with who does.

    Cheapest first; of two that cost the same, the more accurate one.
    """
    for target in sorted((t for t in TARGETS if t <= TARGET), reverse=True):
        prices = [(method, cost(method, target)) for method in group.methods]
        reached = [
            ((price.bytes.mean, -_accurate(method)[0], method.name), method, price)
            for method, price in prices
            if price.always and price.bytes
        ]
        if reached:
            return target, [(method, price) for _, method, price in sorted(reached, key=lambda r: r[0])]
    return TARGET, []


def _goal(target: float) -> str:
    return f"{100 * target:g} %"


def _price(price: Cost) -> str:
    return f"{size(price.bytes)} on the wire, up and down ({plural(price.seeds, 'seed')})"


def _against(group: Group, best: Method, target: float) -> str:
    """How that compares with FedAvg on the same wire, seed by seed."""
    base = group.baseline(best)
    if base is None:
        return f"with {no_baseline(group, best)} to compare it with."
    if best is base:
        return "and that is the FedAvg run itself."
    ratio = best.paired(base, lambda run: bytes_to(run, target))
    price = cost(base, target)
    if ratio is not None and price.always:
        return f"{number(ratio)} times fewer than {base.name} ({size(price.bytes)})."
    if ratio is not None:
        return (
            f"{number(ratio)} times fewer than {base.name} under the {ratio.count} of {price.seeds} seeds "
            f"that reach it ({size(price.bytes)})."
        )
    if not price.reached:
        spent = base.spread(lambda run: run.total_bytes)
        floor = _floor(best, base, target)
        least = f", more than {floor:,} times as many," if floor else ""
        return f"while {base.name} spends {size(spent)}{least} without getting there."
    return f"with no seed and partition in common with {base.name}."


def no_baseline(group: Group, method: Method) -> str:
    """Why there is no ratio: "no FedAvg run", or which terms no FedAvg of the group has."""
    if not group.baselines:
        return "no FedAvg run"
    on_wire = any(base.wire == method.wire for base in group.baselines)
    return f"no FedAvg run with {method.participation} a round" if on_wire else f"no FedAvg run on {method.wire}"


def _floor(best: Method, base: Method, target: float) -> float | None:
    """The smallest ratio of FedAvg's total to the bytes that `best` needed, over common seeds."""
    theirs = base.by_partition()
    ratios = [
        (theirs[key].total_bytes or 0) / need
        for key, run in best.by_partition().items()
        if key in theirs and (need := bytes_to(run, target))
    ]
    return _rounded_down(min(ratios)) if ratios else None


def _rounded_down(value: float) -> float:
    """A bound may not be rounded up: 277.8 is 277, 5.38 is 5.3."""
    return math.floor(value) if value >= 10 else math.floor(10 * value) / 10


def _rest(group: Group, best: Method, target: float, others: list[tuple[Method, Cost]]) -> str:
    """One more sentence: who comes next, and who never gets there."""
    base = group.baseline(best)  # `_against` has said what became of it
    names = {method.name for method, _ in others}
    second = f" Next comes {others[0][0].name} with {size(others[0][1].bytes)}." if others else ""
    if others and size(others[0][1].bytes) == size(cost(best, target).bytes):
        second = f" {others[0][0].name} needs about as many."
    short = [
        method.name
        for method in group.methods
        if method is not base and method.name not in names and not cost(method, target).always
    ]
    if not short:
        return second
    listed = ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")
    return f"{second} Not reached under every seed by {listed}."


def _accurate(method: Method) -> tuple[float, str]:
    """For the most accurate method; a tie goes to the name."""
    found = method.spread(accuracy)
    return (found.mean if found else 0.0, method.name)


def _continual(group: Group) -> str:
    best = max(group.methods, key=_accurate)
    last = best.spread(accuracy)
    memory = best.spread(lambda run: run.record.get("memory", {}).get("bytes"))
    kept = f" with {size(memory)} of memory" if memory else ""
    seeds = plural(len(best.runs), "seed")
    text = f"On {where(group)}, {best.name} ends with the highest accuracy, {percent(last)} ({seeds}){kept}"
    rest = [method for method in group.methods if method is not best]
    if not rest:
        return text + "; it is the only method here."
    second = max(rest, key=_accurate)
    return text + f"; next is {second.name} with {percent(second.spread(accuracy))}."


def _distill(group: Group) -> str:
    best = max(group.methods, key=_accurate)
    found = percent(best.spread(accuracy))
    made = _made(best)
    beside = [(method, name) for method in group.methods for name in controls_of(method)]
    top = max(beside, key=lambda one: _of_control(*one), default=None)
    if top is not None and _of_control(*top) > _accurate(best)[0]:
        method, name = top
        most = f"{percent(_control_spread(method, name))}, of {name}, a control of as many bytes as {method.name}"
        return (
            f"On {where(group)}, the highest accuracy is {most}. Of the methods, {best.name} gives the most, {found}, "
            f"from {made}{_controls(best)}"
        )
    return f"On {where(group)}, {best.name} gives the highest accuracy, {found}, from {made}{_controls(best)}"


def _made(method: Method) -> str:
    """ "1 image a class (640 B; 3 seeds)"."""
    price = size(method.spread(lambda run: run.record["distillation"]["bytes"]))
    count = plural(method.runs[0].record["distillation"]["ipc"], "image")
    return f"{count} a class ({price}; {plural(len(method.runs), 'seed')})"


def _controls(method: Method) -> str:
    """What stands beside a method, as the end of a sentence."""
    said = [f"{name} {percent(_control_spread(method, name))}" for name in controls_of(method)]
    return f". Controls of as many bytes: {', '.join(said)}." if said else ". It has no controls beside it."


def controls_of(method: Method) -> list[str]:
    """Names of the controls that any run of the method has."""
    return sorted({name for run in method.runs for name in run.record["distillation"].get("controls", {})})


def _control_spread(method: Method, name: str) -> Spread | None:
    return method.spread(lambda run: control(run, name))


def _of_control(method: Method, name: str) -> float:
    found = _control_spread(method, name)
    return found.mean if found else 0.0


def control(run: Run, name: str) -> float | None:
    """Mean accuracy of a control of a `distill` run, or None when it has no such control."""
    found = run.record["distillation"].get("controls", {}).get(name)
    return found["accuracy"]["mean"] if found else None
