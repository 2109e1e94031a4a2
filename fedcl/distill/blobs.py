"""Blobs: summaries as they lie in messages, files, checkpoints and memory.

Tensors, each stacked over all entries:

    array.<name>   an array, coded as its `ArraySpec` says
    pixels.<name>  the same of real images, uint8: one byte a pixel on every wire
    constants      float32 [2, K], of all uint8 arrays in order of their names; absent where there are none
    targets        hard labels as their smallest integer type, or soft labels
    num_source     int64 [C], where it is told; never sent, not counted
    row.<name>     a number an entry, of whoever stores the blob; never sent, not counted

The plain values about them are JSON: method, decoder, num_classes, origin, those of `InputSpec.to_json`, coding (of
numbers: float32, float16 or uint8) and, where there are any, extra_rows.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Self

import torch
from torch import Tensor

from fedcl.core.checks import fits
from fedcl.core.coding import NO_CONSTANTS, Coded, Wire
from fedcl.core.errors import DataError, WireError
from fedcl.core.inputs import InputSpec
from fedcl.core.types import ArraySpec, Decoder, Origin, Summary, label_dtype
from fedcl.distill.parameterizations import load_decoder

ARRAY, PIXELS, ROW = "array.", "pixels.", "row."
CONSTANTS, TARGETS, NUM_SOURCE = "constants", "targets", "num_source"
KINDS = {CONSTANTS: "constants", TARGETS: "labels"}  # bytes are counted by these names; all others are images
TYPES = {"method": str, "num_classes": int, "coding": str, "extra_rows": tuple[str, ...], "shape": tuple[int, ...]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Blob:
    """Coded summary: tensors on the CPU, and plain values about them."""

    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    @cached_property
    def decoder(self) -> Decoder:
        return load_decoder(self.meta["decoder"])

    @property
    def inputs(self) -> InputSpec:
        return InputSpec.from_json(self.meta)

    def __len__(self) -> int:
        """Stored entries."""
        return len(self.tensors[TARGETS])

    def spec_of(self, name: str) -> ArraySpec:
        return self.decoder.spec_of(name, self.meta.get("extra_rows", ()))

    def is_row(self, name: str) -> bool:
        """True of a tensor whose first axis is the stored entry."""
        _, dot, array = name.partition(".")
        return name == TARGETS or name.startswith(ROW) or (dot == "." and self.spec_of(array).role == "row")

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by kind: images, labels, constants."""
        found: Counter[str] = Counter()
        for name, tensor in self.tensors.items():
            if name != NUM_SOURCE and not name.startswith(ROW):
                found[KINDS.get(name, "images")] += tensor.nbytes
        return dict(found)

    @property
    def num_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry."""
        rows = [t for name, t in self.tensors.items() if self.is_row(name) and not name.startswith(ROW)]
        return sum(tensor.element_size() * prod(tensor.shape[1:]) for tensor in rows)

    @property
    def shared_bytes(self) -> int:
        """Bytes of what all entries are decoded with."""
        return self.num_bytes - len(self) * self.row_bytes

    def select(self, rows_N: Tensor) -> Self:
        """Some of the entries."""
        return replace(self, tensors={name: t[rows_N] if self.is_row(name) else t for name, t in self.tensors.items()})

    def join(self, other: "Blob") -> Self | None:
        """The entries of both; None where they do not look alike, or do not share what they are decoded with."""
        if self.meta != other.meta or set(self.tensors) != set(other.tensors):
            return None
        tensors = {}
        for name, tensor in self.tensors.items():
            beside, row = other.tensors[name], self.is_row(name)
            alike = (tensor.dtype, tensor.shape[1:]) == (beside.dtype, beside.shape[1:])
            if not (alike if row else torch.equal(tensor, beside)):
                return None
            tensors[name] = torch.cat([tensor, beside]) if row else tensor
        return replace(self, tensors=tensors)


def encode(summary: Summary, wire: Wire | None = None) -> Blob:
    """Code a summary; without a wire it is exact, and `decode` gives it back bit for bit.

    Raises WireError where a number is not finite, or does not fit the wire.
    """
    wire = wire or Wire()
    about = {
        "method": summary.method,
        "decoder": summary.decoder.spec(),
        **summary.inputs.to_json(),
        "num_classes": summary.num_classes,
        "origin": asdict(summary.origin),
        "coding": wire.dtype,
        **({"extra_rows": summary.extra_rows} if summary.extra_rows else {}),
    }
    meta = json.loads(json.dumps(about))  # as a file gives it back: equal to what was read
    return Blob(tensors=encode_tensors(summary, wire), meta=meta)


def encode_tensors(summary: Summary, wire: Wire) -> dict[str, Tensor]:
    """The tensors of a blob, without the plain values about them."""
    tensors: dict[str, Tensor] = {}
    constants: list[Tensor] = []
    for name, array in summary.arrays.items():
        if array.dtype == torch.uint8:
            tensors[PIXELS + name] = array.cpu()
            continue
        try:
            coded = wire.for_array(summary.spec_of(name).coding).encode(array, 1)
        except WireError as error:
            raise WireError(f"summary array '{name}': {error}") from error
        tensors[ARRAY + name] = coded.values
        constants.append(coded.constants)
    if any(block.numel() for block in constants):
        tensors[CONSTANTS] = torch.cat(constants, 1)
    hard, soft = label_dtype(summary.num_classes), wire.for_labels()
    tensors[TARGETS] = soft.encode(summary.targets).values if summary.is_soft else summary.targets.to("cpu", hard)
    if summary.num_source_C is not None:
        tensors[NUM_SOURCE] = summary.num_source_C.cpu()
    return tensors


def decode(blob: Blob) -> Summary:
    """Summary of a blob that may come from outside; `Summary.check` decodes it to images.

    Without "coding" it is of version 0.1.0: exact, with labels of int64.

    Raises:
        FedclError: a part has another type or contradicts another.
        KeyError, TypeError, ValueError: a part is missing or malformed.
    """
    meta = blob.meta
    for name, kind in TYPES.items():
        if name in meta and not fits(meta[name], kind):
            raise DataError(f"'{name}' of a summary cannot be {meta[name]!r}")
    if not isinstance(meta["decoder"], dict) or not all(fits(value, int) for value in meta["origin"].values()):
        raise DataError(f"'decoder' and 'origin' of a summary cannot be {meta['decoder']} and {meta['origin']}")
    classes = meta.get("num_classes", 0)
    return decode_tensors(
        blob.tensors,
        Wire(dtype=meta.get("coding", "float32")),
        label_dtype(classes) if "coding" in meta else torch.int64,
        num_classes=classes,
        inputs=blob.inputs,
        decoder=blob.decoder,
        method=meta["method"],
        extra_rows=tuple(meta.get("extra_rows", ())),
        origin=Origin(**meta["origin"]),
    )


def decode_tensors(
    tensors: Mapping[str, Tensor],
    wire: Wire,
    hard: torch.dtype,
    *,
    decoder: Decoder,
    extra_rows: tuple[str, ...],
    **about: Any,
) -> Summary:
    """Undo `encode_tensors`; `hard` is the type of hard labels, `about` what else a `Summary` is made of."""
    targets = tensors.get(TARGETS)
    if targets is None:
        raise DataError(f"'{TARGETS}' is missing")
    if targets.is_floating_point():
        targets = wire.for_labels().decode(Coded(values=targets, constants=NO_CONSTANTS))
    elif targets.dtype != hard:
        raise WireError(f"hard labels must be {hard}, got {targets.dtype}")
    return Summary(
        arrays=_arrays(tensors, wire, decoder, extra_rows),
        targets=targets if targets.is_floating_point() else targets.long(),
        num_source_C=tensors.get(NUM_SOURCE),
        decoder=decoder,
        extra_rows=extra_rows,
        **about,
    )


def _arrays(
    tensors: Mapping[str, Tensor], wire: Wire, decoder: Decoder, extra_rows: Collection[str]
) -> dict[str, Tensor]:
    """Decoded arrays by name."""
    constants = tensors.get(CONSTANTS, NO_CONSTANTS)
    if constants.ndim != 2 or len(constants) != 2:
        raise WireError(f"quantisation constants must be [2, K], got {list(constants.shape)}")
    arrays: dict[str, Tensor] = {}
    dotted = [full.partition(".") for full in tensors if "." in full and not full.startswith(ROW)]
    for head, _, name in sorted(dotted, key=lambda parts: parts[::-1]):
        values = tensors[full := f"{head}.{name}"]
        if name in arrays or f"{head}." not in (ARRAY, PIXELS):
            raise WireError(f"'{full}' belongs to nothing")
        if full.startswith(PIXELS):
            if values.dtype != torch.uint8:
                raise WireError(f"'{full}' must be uint8, got {values.dtype}")
            arrays[name] = values
            continue
        try:
            coder = wire.for_array(decoder.spec_of(name, extra_rows).coding)
            own = coder.num_channels(tuple(values.shape), 1)
            arrays[name] = coder.decode(Coded(values=values, constants=constants[:, :own]), 1)
        except WireError as error:
            raise WireError(f"array '{name}': {error}") from error
        constants = constants[:, own:]
    if constants.shape[1]:
        raise WireError(f"{constants.shape[1]} quantisation constants belong to nothing")
    return arrays


def below(tensors: Mapping[str, Tensor], folder: str, sep: str = "/") -> dict[str, Tensor]:
    """The tensors called "<folder>/...", without it."""
    head = f"{folder}{sep}"
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}


def pack_blobs(blobs: Sequence[Blob]) -> tuple[dict[str, Tensor], list[Mapping[str, Any]]]:
    """Tensors by name, "<number>/<name>", and the plain values about each blob."""
    tensors = {f"{index}/{name}": t for index, blob in enumerate(blobs) for name, t in blob.tensors.items()}
    return tensors, [blob.meta for blob in blobs]


def unpack_blobs(tensors: Mapping[str, Tensor], metas: Sequence[Mapping[str, Any]]) -> tuple[Blob, ...]:
    """Undo `pack_blobs`."""
    return tuple(Blob(tensors=below(tensors, str(index)), meta=meta) for index, meta in enumerate(metas))
