"""Weighing: bytes of a message, from what is really in it, never from what its sender says.

Flower carries a message as the objects nested in it (records, arrays, chunks of 5 MiB), equal ones once, each as
"<class> <ids of its children> <length of its body>", a zero byte and its body. Lengths need no hashes: this adds them
up, and `tests/flower/test_compat.py` holds the sum against Flower's own serialisation.
"""

import json
from collections.abc import Hashable, Sequence
from json.encoder import encode_basestring_ascii as quoted  # a text as JSON has it
from typing import NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedcl.flower.compat import CHUNK_BYTES

_ID = 64  # characters of an object's id, a SHA-256


class Sizes(NamedTuple):
    """Weight of a message."""

    parts: dict[str, int]  # payload bytes by kind
    payload_bytes: int
    wire_bytes: int


def sizes(content: RecordDict) -> Sizes:
    """Payload bytes by kind, their sum, and wire bytes of a message.

    Payload is the data of an array without the head of its .npy file, 8 bytes a number, 1 a truth value, the length
    of text and bytes, and a list as its elements. Names, shapes and hashes are framing. What travels once is payload
    once; framing is never negative. The envelope (run and node ids, times) is left out of the wire bytes, because it
    is drawn at random and its length varies.

    Raises:
        Exception: nothing could carry the message: a whole number of more than 64 bits, say.
    """
    carried = _Carried()
    parts: dict[str, int] = {}
    records = []
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = []
            for name, array in record.items():
                number, size = carried.array(array)
                arrays.append(number)
                kind = _kind(key, name)
                parts[kind] = parts.get(kind, 0) + size
            records.append(carried.names(record, arrays))
        else:
            data, known = record.deflate(), len(carried.numbers)
            records.append(carried.add(("", data), len(data)))
            if len(carried.numbers) > known:
                parts["scalars"] = parts.get("scalars", 0) + sum(_scalar_bytes(value) for value in record.values())
    carried.names(content, records)
    return Sizes(parts, sum(parts.values()), carried.bytes)


class _Carried:
    """The different objects of a message, and their bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.numbers: dict[Hashable, int] = {}  # what an object is -> its number
        self._first: dict[int, bytes | memoryview] = {}  # length -> the first chunk of it

    def add(self, identity: Hashable, size: int) -> int:
        """The number of an object, which costs `size` bytes if the message does not hold it yet."""
        number = self.numbers.get(identity)
        if number is None:
            number = self.numbers[identity] = len(self.numbers)
            self.bytes += size
        return number

    def array(self, array: Array) -> tuple[int, int]:
        """The number of an array, and the bytes of its elements that the message did not hold yet."""
        data, known = array.data, len(self.numbers)
        pieces: list[bytes | memoryview] = [data] if data else []
        if len(data) > CHUNK_BYTES:
            pieces = [memoryview(data)[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        places: dict[int, int] = {}  # of the different chunks
        order, new = [], 0
        for piece in pieces:
            chunk = self._chunk(piece)
            if chunk >= known and chunk not in places:
                new += len(piece) - (0 if order else min(head_bytes(data), len(piece)))
            order.append(places.setdefault(chunk, len(places)))
        shape = json.dumps(array.shape) if {*map(type, array.shape)} - {int} else [*array.shape]
        about = f'"dtype": {quoted(array.dtype)}, "shape": {shape}, "stype": {quoted(array.stype)}'
        body = f'{{{about}, "arraychunk_ids": {order}}}'
        return self.add((body, *places), _framed(type(array).__qualname__, len(places), len(body))), new

    def _chunk(self, piece: bytes | memoryview) -> int:
        """The number of a chunk. A hash reads it all, so it is asked for only beside another one of that length."""
        length = len(piece)
        first = self._first.setdefault(length, piece)
        identity = length if first is piece or first == piece else piece
        return self.add(identity, _framed("ArrayChunk", 0, length))

    def names(self, record: ArrayRecord | RecordDict, children: Sequence[int]) -> int:
        """The number of a record of named objects: its body is the JSON of {name: id}."""
        names = ", ".join(map(quoted, record))
        body = len(names) + len("{}") + len(children) * len(f': "{"":{_ID}}"')
        kind = type(record).__qualname__
        return self.add((kind, names, *children), _framed(kind, len(set(children)), body))


def _framed(kind: str, children: int, body: int) -> int:
    """Bytes of an object: its class, the ids of its different children joined by commas, the length, the body."""
    ids = max(0, children * (_ID + 1) - 1)
    return len(kind) + 1 + ids + 1 + len(str(body)) + 1 + body


def head_bytes(data: bytes) -> int:
    """Length of the head of a .npy file; 0 if this is none."""
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        return 0
    width = 2 if data[6:7] == b"\x01" else 4  # of the length, which stands after the magic word and the version
    return 8 + width + int.from_bytes(data[8 : 8 + width], "little")


def _kind(key: str, name: str) -> str:
    if key == "weights":
        return "weights"
    if key in ("tensors", "integers"):
        return f"tensors.{name}"
    if key == "constants" or name == "constants":
        return "constants"
    return "labels" if name == "targets" else "images"


def _scalar_bytes(value: object, in_list: bool = False) -> int:
    """Flower packs the whole numbers of a list: 7 bits a byte."""
    if isinstance(value, list):
        return sum(_scalar_bytes(element, in_list=True) for element in value)
    if isinstance(value, bool):
        return 1
    if isinstance(value, str | bytes):
        return len(value.encode() if isinstance(value, str) else value)
    return max(1, -(-value.bit_length() // 7)) if in_list and isinstance(value, int) else 8
