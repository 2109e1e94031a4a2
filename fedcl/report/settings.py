"""What a configuration says about a run: its data, its model, its method, and where two differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedcl.report.records import Run

# Keys that say where, under which seed and how safely a run was made, not what was done.
NOT_SETTINGS = {"out", "device", "quiet", "progress", "experiment", "choices.experiment"} | {
    "dataset.root",
    "dataset.download",
    "checkpoint_every",
}
NAMING = ("distiller", "objective", "wire", "runtime")  # groups that tell methods apart, in reading order
ABSENT = "absent"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON text; lists stay whole."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = json.dumps(value, sort_keys=True)
    return found


def settings(run: Run) -> dict[str, str]:
    """The flat configuration without what does not define the method: seeds, paths, the device."""
    return {
        key: value
        for key, value in flat(run.config).items()
        if key not in NOT_SETTINGS and key.rpartition(".")[2] != "seed"
    }


def choice(run: Run, group: str) -> str:
    """The option chosen for a config group: "fedavg", or a stand-in from the group's own contents."""
    choices = run.config.get("choices")
    if isinstance(choices, Mapping) and choices.get(group) is not None:
        return str(choices[group]).rpartition("/")[2]
    value = run.config.get(group)
    if isinstance(value, Mapping):
        for key in ("name", "_target_"):
            if isinstance(value.get(key), str):
                return value[key].rpartition(".")[2].lower()
        return ""
    return "" if value is None else str(value)


def family(run: Run) -> str:
    """The name that a method starts with: its strategy, or for `distill` its distiller."""
    if run.verb == "distill":
        return choice(run, "distiller") or run.record["distillation"]["method"]
    return choice(run, "strategy") or run.record.get("distillation", {}).get("method") or run.verb


def part(run: Run, group: str) -> str:
    """Everything that the configuration says about a group (`dataset`, `model`), as one comparable text."""
    found = {key: value for key, value in settings(run).items() if key.partition(".")[0] == group}
    return json.dumps([choice(run, group), sorted(found.items())])


def name_methods(members: Sequence[tuple[Run, Mapping[str, str]]]) -> list[str]:
    """A short name for each (run, settings): the family, then only what tells it from its namesakes."""
    names = [family(run) for run, _ in members]
    choosers = [(f"choices.{group}", lambda run, _, group=group: choice(run, group)) for group in NAMING]
    keys = sorted({key for _, own in members for key in own} - {key for key, _ in choosers})
    choosers += [(key, lambda _, own, key=key: _token(key, own.get(key))) for key in keys]
    for _, chooser in choosers:
        clashes: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            clashes.setdefault(name, []).append(index)
        if len(clashes) == len(names):
            break
        for name, indices in clashes.items():
            tokens = [chooser(*members[index]) for index in indices]
            if len(set(tokens)) > 1:
                for index, token in zip(indices, tokens, strict=True):
                    names[index] = f"{name} · {token or ABSENT}"
    return names


def _token(key: str, value: str | None) -> str:
    short = key.rpartition(".")[2]
    return f"{short}={ABSENT if value is None else value.strip(chr(34))}"


def differences(flats: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """For each configuration, the keys in which not all of them agree, with its own value."""
    keys = sorted({key for one in flats for key in one})
    varying = [key for key in keys if len({one.get(key) for one in flats}) > 1]
    return [{key: one.get(key, ABSENT) for key in varying} for one in flats]
