"""Tensor files: safetensors with JSON about them. Equal content is equal bytes, and nothing in them runs.

The metadata is {"format": FORMAT, name: JSON, ...}. Whatever is wrong with a file is one `DataError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcl.errors import DataError, FedclError
from fedcl.record import write_atomically

# What Python and torch raise where a part is missing, has another type or does not fit.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def write_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and plain values, atomically.

    Args:
        kind: what the file says of itself, e.g. "fedcl summary 1".
        about: plain values by name, without NaN and infinity.
    """
    metadata = {"format": kind} | {name: json.dumps(value, allow_nan=False) for name, value in about.items()}
    write_atomically(path, pack({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def pack(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file. The library writes metadata in the order of a hash; here it is sorted."""
    plain = memoryview(save(tensors))
    end = 8 + int.from_bytes(plain[:8], "little")  # of the header: its length, then JSON
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(bytes(plain[8:end]))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return b"".join([len(text).to_bytes(8, "little"), text, plain[end:]])


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by name, and the values about them.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    with open_tensors(path, kind) as file:
        texts = {name: text for name, text in file.metadata().items() if name != "format"}
        about = {name: json.loads(text, parse_constant=_refuse) for name, text in texts.items()}
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a dict)


@contextmanager
def open_tensors(path: Path, kind: str) -> Iterator[Any]:
    """An open file, of which the block reads parts.

    Raises:
        DataError: the file is missing, damaged or of another kind, or lacks what the block reads.
    """
    with as_data_error(f"{path} is no readable '{kind}' file"):
        try:
            with safe_open(path, "pt") as file:
                found = (file.metadata() or {}).get("format")
                if found != kind:
                    raise DataError(f"its format says {found!r}")
                yield file
        except FileNotFoundError:
            raise DataError("there is none") from None
        except (OSError, SafetensorError) as error:
            raise DataError(str(error)) from None


@contextmanager
def as_data_error(what: str) -> Iterator[None]:
    """Whatever the block finds wrong with values from outside, as one `DataError` that begins with `what`."""
    try:
        yield
    except FedclError as error:
        raise DataError(f"{what}: {error}") from None
    except MALFORMED as error:
        raise DataError(f"{what} ({type(error).__name__}: {error})") from None


def _refuse(constant: str) -> float:
    raise DataError(f"it holds {constant}, which fedcl never writes")
