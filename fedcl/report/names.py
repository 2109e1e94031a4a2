"""Names of methods: the algorithm, then every setting in which it differs from any other method of its group.

Settings of a strategy are compared among methods of that strategy, and those of an option (distiller=dm,
wire=uint8) among methods with that option: what another algorithm has for numbers is said by its name.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from fedcl.report.records import Run
from fedcl.report.settings import choice, differences, family, participation, wire

OPTIONS = ("distiller", "wire", "compress", "runtime", "scenario", "evaluation")  # groups whose option is a name
FIRST = ("distiller", "ipc", "wire", "compress", "clients_per_round")  # what a reader looks for; the rest by alphabet
MOST_TOKENS = 6
Member = tuple[Run, Mapping[str, str]]  # a run of the method, and the method's settings


def name_methods(members: Sequence[Member]) -> list[str]:
    """A name for each method of a group, unique in it."""
    tokens: list[list[str]] = [[family(run)] for run, _ in members]
    parts = {_part(key) for _, own in members for key in own}
    for part in sorted(parts, key=lambda part: (FIRST.index(part) if part in FIRST else len(FIRST), part)):
        for index, said in _differing(members, part).items():
            tokens[index] += said
    names: list[str] = []
    seen = Counter[str]()
    for said in tokens:
        more = len(said) - 1 - MOST_TOKENS
        name = " · ".join(said[: 1 + MOST_TOKENS] + ([f"and {more} more"] if more > 0 else []))
        seen[name] += 1  # methods on two partitions of one seed have equal settings
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _part(key: str) -> str:
    return "ipc" if key == "distiller.ipc" else key.partition(".")[0]


def _differing(members: Sequence[Member], part: str) -> dict[int, list[str]]:
    """Index of a member to its words about one part of the configuration; empty where all agree."""
    parts = ({key: value for key, value in one.items() if _part(key) == part} for _, one in members)
    own = {index: one for index, one in enumerate(parts) if one}
    if all(one == next(iter(own.values())) for one in own.values()):
        return {}
    said: dict[int, list[str]] = {}
    alike: dict[str, list[int]] = defaultdict(list)
    for index in own:
        alike[_option(members[index][0], part)].append(index)
    by_name = part in OPTIONS and len(alike) > 1 and (part, members[0][0].verb) != ("distiller", "distill")
    for option, indices in alike.items():
        families = [family(members[index][0]) for index in indices]
        flats = [own[index] for index in indices]
        telling = [key for key in differences(flats)[0] if _tells(key, flats, families)]
        for index in indices:
            said[index] = [option] * by_name + _changes(members[index][0], own[index], telling)
    return said


def _tells(key: str, flats: Sequence[Mapping[str, str]], families: Sequence[str]) -> bool:
    """Whether a key that not all have tells methods apart: not where only another algorithm has no use for it."""
    having = {name for name, one in zip(families, flats, strict=True) if key in one}
    lacking = {name for name, one in zip(families, flats, strict=True) if key not in one}
    return len({one[key] for one in flats if key in one}) > 1 or bool(having & lacking)


def _option(run: Run, part: str) -> str:
    if part == "strategy":
        return family(run)
    return wire(run) if part == "wire" else choice(run, part) if part in OPTIONS else ""


def _changes(run: Run, own: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    """ "lr=0.1" for each setting that differs; nothing for one that is null or absent here."""
    classes = [key.removesuffix("_target_") for key in keys if key.endswith("._target_")]
    last = Counter(key.rpartition(".")[2] for key in keys)
    told = []
    for key in keys:
        value = json.loads(own.get(key, "null"))
        said = value if isinstance(value, str) else own.get(key)
        *parents, name = key.split(".")
        if key == "clients_per_round":
            told.append(participation(run))
        elif value is None or any(key.startswith(c) and key != f"{c}_target_" for c in classes):  # said by its class
            continue
        elif name == "_target_" and parents:
            told.append(f"{parents[-1]}={str(said).rpartition('.')[2]}")
        elif key == "strategy.num_rounds":
            told.append(f"{said} rounds")
        else:
            told.append(f"{name if last[name] == 1 else '.'.join([*parents[-1:], name])}={said}")
    return told
