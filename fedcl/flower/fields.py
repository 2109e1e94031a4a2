"""Single fields of Flower records: to and from tensors, checked."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array
from torch import Tensor

from fedcl.core.errors import FedclError, WireError
from fedcl.flower.compat import NUMPY, items_of, new_array
from fedcl.flower.weighing import head_bytes

R = TypeVar("R")
# what an array may hold, and its bytes
DTYPES = {
    name: np.dtype(name).itemsize
    for name in ("float64", "float32", "float16", "bool", "uint8", "int64", "int32", "int16", "int8")
}
MOST_AXES = 8
SCALARS = (int, float, str)  # a truth value is an int


def to_array(values: Tensor | np.ndarray) -> Array:
    """What `Array(values)` is, built directly: Flower's constructor costs several times as much."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    dtype = _dtype_name(array.dtype)
    body = array.data if array.flags.c_contiguous else array.tobytes()
    return new_array(dtype, array.shape, b"".join((_npy_header(dtype, array.shape), body)))


@lru_cache
def _dtype_name(dtype: np.dtype) -> str:
    return str(dtype)


@lru_cache(maxsize=1024)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The head of the .npy file that `numpy.save` makes of a C-ordered array."""
    buffer = BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def check_array(sent: Any, name: str) -> bytes:
    """The head of an array as `to_array` writes it, and nothing else: plain numbers, C order, little-endian.

    Only names of dtypes, the shape and lengths are looked at; no memory is booked, whatever the sender claims.

    Raises:
        WireError: it is no array, or its bytes are not what it says of itself.
    """
    if not isinstance(sent, Array) or not isinstance(sent.data, bytes) or sent.stype != NUMPY:
        raise WireError(f"'{name}' is not an array of numbers")
    shape, dtype, data = sent.shape, sent.dtype, sent.data
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(f"'{name}' has the dtype {str(dtype)[:40]!r}; one of {', '.join(DTYPES)} can be sent")
    plain = isinstance(shape, (tuple, list)) and len(shape) <= MOST_AXES and {*map(type, shape)} <= {int}
    if not plain or (shape and not 0 <= min(shape) <= max(shape) < 2**31):
        raise WireError(f"'{name}' has the shape {str(shape)[:40]}, which no array has")
    head, wanted = _npy_header(dtype, tuple(shape)), math.prod(shape) * DTYPES[dtype]
    if not data.startswith(head) or len(data) != len(head) + wanted:
        came = len(data) - head_bytes(data)
        raise WireError(f"'{name}' says {dtype} {list(shape)}, {wanted} bytes, and is not such a file of {came} bytes")
    return head


def load_array(record: Mapping[str, Any], name: str) -> np.ndarray:
    """A writable copy.

    Raises:
        WireError: it is missing, unreadable, or not what it says it is.
    """
    if name not in record:
        raise WireError(f"'{name}' is missing; there is {first_few(record)}")
    sent: Array = record[name]
    head = check_array(sent, name)
    return np.frombuffer(sent.data, sent.dtype, offset=len(head)).reshape(sent.shape).copy()


def load_tensor(record: Mapping[str, Any], name: str) -> Tensor:
    return torch.from_numpy(load_array(record, name))


def check_scalar(name: str, value: object) -> None:
    """Raise WireError unless it is a truth value, a finite number of at most 64 bits, or a text."""
    if not isinstance(value, SCALARS):
        raise WireError(
            f"scalar '{name}' is a {type(value).__name__}; only numbers, truth values and strings are sent as scalars, "
            "tensors as tensors"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise WireError(f"scalar '{name}' is a whole number of {value.bit_length()} bits; 64 with the sign can be sent")
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError(f"scalar '{name}' must be a finite number, got {value!r}")


def take_record(content: Mapping[str, Any], key: str, kind: type[Mapping[str, Any]]) -> dict[str, Any]:
    """The items of a record of that kind; WireError where there is none."""
    record: Any = content.get(key)
    if not isinstance(record, kind):
        raise WireError(f"'{key}' is missing; there is {first_few(content)}")
    return items_of(record)


def error_prefix(what: str, function: Callable[..., R], *arguments: Any) -> R:
    """The call, with `what` in front of what it refuses."""
    try:
        return function(*arguments)
    except FedclError as error:
        raise WireError(f"{what}: {error}") from error


def first_few(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    shown = list(names)
    return ", ".join(repr(name) for name in shown[:4]) + (", ..." if len(shown) > 4 else "") or "nothing"
