"""Single fields of Flower records: to and from tensors, checked, and weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.common.constant import SType
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.flower.compat import wire_bytes

R = TypeVar("R")


def sizes(content: RecordDict) -> tuple[dict[str, int], int, int]:
    """What a message weighs: payload bytes by kind, their sum, and wire bytes.

    Payload is measured on what is really there, never on what the sender says of it: the data of an array
    without the head of its .npy file, 8 bytes a number, 1 a truth value, the length of text and bytes, and a list
    as its elements. Names, shapes and hashes are framing. Flower carries equal arrays (and equal chunks of 5 MiB,
    and equal records) of one message once, so they are payload once; framing is never negative. Wire bytes:
    `compat.wire_bytes`.
    """
    whole = wire_bytes(content)
    parts: dict[str, int] = {}
    carried: set[str] = set()  # ids of what the message already holds
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                kind = _kind(key, name)
                parts[kind] = parts.get(kind, 0) + _array_bytes(array, carried)
        elif record.object_id not in carried:
            carried.add(record.object_id)
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            parts[kind] = parts.get(kind, 0) + sum(_scalar_bytes(value) for value in record.values())
    return parts, sum(parts.values()), whole


def _array_bytes(array: Array, carried: set[str]) -> int:
    """Bytes of elements that this array adds to a message with the chunks in `carried`, which gets its own."""
    chunks = array.children
    new = {name: len(chunk.data) for name, chunk in chunks.items() if name not in carried}  # type: ignore[attr-defined]
    carried.update(new)
    first = next(iter(chunks), None)
    return sum(new.values()) - (min(_head_bytes(array.data), new[first]) if first in new else 0)


def _head_bytes(data: bytes) -> int:
    """Length of the head of a .npy file; 0 if this is none."""
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        return 0
    width = 2 if data[6:7] == b"\x01" else 4  # of the length, which stands after the magic word and the version
    return 8 + width + int.from_bytes(data[8 : 8 + width], "little")


def _kind(key: str, name: str) -> str:
    if key == "weights":
        return "weights"
    if key == "constants" or name == "constants":
        return "constants"
    return "labels" if name == "targets" else "images"


def _scalar_bytes(value: object) -> int:
    if isinstance(value, list):
        return sum(_element_bytes(element) for element in value)
    if isinstance(value, bool):
        return 1
    if isinstance(value, bytes):
        return len(value)
    return len(value.encode()) if isinstance(value, str) else 8


def _element_bytes(value: object) -> int:
    """As a value of its own, but Flower packs the whole numbers of a list: 7 bits a byte."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, -(-value.bit_length() // 7))
    return _scalar_bytes(value)


class Constants:
    """Quantisation constants [2, K] of one record, handed out field by field in the record's order."""

    def __init__(self, record: Mapping[str, Any], name: str) -> None:
        self.rest = load_tensor(record, name) if name in record else torch.zeros(2, 0)
        if self.rest.ndim != 2 or len(self.rest) != 2:
            raise WireError(f"quantisation constants must be [2, K], got {list(self.rest.shape)}")

    def take(self, channels: int) -> Tensor:
        """The next [2, channels]; fewer if the sender sent too few, which decoding refuses."""
        block, self.rest = self.rest[:, :channels], self.rest[:, channels:]
        return block

    def finish(self) -> None:
        if self.rest.shape[1]:
            raise WireError(f"{self.rest.shape[1]} quantisation constants belong to nothing")


def to_array(values: Tensor | np.ndarray) -> Array:
    """What `Array(values)` is, built directly: Flower's constructor costs several times as much."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    dtype, shape = str(array.dtype), tuple(array.shape)
    return Array(dtype, shape, SType.NUMPY, _npy_header(dtype, shape) + array.tobytes())


def to_record(arrays: Mapping[str, Array]) -> ArrayRecord:
    """What `ArrayRecord(arrays)` is, without copying each array's object."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def load_array(record: Mapping[str, Any], name: str) -> np.ndarray:
    """A writable copy.

    Raises:
        WireError: it is missing, unreadable, or not what it says it is.
    """
    if name not in record:
        raise WireError(f"'{name}' is missing; there is {first_few(record)}")
    try:
        sent: Array = record[name]
        header = _npy_header(sent.dtype, tuple(sent.shape))
        if sent.data.startswith(header):  # as `to_array` writes it; numpy parses headers slowly
            return np.frombuffer(sent.data, sent.dtype, offset=len(header)).reshape(sent.shape).copy()
        array = sent.numpy()
    except Exception as error:
        raise WireError(f"'{name}' is not a readable array ({error})") from error
    if (str(array.dtype), array.shape) != (sent.dtype, tuple(sent.shape)):
        raise WireError(f"'{name}' says {sent.dtype} {sent.shape}, holds {array.dtype} {array.shape}")
    return array


@lru_cache(maxsize=1024)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The head of the .npy file that `numpy.save` makes of a C-ordered array."""
    buffer = BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def load_tensor(record: Mapping[str, Any], name: str) -> Tensor:
    try:
        return torch.from_numpy(load_array(record, name))
    except (TypeError, ValueError) as error:
        raise WireError(f"'{name}' has a dtype that no tensor has ({error})") from error


def take_record(content: RecordDict, key: str, kind: type[R]) -> R:
    record = content.get(key)
    if not isinstance(record, kind):
        raise WireError(f"'{key}' is missing; there is {first_few(content)}")
    return record


def scalars(kind: type[R], values: Mapping[str, Any]) -> R:
    """A ConfigRecord or a MetricRecord of plain values."""
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str):
            raise WireError(
                f"'{name}' is a {type(value).__name__}; only numbers, truth values and strings are sent as scalars, "
                "tensors as weights"
            )
    return kind(dict(values))  # type: ignore[call-arg]


def error_prefix(what: str, function: Callable[..., R], *arguments: Any) -> R:
    """The call, with `what` in front of its WireError."""
    try:
        return function(*arguments)
    except WireError as error:
        raise WireError(f"{what}: {error}") from error


def first_few(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    shown = list(names)
    return ", ".join(repr(name) for name in shown[:4]) + (", ..." if len(shown) > 4 else "") or "nothing"
