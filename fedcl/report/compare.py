"""Runs into methods, methods into groups that may be compared.

Two runs may stand on one axis when they have the same verb, the same data, the same model and the same
partition. A seed usually makes its own partition, so the partitions of one method's seeds belong
together, and whoever ran on one of them belongs to the same group.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from fedcl.report.formats import Spread, spread
from fedcl.report.names import name_methods
from fedcl.report.records import Run, at, total_bytes
from fedcl.report.settings import choice, compression, family, participation, settings, wire

VERBS = ("federated", "continual", "distill")
Value = Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to do the job: the same settings under several seeds."""

    name: str  # unique in its group
    family: str  # "fedavg", "one_shot", ...
    wire: str  # "uint8", "" for a verb without communication
    participation: str  # "all clients", "5 of 10 clients", "" for a verb without communication
    runs: tuple[Run, ...]  # one a seed and partition, in order of seed
    repeats: tuple[Run, ...] = ()  # more runs of a seed that is already there; in no mean

    def spread(self, value: Value) -> Spread | None:
        """Mean and spread of `value(run)` over the seeds; None where no run has it."""
        return spread(value(run) for run in self.runs)

    def by_partition(self) -> dict[tuple[int, str], Run]:
        return {(run.seed, run.partition): run for run in self.runs}

    def ratios(self, other: "Method", own: Value, others: Value) -> list[float]:
        """others(other's run) / own(own run) for each seed and partition that both have, where both have a value."""
        theirs = other.by_partition()
        pairs = [(others(theirs[key]), own(run)) for key, run in self.by_partition().items() if key in theirs]
        return [top / bottom for top, bottom in pairs if bottom and top is not None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Methods that may stand on one axis."""

    verb: str
    dataset: str
    model: str
    scenario: str  # its name, "" for a verb that deals no data out
    partitions: tuple[str, ...]  # SHA-256, in order of seed
    methods: tuple[Method, ...]  # cheapest first, then by name

    @property
    def runs(self) -> list[Run]:
        return [run for method in self.methods for run in (*method.runs, *method.repeats)]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def baselines(self) -> list[Method]:
        """Every FedAvg that sends all of its weights, the one with most seeds first."""
        found = [method for method in self.methods if method.family.lower().replace("_", "") == "fedavg"]
        found = [method for method in found if not compression(method.runs[0])]
        return sorted(found, key=lambda method: (-len(method.runs), method.name))

    def baseline(self, method: Method) -> Method | None:
        """The FedAvg that bytes of `method` are compared with: of the same wire and participation, or none."""
        terms = (method.wire, method.participation)
        return next((base for base in self.baselines if (base.wire, base.participation) == terms), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before comparing."""
        notes = []
        seeds = {method.name: {run.seed for run in method.runs} for method in self.methods}
        fewer = [f"{name} ({len(own)} of {len(self.seeds)})" for name, own in seeds.items() if own != set(self.seeds)]
        if fewer:
            notes.append(f"Not every method ran under every seed: {', '.join(fewer)}. Means are over the seeds it has.")
        if len(self.seeds) == 1:
            notes.append("One seed only: there is no spread, and a difference may be chance.")
        chosen = list(dict.fromkeys(base.name for method in self.baselines if (base := self.baseline(method))))
        if len(chosen) < len(self.baselines):
            names = " and ".join(chosen)
            notes.append(f"There are several FedAvg settings on one wire; “times fewer” is against {names}.")
        if len({method.wire for method in self.methods}) > 1:
            notes.append("These methods ran on different wires: no ratio of bytes is taken between two wires.")
        repeats = sum(len(method.repeats) for method in self.methods)
        if repeats:
            notes.append(
                f"{repeats} run(s) repeat a seed that is already there, with the same settings and partition; "
                "they are listed under Runs and are in no mean."
            )
        return tuple(notes)


class Listed(NamedTuple):
    """A run where the report lists it; numbers count from 1."""

    number: int
    group_number: int
    group: Group
    method: Method
    run: Run
    repeat: bool  # of a seed that is already there


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All groups, the one with most runs first."""

    groups: tuple[Group, ...]

    def listed(self) -> Iterator[Listed]:
        """Every run in the order of the report."""
        number = count(1)
        for group_number, group in enumerate(self.groups, 1):
            for method in group.methods:
                for index, run in enumerate((*method.runs, *method.repeats)):
                    yield Listed(next(number), group_number, group, method, run, index >= len(method.runs))


def compare(runs: Iterable[Run]) -> Comparison:
    """Sort runs into comparable groups and name their methods."""
    alike: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.seed, str(run.path))):
        own = settings(run)
        shared = {key: value for key, value in own.items() if key.partition(".")[0] in ("dataset", "model")}
        alike[run.verb, json.dumps(shared, sort_keys=True)][json.dumps(own, sort_keys=True)].append(run)
    groups = [_group(methods) for by_settings in alike.values() for methods in _components(by_settings.values())]
    groups.sort(key=lambda g: (VERBS.index(g.verb), -len(g.runs), g.dataset, g.model, g.scenario, g.partitions))
    return Comparison(groups=tuple(groups))


def _components(by_settings: Iterable[list[Run]]) -> list[list[list[Run]]]:
    """Lists of methods (each a list of runs) that share partitions, directly or through a third."""
    methods: list[list[Run]] = []
    for runs in by_settings:
        if len({(run.seed, run.partition) for run in runs}) == len({run.seed for run in runs}):
            methods.append(runs)
        else:  # one seed, two partitions: the data or the recipe changed between these runs
            methods += [[run for run in runs if run.partition == sha] for sha in sorted({r.partition for r in runs})]
    component = {run.partition: run.partition for runs in methods for run in runs}
    for runs in methods:
        joined = {component[run.partition] for run in runs}
        component = {sha: min(joined) if own in joined else own for sha, own in component.items()}
    found: dict[str, list[list[Run]]] = defaultdict(list)
    for runs in methods:
        found[component[runs[0].partition]].append(runs)
    return list(found.values())


def _group(methods: Sequence[Sequence[Run]]) -> Group:
    names = name_methods([(_typed(runs), settings(runs[0])) for runs in methods])
    first = _typed([run for runs in methods for run in runs])
    shas = {run.partition: run.seed for runs in methods for run in runs}
    return Group(
        verb=first.verb,
        dataset=choice(first, "dataset") or "unnamed data",
        model=choice(first, "model") or "unnamed model",
        scenario=first.at("scenario", "name") or "",
        partitions=tuple(sorted((sha for sha in shas if sha), key=lambda sha: (shas[sha], sha))),
        methods=tuple(sorted(map(_method, names, methods), key=_order)),
    )


def _typed(runs: Sequence[Run]) -> Run:
    """The run that names the others: the first from the command line, whose options are the names people know."""
    return next((run for run in runs if run.record.get("command")), runs[0])


def _method(name: str, runs: Sequence[Run]) -> Method:
    kept: dict[tuple[int, str], Run] = {}
    for run in runs:
        kept.setdefault((run.seed, run.partition), run)
    return Method(
        name=name,
        family=family(_typed(runs)),
        wire=wire(runs[0]),
        participation=participation(runs[0]),
        runs=tuple(kept.values()),
        repeats=tuple(run for run in runs if kept[run.seed, run.partition] is not run),
    )


def _order(method: Method) -> tuple:
    """Cheapest on the wire first; then by images a class; then the most accurate first."""
    total, found = method.spread(total_bytes), method.spread(accuracy)
    ipc = method.runs[0].at("distillation", "ipc") or 0
    return (total.mean if total else 0, ipc, -found.mean if found else 0, method.name)


def accuracy(run: Run) -> float:
    """The last accuracy of a run; of `distill`, the mean over its networks."""
    return run.at("distillation", "accuracy", "mean") if run.verb == "distill" else run.at("accuracy", "last")


def control(name: str) -> Value:
    """The mean accuracy of a control of `distill` as a function of the run; None where it has no such control."""
    return at("distillation", "controls", name, "accuracy", "mean")


def controls_of(runs: Iterable[Run]) -> list[str]:
    """Names of the controls that any of these runs has."""
    return sorted({name for run in runs for name in run.at("distillation", "controls") or ()})
