"""Buffer files: the blobs as they are stored, with their bookkeeping."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl.core.errors import DataError
from fedcl.core.targets import check_values
from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.distill.blobs import Blob, decode, pack_blobs, unpack_blobs
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import COLUMNS, Buffer

FORMAT = "fedcl buffer 2"


def pack_buffer(buffer: Buffer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say of them."""
    tensors, blobs = pack_blobs(buffer.blocks)
    return tensors, {"budget": asdict(buffer.budget), "blobs": blobs}


def unpack_buffer(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Buffer:
    """Undo `pack_buffer`, bit for bit. Raises DataError where it could not be replayed."""
    with as_data_error("the buffer is damaged"):
        blocks = unpack_blobs(tensors, about["blobs"])
        for block in blocks:
            _check(block)
        if len({block.meta["num_classes"] for block in blocks}) > 1:
            raise DataError("its blocks differ in the number of classes")
        check_values(Budget, about["budget"], "buffer")
        return Buffer(budget=Budget(**about["budget"]), blocks=blocks)


def _check(block: Blob) -> None:
    """Read every number of a block that comes from outside, and decode it."""
    summary = decode(block)
    columns = {name: block.tensors[f"row.{name}"] for name in COLUMNS}
    for name, column in columns.items():
        if column.dtype != COLUMNS[name] or tuple(column.shape) != (len(block),):
            raise DataError(f"{name} must be {COLUMNS[name]} [{len(block)}], got {column.dtype} {list(column.shape)}")
    if not len(block):
        raise DataError("it has no rows")
    if not 0 <= int(columns["label_N"].min()) <= int(columns["label_N"].max()) < summary.num_classes:
        raise DataError(f"labels must lie in [0, {summary.num_classes})")
    if not torch.isfinite(columns["rank_N"]).all():
        raise DataError("rank_N holds NaN or infinity")
    summary.check()


def save_buffer(buffer: Buffer, path: Path) -> None:
    """Write one buffer, atomically."""
    tensors, about = pack_buffer(buffer)
    write_tensors(path, FORMAT, tensors, {"buffer": about})


def load_buffer(path: Path) -> Buffer:
    """Read one buffer. Raises DataError where the file is missing, is no buffer, or contradicts itself."""
    tensors, about = read_tensors(path, FORMAT)
    with as_data_error(str(path)):
        return unpack_buffer(tensors, about["buffer"])
