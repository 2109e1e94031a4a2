"""Tensor files: safetensors with JSON about them. Equal content is equal bytes, and nothing in them runs.

The metadata is {"format": KIND, "sha256": of all the rest, name: JSON, ...}. Whatever is wrong with a file is one
`DataError`; files of other programs need no sha256.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from fedcl.core.errors import DataError, FedclError
from fedcl.core.record import write_atomically

# What Python and torch raise where a part is missing, has another type or does not fit.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def write_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, and plain values `about` them without NaN, atomically; `kind` is e.g. "fedcl summary 1"."""
    metadata = {"format": kind} | {name: json.dumps(value, allow_nan=False) for name, value in about.items()}
    write_atomically(path, pack({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def pack(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file. The library writes metadata in the order of a hash; here it is sorted."""
    header, body = split(save(tensors))
    header = {"__metadata__": dict(sorted(metadata.items())), **header}
    header["__metadata__"]["sha256"] = checksum(header, body)
    text = to_json(header)
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return b"".join([len(text).to_bytes(8, "little"), text, body])


def split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header of a safetensors file, and the bytes of its tensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), memoryview(data)[end:]


def to_json(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def checksum(header: Mapping[str, Any], body: memoryview) -> str:
    """SHA-256 of a file's content, whatever its header says that it is."""
    bare = {name: text for name, text in header["__metadata__"].items() if name != "sha256"}
    found = hashlib.sha256(to_json({**header, "__metadata__": bare}))
    found.update(body)
    return found.hexdigest()


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by name, and the values about them; DataError where it is damaged or of another kind."""
    with _reading(path, kind):
        data = path.read_bytes()
        tensors = load(data)
        header, body = split(data)
        metadata = header.get("__metadata__", {})
        _check_kind(metadata, kind)
        if metadata.get("sha256", "") not in ("", checksum(header, body)):
            raise DataError("its content was changed since it was written")
        texts = {name: text for name, text in metadata.items() if name not in ("format", "sha256")}
        return tensors, {name: json.loads(text, parse_constant=_refuse) for name, text in texts.items()}


@contextmanager
def open_tensors(path: Path, kind: str) -> Iterator[Any]:
    """An open file, of which the block reads parts; its checksum is not looked at. DataError as `read_tensors`."""
    with _reading(path, kind), safe_open(path, "pt") as file:
        _check_kind(file.metadata() or {}, kind)
        yield file


@contextmanager
def as_data_error(what: str) -> Iterator[None]:
    """Whatever the block finds wrong with values from outside, as one `DataError` that begins with `what`."""
    try:
        yield
    except FedclError as error:
        raise DataError(f"{what}: {error}") from None
    except MALFORMED as error:
        raise DataError(f"{what} ({type(error).__name__}: {error})") from None


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    with as_data_error(f"{path} is no readable '{kind}' file"):
        try:
            yield
        except FileNotFoundError:
            raise DataError("there is none") from None
        except (OSError, SafetensorError) as error:
            raise DataError(str(error)) from None


def _check_kind(metadata: Mapping[str, str], kind: str) -> None:
    if metadata.get("format") != kind:
        raise DataError(f"its format says {metadata.get('format')!r}")


def _refuse(constant: str) -> float:
    raise DataError(f"it holds {constant}, which fedcl never writes")
