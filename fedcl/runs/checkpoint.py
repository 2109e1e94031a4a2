"""Checkpoints: all that a run needs to go on after its last finished step or round.

One file, `checkpoint.safetensors`, replaced atomically: tensors by name, and as JSON in its metadata the record without
its rows and the marks of the files that grow (see `fedcl/core/journal.py`). So a kill at any moment leaves either the
checkpoint before or the one after, and what the files have beyond its marks is cut off. Nothing is unpickled.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedcl.continual.contract import State
from fedcl.core.checks import fits, format_value
from fedcl.core.describe import AXES, defaults_of, found_at
from fedcl.core.errors import DataError, FedclError, RunError
from fedcl.core.journal import Journal
from fedcl.core.record import RECORD, fill, read_record
from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.distill.blobs import below, decode, encode, pack_blobs, unpack_blobs
from fedcl.federated.payload import ServerState
from fedcl.memory.files import pack_buffer, unpack_buffer

NAME = "checkpoint.safetensors"
FORMAT = "fedcl checkpoint 2"
SHOWN = 5  # differing keys that a refusal names


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after `done` steps (or rounds)."""

    done: int
    record: Mapping[str, Any]  # as it stood then, without its rows
    tensors: Mapping[str, Tensor]  # of the state
    about: Mapping[str, Any] = field(default_factory=dict)  # of the state: what JSON can say
    marks: Mapping[str, Any] = field(default_factory=dict)  # name of a journal -> how far it went

    def resume(self, journal: Journal) -> str:
        """Cut a journal back to how it stood then, and return its text; RunError where it was damaged."""
        return journal.resume(self.marks[journal.path.name])


def write_checkpoint(out: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint."""
    run = {name: getattr(checkpoint, name) for name in ("done", "record", "about", "marks")}
    run |= {"order": list(checkpoint.tensors)}  # safetensors sorts; sums depend on order
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.tensors.items()}
    write_tensors(out / NAME, FORMAT, tensors, {"run": run})


def begin(out: Path, config: Mapping[str, Any]) -> Checkpoint | None:
    """Tidy the folder of a run, which this process holds: None to start it, a checkpoint to go on with it.

    Raises:
        RunError: it holds an unfinished run of another configuration, or a damaged one.
    """
    for left in [*out.glob(".*.*"), *out.glob("*/.*.*")]:  # halves of files, from a kill while writing
        if re.fullmatch(r"\..+\.\w{8}", left.name):
            left.unlink(missing_ok=True)
    if not (out / RECORD).exists():
        return None
    checkpoint = read_checkpoint(out) if (out / NAME).exists() else None
    differing = differences(read_record(out).get("config") or {}, config)
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise RunError(
            f"out={out} holds an unfinished run of another configuration: {'; '.join(differing[:SHOWN])}{more}. "
            "Type the same values to go on with it, or another out=..."
        )
    return checkpoint


def read_checkpoint(out: Path) -> Checkpoint:
    """The checkpoint in a folder; RunError where it cannot be read."""
    path = out / NAME
    try:
        tensors, about = read_tensors(path, FORMAT)
        with as_data_error(f"{path} is damaged"):
            run = about["run"]
            ordered = {name: tensors[name] for name in run.pop("order")}
            if not fits(run["done"], int) or run["done"] < 0 or len(ordered) != len(tensors):
                raise DataError(
                    f"'done' is {run['done']!r}, and 'order' names {len(ordered)} of {len(tensors)} tensors"
                )
            return Checkpoint(tensors=ordered, **run)
    except DataError as error:
        raise RunError(f"{error}; delete {out} to start again, or type another out=...") from None


def resume_rows(checkpoint: Checkpoint, rows: Journal) -> dict[str, Any]:
    """The record as it stood at the checkpoint, later rows cut off; RunError where their file was damaged."""
    return fill(checkpoint.record, checkpoint.resume(rows), rows.path)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """ "seed was 0, is 1" for every key of a configuration whose value differs.

    An older version kept fewer keys, so what only `now` has is no difference where it is the default; and it kept what
    decides nothing, so what only `before` has is none where `now` could have had it and left it out.
    """
    old, new = (json.loads(json.dumps(config)) for config in (before, now))
    old = {key: value for key, value in old.items() if key not in (*AXES, "choices")}  # the distiller has them, too
    new.pop("choices", None)
    return sorted(_differences(old, new, ""))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if path in ("_target_", "distiller.published", "distiller.published_protocol"):  # the job's class; what others got
        return
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        was, now_is = ({} if side is MISSING else flat(side, path) for side in (old, new))
        for key in {*was, *now_is}:
            if key not in was or key not in now_is or was[key] != now_is[key]:
                words = [format_value(leaves[key]) if key in leaves else "absent" for leaves in (was, now_is)]
                yield f"{key} was {words[0]}, is {words[1]}"
        return
    takes = defaults_of(str(new.get("_target_")))
    omits = is_dataclass(found_at(str(new.get("_target_"))))  # what decides nothing; of others only the default
    for key in {*old, *new}:
        if key not in old and key in takes and takes[key] == new[key]:
            continue
        if key not in new and ((key in takes and (omits or takes[key] == old[key])) or path == "architectures"):
            continue
        place = f"{path}.{key}" if path else key
        yield from _differences(old.get(key, MISSING), new.get(key, MISSING), place)


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted name."""
    if not isinstance(node, Mapping):
        return {path: node}
    parts = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()]
    return {name: leaf for leaves in parts for name, leaf in leaves.items()}


def pack_state(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A continual learner's state as tensors and JSON."""
    tensors, about = pack_buffer(state.buffer)
    return in_folders(weights=state.weights, extra=state.tensors, buffer=tensors), {"buffer": about}


def unpack_state(checkpoint: Checkpoint) -> State:
    """Undo `pack_state`, bit for bit."""
    tensors = checkpoint.tensors
    return State(
        weights=below(tensors, "weights"),
        tensors=below(tensors, "extra"),
        buffer=unpack_buffer(below(tensors, "buffer"), checkpoint.about["buffer"]),
    )


def pack_server(state: ServerState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A server's state as tensors and JSON."""
    tensors, blobs = pack_blobs([encode(summary) for summary in state.summaries])
    about = {"has_weights": state.weights is not None, "summaries": blobs}
    return in_folders(weights=state.weights or {}, extra=state.tensors, summary=tensors), about


def in_folders(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of several parts in one mapping, as "<part>/<name>"."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def unpack_server(checkpoint: Checkpoint) -> ServerState:
    """Undo `pack_server`, bit for bit; RunError where a part is missing."""
    about, tensors = checkpoint.about, checkpoint.tensors
    try:
        blobs = unpack_blobs(below(tensors, "summary"), about["summaries"])
        return ServerState(
            weights=below(tensors, "weights") if about["has_weights"] else None,
            summaries=tuple(decode(blob) for blob in blobs),
            tensors=below(tensors, "extra"),
        )
    except (KeyError, TypeError, ValueError, FedclError) as error:
        raise RunError(f"the checkpoint lacks a part ({type(error).__name__}: {error})") from None
