"""Published accuracies beside ours, and in what their protocol differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedcl.report.records import Run
from fedcl.report.settings import choice, flat

UNKNOWN = "another protocol"
TELLING = ("distiller.steps", "model.width", "evaluation.training.updates")  # what makes the largest difference


def published(run: Run) -> float | None:
    """The published accuracy for this data and as many images a class, where the preset's `published` has one."""
    by_ipc = _of_preset(run, "published").get(choice(run, "dataset"))
    value = by_ipc.get(str(run.record["distillation"]["ipc"])) if isinstance(by_ipc, Mapping) else None
    return value if isinstance(value, int | float) and 0 <= value <= 1 else None


def unlike(run: Run) -> list[str]:
    """What the published protocol has and this run has not: "steps=20000", "width=128"; [] where nothing differs."""
    protocol = flat(_of_preset(run, "published_protocol"))
    if not protocol:
        return [UNKNOWN]
    own = flat(run.config)
    differing = [key for key, value in protocol.items() if json.loads(own.get(key, "null")) != json.loads(value)]
    differing.sort(key=lambda key: TELLING.index(key) if key in TELLING else len(TELLING))
    return [_word(key, json.loads(protocol[key])) for key in differing]


def _word(key: str, value: Any) -> str:
    *_, parent, name = ["", *key.split(".")]
    if name == "_target_":
        return f"{parent}={str(value).rpartition('.')[2]}"
    return f"other {parent} {name}" if isinstance(value, list) else f"{name}={json.dumps(value).strip(chr(34))}"


def _of_preset(run: Run, name: str) -> Mapping[str, Any]:
    distiller = run.config.get("distiller")
    value = distiller.get(name) if isinstance(distiller, Mapping) else None
    return value if isinstance(value, Mapping) else {}
