"""Protocol that a source's accuracies were measured with: a preset's `published_protocol`, for one data set and ipc.

A protocol maps keys of the configuration to the source's values, so that a run can be held against it key by key.
Where a value depends on the data set or the ipc it is a table, as the accuracies are: data set -> ipc -> value, or
either alone. A key that fedcl does not have says what no run here can be like (`dataset.zca`).
"""

from collections.abc import Mapping
from typing import Any


def protocol_at(protocol: Mapping[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """Flat: one value a key. A key whose table says nothing of that data set or ipc is left out."""
    found: dict[str, Any] = {}
    for key, value in protocol.items():
        while isinstance(value, Mapping) and any(place in value for place in (dataset, ipc, str(ipc))):
            value = next(value[place] for place in (dataset, ipc, str(ipc)) if place in value)
        if not isinstance(value, Mapping):
            found[key] = value
    return found


def with_protocol_at(config: Mapping[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """A job's configuration whose `distiller.published_protocol` is that of its data set and ipc."""
    distiller = config.get("distiller")
    if not isinstance(distiller, Mapping) or "published_protocol" not in distiller:
        return dict(config)
    flat = protocol_at(distiller["published_protocol"], dataset, ipc)
    return {**config, "distiller": {**distiller, "published_protocol": flat}}
