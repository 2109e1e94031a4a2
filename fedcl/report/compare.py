"""Runs into methods, methods into groups that may be compared.

Two runs may stand on one axis when they have the same verb, the same data, the same model and the same
partition. A seed usually makes its own partition, so the partitions of one method's seeds belong
together, and whoever ran on one of them belongs to the same group.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fedcl.report.formats import Spread, spread
from fedcl.report.names import name_methods
from fedcl.report.records import Run
from fedcl.report.settings import choice, compression, family, part, participation, settings, wire


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to do the job: the same settings under several seeds."""

    name: str  # unique in its group
    family: str  # "fedavg", "one_shot", ...
    wire: str  # "uint8", "" for a verb without communication
    participation: str  # "all clients", "5 of 10 clients", "" for a verb without communication
    runs: tuple[Run, ...]  # one a seed and partition, in order of seed
    repeats: tuple[Run, ...] = ()  # more runs of a seed that is already there; in no mean

    def spread(self, value) -> Spread | None:
        """Mean and spread of `value(run)` over the seeds; None where no run has it."""
        return spread(value(run) for run in self.runs)

    def by_partition(self) -> dict[tuple[int, str], Run]:
        return {(run.seed, run.partition): run for run in self.runs}

    def paired(self, other: Method, value) -> Spread | None:
        """Spread of value(other's run) / value(own run) over the seeds and partitions that both have."""
        theirs = other.by_partition()
        ratios = []
        for key, run in self.by_partition().items():
            if key in theirs:
                own, others = value(run), value(theirs[key])
                ratios.append(others / own if own and others is not None else None)
        return spread(ratios)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Methods that may stand on one axis."""

    verb: str
    dataset: str
    model: str
    scenario: str  # its name, "" for a verb that deals no data out
    partitions: tuple[str, ...]  # SHA-256, in order of seed
    methods: tuple[Method, ...]  # cheapest first, then by name
    notes: tuple[str, ...]  # what a reader should know before comparing

    @property
    def runs(self) -> list[Run]:
        return [run for method in self.methods for run in (*method.runs, *method.repeats)]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for method in self.methods for run in method.runs})

    @property
    def baselines(self) -> list[Method]:
        """Every FedAvg that sends all of its weights, the one with most seeds first."""
        found = [
            method
            for method in self.methods
            if method.family.lower().replace("_", "") == "fedavg" and not compression(method.runs[0])
        ]
        return sorted(found, key=lambda method: (-len(method.runs), method.name))

    def baseline(self, method: Method) -> Method | None:
        """The FedAvg that bytes of `method` are compared with: of the same wire and participation, or none."""
        terms = (method.wire, method.participation)
        return next((base for base in self.baselines if (base.wire, base.participation) == terms), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All groups, the one with most runs first."""

    groups: tuple[Group, ...]


def compare(runs: Iterable[Run]) -> Comparison:
    """Sort runs into comparable groups and name their methods."""
    alike: dict[tuple[str, ...], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.seed, str(run.path))):
        key = (run.verb, *(json.dumps(part(run, group), sort_keys=True) for group in ("dataset", "model")))
        alike[key][json.dumps(settings(run), sort_keys=True)].append(run)
    groups = [_group(methods) for by_settings in alike.values() for methods in _components(by_settings)]
    verbs = ("federated", "continual", "distill")
    groups.sort(key=lambda g: (verbs.index(g.verb), -len(g.runs), g.dataset, g.model, g.scenario, g.partitions))
    return Comparison(groups=tuple(groups))


