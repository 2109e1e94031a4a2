"""A buffer as safetensors: the codes as they are stored, and JSON about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl.core.checks import fits
from fedcl.core.errors import DataError
from fedcl.core.targets import check_values
from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.core.types import Normalization, check_decoded, label_dtype
from fedcl.distill.parameterizations import load_decoder
from fedcl.memory.buffer import PIXELS, Block, Budget, Buffer, num_scales

FORMAT = "fedcl buffer 1"
CODINGS = (PIXELS, "float32", "float16", "uint8")
CODES = (torch.float32, torch.float16, torch.uint8)
COLUMNS = ("targets", "label_N", "step_N", "rank_N")


def pack_buffer(buffer: Buffer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say of them."""
    tensors: dict[str, Tensor] = {}
    blocks = []
    for index, block in enumerate(buffer.blocks):
        tensors |= {f"{index}/{name}": getattr(block, name) for name in COLUMNS}
        tensors |= {f"{index}/code/{name}": code for name, code in block.codes.items()}
        tensors |= {f"{index}/constant/{name}": part for name, part in block.constants.items()}
        tensors |= {f"{index}/shared/{name}": part for name, part in block.shared.items()}
        about = {"decoder": block.decoder.spec(), "shape": block.shape_CHW, "num_classes": block.num_classes}
        about["rows_per_image"] = block.rows_per_image
        blocks.append(about | {"normalization": asdict(block.normalization), "coding": block.coding})
    return tensors, {"budget": asdict(buffer.budget), "blocks": blocks}


def unpack_buffer(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Buffer:
    """Undo `pack_buffer`, bit for bit. What is returned can be replayed.

    Raises:
        DataError: a part is missing or contradicts another.
    """
    blocks = []
    with as_data_error("the buffer is damaged"):
        for index, block in enumerate(about["blocks"]):
            own = _below(tensors, f"{index}/")
            channels, height, width = (int(side) for side in block["shape"])
            blocks.append(
                Block(
                    decoder=load_decoder(block["decoder"]),
                    shape_CHW=(channels, height, width),
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
            check_block(blocks[-1])
        if len({block.num_classes for block in blocks}) > 1:
            raise DataError("its blocks differ in the number of classes")
        check_values(Budget, about["budget"], "buffer")
        return Buffer(budget=Budget(**about["budget"]), blocks=tuple(blocks))


def check_block(block: Block) -> None:
    """Read every number of a block that comes from outside, and decode it.

    Raises:
        DataError: its parts differ in their rows or types, or it does not give finite images of its shape.
    """
    for name in ("num_classes", "rows_per_image"):
        value = getattr(block, name)
        if not fits(value, int) or value < 1:
            raise DataError(f"{name} must be a whole number from 1 on, got {value!r}")
    if block.coding not in CODINGS:
        raise DataError(f"its coding must be one of {', '.join(CODINGS)}, got {block.coding!r}")
    dtypes = {"label_N": torch.int64, "step_N": torch.int64, "rank_N": torch.float64}
    for name, dtype in dtypes.items():
        column = getattr(block, name)
        if column.dtype != dtype or column.ndim != 1:
            raise DataError(f"{name} must be {dtype} [N], got {column.dtype} {list(column.shape)}")
    if not len(block):
        raise DataError("it has no rows")
    soft = block.targets.is_floating_point()
    if not soft and block.targets.dtype != label_dtype(block.num_classes):
        raise DataError(f"labels of {block.num_classes} classes cannot be {block.targets.dtype}")
    wanted = (len(block), block.num_classes) if soft else (len(block),)
    if tuple(block.targets.shape) != wanted:
        raise DataError(f"targets must be {list(wanted)}, got {list(block.targets.shape)}")
    for labels in (block.label_N, block.label_N if soft else block.targets):
        if not 0 <= int(labels.min()) <= int(labels.max()) < block.num_classes:
            raise DataError(f"labels must lie in [0, {block.num_classes})")
    scaled = {}
    for name, code in block.codes.items():
        kind = torch.uint8 if block.coding == PIXELS and name == "images" else code.dtype
        if code.ndim == 0 or len(code) != len(block) or code.dtype not in CODES or code.dtype != kind:
            raise DataError(f"'{name}' does not suit {len(block)} rows: {code.dtype} {list(code.shape)}")
        if code.dtype == torch.uint8 and not (block.coding == PIXELS and name == "images"):
            scaled[name] = [len(block), 2, num_scales(code[:1])]
    found = {name: list(part.shape) for name, part in block.constants.items()}
    if found != scaled:
        raise DataError(f"the constants of its codes are {found}, expected {scaled}")
    if not torch.isfinite(block.rank_N).all():
        raise DataError("rank_N holds NaN or infinity")
    check_decoded(block.decode, block.shape_CHW, block.normalization)


def save_buffer(buffer: Buffer, path: Path) -> None:
    """Write one buffer, atomically."""
    tensors, about = pack_buffer(buffer)
    write_tensors(path, FORMAT, tensors, {"buffer": about})


def load_buffer(path: Path) -> Buffer:
    """Read one buffer. What is returned can be replayed.

    Raises:
        DataError: the file is missing, is no buffer, or contradicts itself.
    """
    tensors, about = read_tensors(path, FORMAT)
    with as_data_error(str(path)):
        return unpack_buffer(tensors, about["buffer"])


def _below(tensors: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `head`, without it."""
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
