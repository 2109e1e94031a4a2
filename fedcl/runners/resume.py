"""Checkpoints: all that a run needs to go on after its last finished step or round.

One file, `checkpoint.safetensors`, replaced atomically: tensors by name, and the record so far as JSON in its
metadata. So a kill at any moment leaves either the checkpoint before or the one after. Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcl.buffer_files import pack_buffer, unpack_buffer
from fedcl.checks import spell
from fedcl.continual import State
from fedcl.distill.parameterizations import load_decoder
from fedcl.errors import FedclError, RunError
from fedcl.federated import ServerState
from fedcl.ledger import Ledger, Transfer
from fedcl.record import RECORD, open_folder, read_record, write_atomically
from fedcl.types import Normalization, Origin, Summary

NAME = "checkpoint.safetensors"
FORMAT = "fedcl checkpoint 1"
SHOWN = 5  # differing keys that a refusal names


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after `done` steps (or rounds)."""

    done: int
    record: Mapping[str, Any]  # as it stood then
    tensors: Mapping[str, Tensor]  # of the state
    about: Mapping[str, Any] = field(default_factory=dict)  # of the state: what JSON can say


def write_checkpoint(out: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint."""
    run = {"done": checkpoint.done, "record": checkpoint.record, "about": checkpoint.about}
    text = json.dumps(run | {"order": list(checkpoint.tensors)})  # safetensors sorts; sums depend on order
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.tensors.items()}
    write_atomically(out / NAME, save(tensors, {"format": FORMAT, "run": text}))


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
    differing = differences(read_record(out).get("config") or {}, config)
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise RunError(
            f"out={out} holds an unfinished run of another configuration: {'; '.join(differing[:SHOWN])}{more}. "
            "Type the same values to go on with it, or another out=..."
        )
    return read_checkpoint(out) if (out / NAME).exists() else None


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
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format says {metadata.get('format')!r}, expected {FORMAT!r}")
        run = json.loads(metadata["run"])
        ordered = {name: tensors[name] for name in run["order"]}
        return Checkpoint(done=run["done"], record=run["record"], tensors=ordered, about=run["about"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is no readable checkpoint ({error}); delete {out} to start again") from None


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


def pack_server(state: ServerState, ledger: Ledger) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A server's state and the ledger as tensors and JSON."""
    tensors = {f"weights/{name}": tensor for name, tensor in (state.weights or {}).items()}
    tensors |= {f"extra/{name}": tensor for name, tensor in state.extra.items()}
    summaries = []
    for index, summary in enumerate(state.summaries):
        tensors |= {f"summary/{index}/array/{name}": array for name, array in summary.arrays.items()}
        tensors[f"summary/{index}/targets"] = summary.targets
        if summary.num_source_C is not None:
            tensors[f"summary/{index}/source"] = summary.num_source_C
        summaries.append(
            {
                "decoder": summary.decoder.spec(),
                "shape": summary.shape_CHW,
                "num_classes": summary.num_classes,
                "normalization": asdict(summary.normalization),
                "method": summary.method,
                "origin": asdict(summary.origin),
            }
        )
    rows = [asdict(row) for row in ledger.rows]
    return tensors, {"has_weights": state.weights is not None, "summaries": summaries, "ledger": rows}


def unpack_server(checkpoint: Checkpoint) -> tuple[ServerState, Ledger]:
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
                    num_source_C=own.get("source"),
                    num_classes=of.get("num_classes", 0),
                    shape_CHW=tuple(of["shape"]),
                    normalization=Normalization(**of["normalization"]),
                    decoder=load_decoder(of["decoder"]),
                    method=of["method"],
                    origin=Origin(**of["origin"]),
                )
            )
        state = ServerState(
            weights=below(tensors, "weights") if about["has_weights"] else None,
            summaries=tuple(summaries),
            extra=below(tensors, "extra"),
        )
        return state, Ledger(rows=tuple(Transfer(**row) for row in about["ledger"]))
    except (KeyError, TypeError, ValueError, FedclError) as error:
        raise RunError(f"the checkpoint lacks a part ({type(error).__name__}: {error})") from None
