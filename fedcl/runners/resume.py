"""Checkpoints: all that a run needs to go on after its last finished step or round.

One file, `checkpoint.safetensors`, replaced atomically: tensors by name, and as JSON in its metadata the record without
its rows and the marks of the files that grow (see `fedcl/journal.py`). So a kill at any moment leaves either the
checkpoint before or the one after, and what the files have beyond its marks is cut off. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcl.buffer_files import pack_buffer, unpack_buffer
from fedcl.checks import spell
from fedcl.continual import State
from fedcl.distill.parameterizations import load_decoder
from fedcl.errors import FedclError, RunError
from fedcl.federated import ServerState
from fedcl.journal import Journal
from fedcl.record import RECORD, fill, open_folder, parse_rows, read_record, write_atomically
from fedcl.types import Normalization, Origin, Summary

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


def write_checkpoint(out: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint."""
    run = {name: getattr(checkpoint, name) for name in ("done", "record", "about", "marks")}
    text = json.dumps(run | {"order": list(checkpoint.tensors)})  # safetensors sorts; sums depend on order
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint.tensors.items()
    }
    about = {"format": FORMAT, "run": text, "sha256": digest(text, tensors)}
    write_atomically(out / NAME, save(tensors, about))


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a checkpoint's content, so that a damaged file is refused and never half understood."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def begin(out: Path, config: Mapping[str, Any]) -> Checkpoint | None:
    """Open the folder of a run: None to start it, a checkpoint to go on with it.

    Raises:
        RunError: it holds a finished run, an unfinished one of another configuration, or cannot be used.
    """
    open_folder(out)
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
    """The checkpoint in a folder.

    Raises:
        RunError: it cannot be read.
    """
    path = out / NAME
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata.get("format") == FORMAT and metadata["sha256"] != digest(metadata["run"], tensors):
            raise ValueError("its content was changed since it was written")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is no readable checkpoint ({error}); delete {out} to start again") from None
    if metadata.get("format") != FORMAT:
        raise RunError(
            f"{path} is of another version of fedcl (its format is {metadata.get('format')!r}, this one goes on with "
            f"{FORMAT!r}); finish the run with that version, delete {out} to start again, or type another out=..."
        )
    run = json.loads(metadata["run"])
    ordered = {name: tensors[name] for name in run.pop("order")}
    return Checkpoint(tensors=ordered, **run)


def resume_rows(checkpoint: Checkpoint, rows: Journal) -> dict[str, Any]:
    """The record as it stood at the checkpoint; later rows are cut off.

    Raises:
        RunError: the file of rows was damaged.
    """
    return fill(checkpoint.record, parse_rows(resume_journal(checkpoint, rows), rows.path))


def resume_journal(checkpoint: Checkpoint, journal: Journal) -> str:
    """A journal as it stood at the checkpoint, and its text.

    Raises:
        RunError: it was damaged.
    """
    return journal.resume(checkpoint.marks[journal.path.name])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """ "seed was 0, is 1" for every key whose value differs; the chosen names of groups say nothing more."""
    old, new = flat(json.loads(json.dumps(before))), flat(json.loads(json.dumps(now)))
    missing = object()
    found = []
    for key in sorted({*old, *new}):
        was, now_is = old.get(key, missing), new.get(key, missing)
        if was != now_is and not key.startswith("choices."):
            was, now_is = ("absent" if value is missing else spell(value) for value in (was, now_is))
            found.append(f"{key} was {was}, is {now_is}")
    return found


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted name."""
    if not isinstance(node, Mapping):
        return {path: node}
    return {
        name: leaf
        for key, value in node.items()
        for name, leaf in flat(value, f"{path}.{key}" if path else str(key)).items()
    }


def pack_state(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A continual learner's state as tensors and JSON."""
    tensors, about = pack_buffer(state.buffer)
    return {
        **{f"weights/{name}": tensor for name, tensor in state.weights.items()},
        **{f"extra/{name}": tensor for name, tensor in state.extra.items()},
        **{f"buffer/{name}": tensor for name, tensor in tensors.items()},
    }, {"buffer": about}


def unpack_state(checkpoint: Checkpoint) -> State:
    """Undo `pack_state`, bit for bit."""
    tensors = checkpoint.tensors
    return State(
        weights=below(tensors, "weights"),
        extra=below(tensors, "extra"),
        buffer=unpack_buffer(below(tensors, "buffer"), checkpoint.about["buffer"]),
    )


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors called "<prefix>/...", without it."""
    head = f"{prefix}/"
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}


def pack_server(state: ServerState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A server's state as tensors and JSON."""
    tensors = {f"weights/{name}": tensor for name, tensor in (state.weights or {}).items()}
    tensors |= {f"extra/{name}": tensor for name, tensor in state.extra.items()}
    summaries = []
    for index, summary in enumerate(state.summaries):
        tensors |= {f"summary/{index}/array/{name}": array for name, array in summary.arrays.items()}
        tensors |= {f"summary/{index}/targets": summary.targets, f"summary/{index}/source": summary.num_source_C}
        summaries.append(
            {
                "decoder": summary.decoder.spec(),
                "shape": summary.shape_CHW,
                "normalization": asdict(summary.normalization),
                "method": summary.method,
                "origin": asdict(summary.origin),
            }
        )
    return tensors, {"has_weights": state.weights is not None, "summaries": summaries}


def unpack_server(checkpoint: Checkpoint) -> ServerState:
    """Undo `pack_server`, bit for bit.

    Raises:
        RunError: a part is missing.
    """
    about, tensors = checkpoint.about, checkpoint.tensors
    try:
        summaries = []
        for index, of in enumerate(about["summaries"]):
            own = below(tensors, f"summary/{index}")
            summaries.append(
                Summary(
                    arrays=below(own, "array"),
                    targets=own["targets"],
                    num_source_C=own["source"],
                    shape_CHW=tuple(of["shape"]),
                    normalization=Normalization(**of["normalization"]),
                    decoder=load_decoder(of["decoder"]),
                    method=of["method"],
                    origin=Origin(**of["origin"]),
                )
            )
        return ServerState(
            weights=below(tensors, "weights") if about["has_weights"] else None,
            summaries=tuple(summaries),
            extra=below(tensors, "extra"),
        )
    except (KeyError, TypeError, ValueError, FedclError) as error:
        raise RunError(f"the checkpoint lacks a part ({type(error).__name__}: {error})") from None
