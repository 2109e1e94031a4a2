"""A buffer as safetensors: the codes as they are stored, and JSON about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcl.buffer import Block, Budget, Buffer
from fedcl.distill.parameterizations import load_decoder
from fedcl.errors import DataError
from fedcl.record import write_atomically
from fedcl.types import Normalization

FORMAT = "fedcl buffer 1"
COLUMNS = ("targets", "label_N", "step_N", "rank_N")


def pack_buffer(buffer: Buffer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say of them."""
    tensors: dict[str, Tensor] = {}
    blocks = []
    for index, block in enumerate(buffer.blocks):
        tensors |= {f"{index}/{name}": getattr(block, name).contiguous() for name in COLUMNS}
        tensors |= {f"{index}/code/{name}": code.contiguous() for name, code in block.codes.items()}
        tensors |= {f"{index}/constant/{name}": part.contiguous() for name, part in block.constants.items()}
        tensors |= {f"{index}/shared/{name}": part.contiguous() for name, part in block.shared.items()}
        about = {"decoder": block.decoder.spec(), "shape": block.shape_CHW, "num_classes": block.num_classes}
        about["rows_per_image"] = block.rows_per_image
        blocks.append(about | {"normalization": asdict(block.normalization), "coding": block.coding})
    return tensors, {"budget": asdict(buffer.budget), "blocks": blocks}


def unpack_buffer(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Buffer:
    """Undo `pack_buffer`, bit for bit.

    Raises:
        DataError: a part is missing or contradicts another.
    """
    blocks = []
    try:
        for index, block in enumerate(about["blocks"]):
            own = _below(tensors, f"{index}/")
            blocks.append(
                Block(
                    decoder=load_decoder(block["decoder"]),
                    shape_CHW=tuple(block["shape"]),
                    normalization=Normalization(**block["normalization"]),
                    num_classes=block["num_classes"],
                    coding=block["coding"],
                    rows_per_image=block["rows_per_image"],
                    codes=_below(own, "code/"),
                    constants=_below(own, "constant/"),
                    shared=_below(own, "shared/"),
                    **{name: own[name] for name in COLUMNS},
                )
            )
        return Buffer(budget=Budget(**about["budget"]), blocks=tuple(blocks))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the buffer lacks a part ({type(error).__name__}: {error})") from None


def save_buffer(buffer: Buffer, path: Path) -> None:
    """Write one buffer, atomically."""
    tensors, about = pack_buffer(buffer)
    write_atomically(path, save(tensors, {"format": FORMAT, "buffer": json.dumps(about)}))


def load_buffer(path: Path) -> Buffer:
    """Read one buffer.

    Raises:
        DataError: the file is missing, or is no buffer.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is no readable buffer ({error})") from None
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is not a '{FORMAT}' file: its format says {metadata.get('format')!r}")
    return unpack_buffer(tensors, json.loads(metadata["buffer"]))


def _below(tensors: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `head`, without it."""
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
