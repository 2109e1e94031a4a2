"""Published accuracies beside ours, and in what their protocol differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedcl.report.records import Run
from fedcl.report.settings import choice, flat

UNKNOWN = "another protocol"


def published(run: Run) -> float | None:
    """The published accuracy for this data and as many images a class, where the preset's `published` has one."""
    by_ipc = _of_preset(run, "published").get(choice(run, "dataset"))
    value = by_ipc.get(str(run.record["distillation"]["ipc"])) if isinstance(by_ipc, Mapping) else None
    return value if isinstance(value, int | float) and 0 <= value <= 1 else None


def unlike(run: Run) -> list[str]:
    """What the published protocol has and this run has not: "steps=20000, width=128"; [] where nothing differs."""
    protocol = flat(_of_preset(run, "published_protocol"))
    if not protocol:
        return [UNKNOWN]
    own = flat(run.config)
    return [
        f"{key.rpartition('.')[2]}={value.strip(chr(34))}"
        for key, value in protocol.items()
        if json.loads(own.get(key, "null")) != json.loads(value)
    ]


def _of_preset(run: Run, name: str) -> Mapping[str, Any]:
    distiller = run.config.get("distiller")
    value = distiller.get(name) if isinstance(distiller, Mapping) else None
    return value if isinstance(value, Mapping) else {}