def _components(by_settings: dict[str, list[Run]]) -> list[list[list[Run]]]:
    """Lists of methods (each a list of runs) that share partitions, directly or through a third."""
    methods: list[list[Run]] = []
    for runs in by_settings.values():
        per_seed: dict[int, set[str]] = defaultdict(set)
        for run in runs:
            per_seed[run.seed].add(run.partition)
        if max(map(len, per_seed.values())) == 1:
            methods.append(runs)
        else:  # one seed, two partitions: the data or the recipe changed between these runs
            methods += [[run for run in runs if run.partition == sha] for sha in sorted({r.partition for r in runs})]
    parent = {run.partition: run.partition for runs in methods for run in runs}

    def root(sha: str) -> str:
        while parent[sha] != sha:
            parent[sha] = parent[parent[sha]]
            sha = parent[sha]
        return sha

    for runs in methods:
        for run in runs:
            parent[root(run.partition)] = root(runs[0].partition)
    found: dict[str, list[list[Run]]] = defaultdict(list)
    for runs in methods:
        found[root(runs[0].partition)].append(runs)
    return list(found.values())


def _group(methods: Sequence[Sequence[Run]]) -> Group:
    members = [(_typed(runs), settings(runs[0])) for runs in methods]
    made = [_method(name, runs) for name, runs in zip(name_methods(members), methods, strict=True)]
    made.sort(key=_order)
    first = _typed([run for runs in methods for run in runs])
    shas = {run.partition: run.seed for runs in methods for run in runs}
    group = Group(
        verb=first.verb,
        dataset=choice(first, "dataset") or "unnamed data",
        model=choice(first, "model") or "unnamed model",
        scenario=first.record.get("scenario", {}).get("name", ""),
        partitions=tuple(sorted((sha for sha in shas if sha), key=lambda sha: (shas[sha], sha))),
        methods=tuple(made),
        notes=(),
    )
    return replace(group, notes=tuple(_notes(group)))


def _typed(runs: Sequence[Run]) -> Run:
    """The run that names the others: the first from the command line, whose options are the names people know."""
    return next((run for run in runs if run.record.get("command")), runs[0])


def _method(name: str, runs: Sequence[Run]) -> Method:
    kept: dict[tuple[int, str], Run] = {}
    repeats = []
    for run in runs:
        if (run.seed, run.partition) in kept:
            repeats.append(run)
        else:
            kept[run.seed, run.partition] = run
    return Method(
        name=name,
        family=family(_typed(runs)),
        wire=wire(runs[0]),
        participation=participation(runs[0]),
        runs=tuple(kept.values()),
        repeats=tuple(repeats),
    )


def _order(method: Method) -> tuple:
    """Cheapest on the wire first; then by images a class; then the most accurate first."""
    total = method.spread(lambda run: run.total_bytes)
    ipc = method.runs[0].record.get("distillation", {}).get("ipc", 0)
    found = method.spread(accuracy)
    return (
        total.mean if total else 0,
        ipc if isinstance(ipc, int) else 0,
        -found.mean if found else 0,
        method.name,
    )


def accuracy(run: Run) -> float:
    """The last accuracy of a run; of `distill`, the mean over its networks."""
    return run.record["distillation"]["accuracy"]["mean"] if run.verb == "distill" else run.record["accuracy"]["last"]


def _notes(group: Group) -> list[str]:
    notes = []
    seeds = {method.name: {run.seed for run in method.runs} for method in group.methods}
    everyone = set.union(*seeds.values())
    fewer = [f"{name} ({len(own)} of {len(everyone)})" for name, own in seeds.items() if own != everyone]
    if fewer:
        notes.append(f"Not every method ran under every seed: {', '.join(fewer)}. Means are over the seeds it has.")
    if len(everyone) == 1:
        notes.append("One seed only: there is no spread, and a difference may be chance.")
    chosen = {id(base): base.name for method in group.baselines if (base := group.baseline(method))}
    if len(chosen) < len(group.baselines):
        names = " and ".join(chosen.values())
        notes.append(f"There are several FedAvg settings on one wire; “times fewer” is against {names}.")
    if len({method.wire for method in group.methods}) > 1:
        notes.append("These methods ran on different wires: no ratio of bytes is taken between two wires.")
    repeats = sum(len(method.repeats) for method in group.methods)
    if repeats:
        notes.append(
            f"{repeats} run(s) repeat a seed that is already there, with the same settings and partition; "
            "they are listed under Runs and are in no mean."
        )
    return notes
