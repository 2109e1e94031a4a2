"""A scenario as a JSON file, so that a published partition is run again: `partition.json` of every grid run.

Readable without fedcl: `shares[step][client]` are rows of the training set, `groups[group]` rows of the test set, both
counted from 0 in the order of `Dataset`: by class, and within a class as the data set has them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.record import write_atomically
from fedcl.scenario.base import Indices, Labels, Scenario

PARTITION = "partition.json"
FORMAT = "fedcl partition 1"
SIZES = ("num_classes", "num_train", "num_test")  # of the data that it was made for
ABOUT = {  # what the file says beside its rows: name -> type
    "name": str,
    "seed": int,
    **dict.fromkeys(SIZES, int),
    "disjoint": bool,
    "group_names": list,
    "transforms": list,
    "group_transforms": list,
}


def write_scenario(path: Path, scenario: Scenario, labels: Labels) -> None:
    """Write the file; the same scenario gives the same bytes."""
    sizes = _sizes(labels)
    content = {
        "format": FORMAT,
        **{key: sizes[key] if key in SIZES else getattr(scenario, key) for key in ABOUT},
        "groups": [group.tolist() for group in scenario.groups],
        "shares": [[share.tolist() for share in step] for step in scenario.shares],
    }
    write_atomically(path, json.dumps(content, separators=(",", ":")) + "\n")


def read_scenario(path: Path, labels: Labels) -> Scenario:
    """The scenario in a file, for the data of these labels.

    Raises:
        ScenarioError: it cannot be read, is damaged, or is of other data.
    """
    content, sizes = _content(path), _sizes(labels)
    for key, size in sizes.items():
        if content[key] != size:
            raise ScenarioError(
                f"{path} is of other data: its {key} is {content[key]}, and here it is {size}; "
                "type the dataset=... that it was made for"
            )
    try:
        shares = [
            [
                _rows(share, f"step {t}, client {k}", sizes["num_train"])
                for k, share in enumerate(_list(step, f"step {t}"))
            ]
            for t, step in enumerate(content["shares"], 1)
        ]
        groups = [_rows(rows, f"group {g}", sizes["num_test"]) for g, rows in enumerate(content["groups"], 1)]
        about: dict[str, Any] = {key: content[key] for key in ("name", "seed", "num_classes", "disjoint")}
        about |= {key: tuple(map(str, content[key])) for key, kind in ABOUT.items() if kind is list}
        return Scenario(**about, shares=tuple(map(tuple, shares)), groups=tuple(groups))
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def _sizes(labels: Labels) -> dict[str, int]:
    return dict(zip(SIZES, (labels.num_classes, len(labels.train_N), len(labels.test_N)), strict=True))


def _content(path: Path) -> Mapping[str, Any]:
    """The file's parts, each of its type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read ({error.strerror}); type scenario.path=RUN/{PARTITION}") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path} is no whole JSON file ({type(error).__name__}); make it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ScenarioError(f"{path} is no file of a partition: it does not say 'format': '{FORMAT}'")
    for key, kind in {**ABOUT, "groups": list, "shares": list}.items():
        if type(content.get(key)) is not kind:
            raise ScenarioError(f"{path} is damaged: '{key}' is missing or no {kind.__name__}; make it again")
    return content


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise ScenarioError(f"{place} is no list")
    return value


def _rows(value: Any, place: str, size: int) -> Indices:
    """Sorted int64 rows below `size`, none twice."""
    rows = _list(value, place)
    for row in rows:
        if type(row) is not int or not 0 <= row < size:
            raise ScenarioError(f"{place} names row {row!r}, and rows are whole numbers from 0 to {size - 1}")
    found = np.array(sorted(rows), dtype=np.int64)
    twice = found[1:][np.diff(found) == 0]
    if len(twice):
        raise ScenarioError(f"{place} names row {twice[0]} twice")
    return found
