"""Description of a job by plain values: the configuration that its record keeps, however the job was made."""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import yaml

from fedcl.core.checks import FromEnvironment
from fedcl.core.paths import config_dirs, option_files

GROUPS = {"source": "dataset", "recipe": "scenario", "budget": "buffer"}  # field of a job -> group of configs/
NOT_SETTINGS = ("out", "choices", "command")  # where a run lies and how it was asked for, not what it is
AXES = ("objective", "parameterization", "initializer", "augmentation", "labels", "networks", "sampler")  # distiller's
OWN = ("fedcl", "strategies", "scenarios")


def settings_of(job: Any) -> dict[str, Any]:
    """The configuration of a job as its record keeps it: every part by the name of its group, and `choices`.

    Parts look as in configs/: `_target_` and their values, all of them. What `job.unused` names decides nothing and is
    left out, so that jobs that do the same have the same settings. `choices` are names for people: what was typed, or
    for a job from objects the options that come nearest.
    """
    kept = {GROUPS.get(f.name, f.name): getattr(job, f.name) for f in fields(job) if f.name not in NOT_SETTINGS}
    choices = job.choices
    if choices is None:
        groups = {path.name for folder in config_dirs() for path in folder.iterdir() if path.is_dir()}
        choices = {key: short_name(key, part) for key, part in kept.items() if is_dataclass(part) and key in groups}
    unused = {*job.unused, *(AXES if "distiller" in job.unused else ())}
    described = {"_target_": target(type(job))} | {name: describe(value) for name, value in kept.items()}
    return without(described, unused) | {"choices": {k: v for k, v in choices.items() if k not in unused}}


def without(node: Mapping[str, Any], names: Collection[str], path: str = "") -> dict[str, Any]:
    """A nested mapping less the entries of these dotted names."""
    kept = {key: value for key, value in node.items() if path + key not in names}
    return {k: without(v, names, f"{path}{k}.") if isinstance(v, Mapping) else v for k, v in kept.items()}


def describe(value: Any) -> Any:
    """Plain values that JSON can hold: a dataclass becomes its class and its fields.

    A field whose metadata says `repeats` says again what another one says, and is left out.
    """
    if isinstance(value, FromEnvironment):
        return value.shown
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        own = [f.name for f in fields(value) if not f.metadata.get("repeats")]
        return {"_target_": target(type(value))} | {name: describe(getattr(value, name)) for name in own}
    if isinstance(value, partial):
        return {"_target_": target(value.func), "_partial_": True} | describe(value.keywords)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    if isinstance(value, Path | Enum):
        return str(value)
    if hasattr(value, "__qualname__"):  # a class or a function
        return target(value)
    # an object of another library: what its constructor took, as far as it is plain
    taken = {key: vars(value).get(key) for key in signature(type(value)).parameters}
    plain = {key: item for key, item in taken.items() if isinstance(item, bool | int | float | str)}
    return {"_target_": target(type(value)), **plain}


def target(thing: Any) -> str:
    """Dotted name of a class or function: where it is written, or the shortest place of another library that has it."""
    home = thing.__module__
    if home.partition(".")[0] not in OWN:
        parts = home.split(".")
        places = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        home = next((place for place in places if found_at(f"{place}.{thing.__qualname__}") is thing), home)
    return f"{home}.{thing.__qualname__}"


def found_at(name: str) -> Any:
    """Object of a dotted name among the modules that are loaded; None where there is none."""
    module, _, own = name.rpartition(".")
    return getattr(sys.modules.get(module), own, None)


def defaults_of(name: str) -> dict[str, Any]:
    """Defaults of the class or function of a `_target_`, described; MISSING where there is none."""
    found = found_at(name)
    if is_dataclass(found):
        makes = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(found)}
    else:
        try:
            makes = {key: p.default for key, p in signature(found).parameters.items()}
        except (TypeError, ValueError):  # nothing that is called: its values have no defaults
            return {}
        makes = {key: MISSING if value is Parameter.empty else value for key, value in makes.items()}
    return {GROUPS.get(k, k): MISSING if value is MISSING else describe(value) for k, value in makes.items()}


def short_name(group: str, part: Any) -> str:
    """Name of a part in a report: "one_shot" of OneShot, "fedavg" of Flower's FedAvg, "uint8" of a Wire.

    Its own name where it is given one, else the option of configs/<group>/ of its class that agrees most with it.
    """
    if hasattr(part, "algorithm"):  # the bridge to Flower: which of its strategies
        return type(part.algorithm).__name__.lower()
    if "name" in {f.name for f in fields(part)}:
        return part.name
    mine = describe(part)
    alike = {name: option for name, option in options(group).items() if option.get("_target_") == mine["_target_"]}
    if alike:
        return max(alike, key=lambda name: sum(mine.get(key) == value for key, value in alike[name].items()))
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(part).__name__).lower()


def options(group: str) -> Mapping[str, Mapping[str, Any]]:
    """The content of every option of a group by its name, in order; plug-ins included."""
    return _options(group, config_dirs())


@cache
def _options(group: str, folders: tuple[Path, ...]) -> Mapping[str, Mapping[str, Any]]:
    files = sorted(option_files(group).values(), key=lambda path: path.stem)
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
