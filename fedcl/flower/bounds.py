"""Bounds on the raw records of a reply, looked at before anything of it is decoded.

What is looked at: which records there are, what each array says of itself against the bytes that came, scalars,
the number of bytes, summaries and decoded images, the decoder's numbers, and the number of examples. Nothing here
books memory by what a sender claims; the cost is one look at each array's head.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedcl.core.errors import FedclError, WireError
from fedcl.core.types import label_dtype
from fedcl.distill.context import Context
from fedcl.distill.parameterizations import load_decoder
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.federated.limits import Limits
from fedcl.flower.fields import check_array, check_scalar, error_prefix, first_few, load_array, take_record

EXAMPLES = "num-examples"  # Flower's own name for the weight of a reply
# The records that a reply may hold, by the first part of their names (see the codec)
RECORDS: dict[str, type] = {
    **dict.fromkeys(("weights", "constants", "tensors", "integers", "summary"), ArrayRecord),
    **dict.fromkeys(("metrics",), MetricRecord),
    **dict.fromkeys(("scalars", "spec"), ConfigRecord),
}
_NUMBERED = re.compile(r"(summary|spec)\.(0|[1-9]\d{0,5})")
LONGEST_NAME = 200


def check_bounds(content: Any, limits: Limits, *, examples: int, ctx: Context) -> None:
    """Hold the content of one reply against its limits.

    Args:
        content: as it came; nothing of it is trusted.
        limits: of this run, see `Limits.for_run`.
        examples: that the client may say it stands for.

    Raises:
        WireError: what is wrong; the client has failed.
    """
    if not isinstance(content, RecordDict):
        raise WireError(f"a reply holds records, got a {type(content).__name__}")
    came = 0
    for key, record in content.items():
        _check_key(key, record, limits)
        for name, value in record.items():
            if not isinstance(name, str) or len(name) > LONGEST_NAME:
                raise WireError(f"'{key}' has a name of more than {LONGEST_NAME} characters, or none")
            came += len(name) + 8
            if isinstance(value, Array):
                check_array(value, name)
                came += len(value.data)
            else:
                check_scalar(name, value)
                came += len(value) if isinstance(value, str) else 0
    if limits.bytes is not None and came > limits.bytes:
        raise WireError(f"{came} bytes came; limits.bytes={limits.bytes}")
    count = _whole(content)
    if count > examples:
        raise WireError(f"'{EXAMPLES}' is {count}, and the client is registered with {examples}; see limits.examples")
    for index in range(sum(key.startswith("summary.") for key in content)):
        error_prefix(f"summary {index}", _check_summary, content, index, limits, ctx)


def _check_key(key: object, record: object, limits: Limits) -> None:
    """Raise WireError unless a reply may hold a record of that name and kind."""
    kind, numbered = str(key).split(".")[0], _NUMBERED.fullmatch(str(key))
    expected = RECORDS.get(kind)
    if expected is None or not (numbered or (key == kind and kind not in ("summary", "spec"))):
        raise WireError(f"a record '{str(key)[:40]}' is unknown here; a reply holds {first_few(RECORDS)}")
    if not isinstance(record, expected):
        raise WireError(f"'{key}' is a {type(record).__name__}, not a {expected.__name__}")
    if numbered and int(numbered[2]) >= limits.summaries:
        raise WireError(f"more summaries came than limits.summaries={limits.summaries}; there is '{key}'")


def _whole(content: RecordDict) -> int:
    """The number of examples that the client says it stands for."""
    value = take_record(content, "metrics", MetricRecord).get(EXAMPLES)
    if type(value) is not int or value < 0:
        raise WireError(f"'{EXAMPLES}' must be a count, got {value!r}")
    return value


def _check_summary(content: RecordDict, index: int, limits: Limits, ctx: Context) -> None:
    """Images that a summary would decode to, counted before any is made."""
    arrays = take_record(content, f"summary.{index}", ArrayRecord)
    spec = take_record(content, f"spec.{index}", ConfigRecord)
    decoder = load_decoder({key.removeprefix("decoder."): v for key, v in spec.items() if key.startswith("decoder.")})  # type: ignore[misc]
    try:
        each = decoder.images_per_entry(ctx.inputs.shape)
    except FedclError as error:
        raise WireError(str(error)) from error
    targets = load_array(arrays, "targets")
    if not targets.ndim:
        raise WireError("labels must be [N] or [N, C], got one number")
    rows = decoder.named("row") if isinstance(decoder, Parameterization) else ()
    for name in (f"{coding}.{row}" for coding in ("arrays", "pixels") for row in rows):
        if name in arrays and tuple(arrays[name].shape[:1]) != targets.shape[:1]:
            raise WireError(f"'{name}' is {list(arrays[name].shape)} for {len(targets)} labels")
    most = limits.images
    if most is None:
        return
    soft = targets.dtype.kind == "f"  # which class an image is of is not clear then
    largest = len(targets) if soft else _largest_class(targets, ctx.num_classes)
    allowed = most * ctx.num_classes if soft else most
    if largest * each > allowed:
        of = "in all" if soft else "of one class"
        raise WireError(f"{largest * each} images {of}, and a client of this run sends {allowed}; see limits.images")


def _largest_class(targets: np.ndarray, num_classes: int) -> int:
    """Entries of the class that has most."""
    wanted = str(label_dtype(num_classes)).removeprefix("torch.")
    if str(targets.dtype) != wanted or targets.ndim != 1 or (targets < 0).any() or (targets >= num_classes).any():
        raise WireError(f"hard labels must be {wanted} [N] in [0, {num_classes}), got {targets.dtype}")
    return int(np.bincount(targets, minlength=1).max())
