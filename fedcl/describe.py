"""A job that was made from objects, as the configuration that would have made it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from fedcl.checks import FromEnvironment

GROUPS = {"source": "dataset", "recipe": "scenario", "budget": "buffer"}  # field of a job -> group of configs/
NOT_SETTINGS = ("out", "config", "command")  # where a run lies and how it was asked for, not what it is


def settings_of(job: Any) -> Mapping[str, Any]:
    """What the record of a job keeps as its configuration: `job.config`, or without one its fields in words."""
    return describe_job(job) if job.config is None else describe(job.config)


def describe_job(job: Any) -> dict[str, Any]:
    """The fields of a job by the names of their groups, with `choices`: a short name for each part.

    Parts look as in configs/: `_target_` and their values. So runs from objects and runs from the command line
    can stand in one report.
    """
    kept = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in NOT_SETTINGS}
    choices = {GROUPS.get(name, name): short_name(value) for name, value in kept.items() if is_part(value)}
    return {GROUPS.get(name, name): describe(value) for name, value in kept.items()} | {"choices": choices}


def is_part(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def describe(value: Any) -> Any:
    """Plain values that JSON can hold: a dataclass becomes its class and its fields."""
    if isinstance(value, FromEnvironment):
        return value.shown
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_part(value):
        return {"_target_": target(type(value))} | {f.name: describe(getattr(value, f.name)) for f in fields(value)}
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
    plain = {key: item for key, item in vars(value).items() if isinstance(item, bool | int | float | str)}
    return {"_target_": target(type(value)), **plain}  # an object of another library: its plain attributes


def target(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def short_name(part: Any) -> str:
    """What a report calls a part: "one_shot" of OneShot, "fedavg" of Flower's FedAvg, "uint8" of a Wire."""
    if hasattr(part, "algorithm"):  # the bridge to Flower: which of its strategies
        return type(part.algorithm).__name__.lower()
    for name in ("name", "dtype"):
        if isinstance(getattr(part, name, None), str):
            return getattr(part, name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(part).__name__).lower()
