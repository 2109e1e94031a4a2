"""Bounds on the raw records of a reply, looked at before anything of it is decoded.

What is looked at: which records there are, what each array says of itself against the bytes that came, scalars,
the number of bytes, summaries and decoded images, the decoder's numbers, and the number of examples. Nothing here
books memory by what a sender claims; the cost is one look at each array's head.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedcl.core.errors import WireError
from fedcl.core.types import label_dtype
from fedcl.distill.context import Context
from fedcl.distill.parameterizations import load_decoder
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.federated.limits import Limits
from fedcl.flower.codec import EXAMPLES, decoder_spec
from fedcl.flower.compat import items_of
from fedcl.flower.fields import check_array, check_scalar, error_prefix, first_few, load_array, take_record

# The records that a reply may hold, by the first part of their names (see the codec)
RECORDS: dict[str, type] = {
    **dict.fromkeys(("weights", "constants", "tensors", "integers", "summary"), ArrayRecord),
    "metrics": MetricRecord,
    **dict.fromkeys(("scalars", "spec"), ConfigRecord),
}
_NUMBERED = re.compile(r"(summary|spec)\.(0|[1-9]\d{0,5})")
LONGEST_NAME, LONGEST_TEXT = 200, 10_000  # characters


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
    records = items_of(content)
    for key, record in records.items():
        _check_key(key, record, limits)
        for name, value in items_of(record).items():
            if not isinstance(name, str) or len(name) > LONGEST_NAME:
                raise WireError(f"'{key}' has a name of more than {LONGEST_NAME} characters, or none")
            came += len(name) + 8
            if isinstance(value, Array):
                check_array(value, name)
                came += len(value.data)
            else:
                check_scalar(name, value)
                if isinstance(value, str):
                    came += len(value)
                    if len(value) > LONGEST_TEXT:
                        raise WireError(f"'{name}' is a text of {len(value)} characters; {LONGEST_TEXT} can be sent")
    if limits.bytes is not None and came > limits.bytes:
        raise WireError(f"{came} bytes came; limits.bytes={limits.bytes}")
    count = take_record(records, "metrics", MetricRecord).get(EXAMPLES)
    if type(count) is not int or count < 0:
        raise WireError(f"'{EXAMPLES}' must be a count, got {count!r}")
    if count > examples:
        raise WireError(f"'{EXAMPLES}' is {count}, and the client is registered with {examples}; see limits.examples")
    for index in range(sum(key.startswith("summary.") for key in records)):
        error_prefix(f"summary {index}", _check_summary, records, index, limits, ctx)


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


def _check_summary(content: Mapping[str, Any], index: int, limits: Limits, ctx: Context) -> None:
    """Images that a summary would decode to, counted before any is made."""
    arrays = take_record(content, f"summary.{index}", ArrayRecord)
    spec = take_record(content, f"spec.{index}", ConfigRecord)
    decoder = load_decoder(decoder_spec(spec))
    each = decoder.images_per_entry(ctx.inputs.shape)
    targets = load_array(arrays, "targets")
    if not targets.ndim:
        raise WireError("labels must be [N] or [N, C], got one number")
    rows = decoder.named("row") if isinstance(decoder, Parameterization) else ()
    for name in (f"{coding}.{row}" for coding in ("arrays", "pixels") for row in rows):
        if name in arrays and tuple(arrays[name].shape[:1]) != targets.shape[:1]:
            raise WireError(f"'{name}' is {list(arrays[name].shape)} for {len(targets)} labels")
    if limits.images is None:
        return
    wanted = str(label_dtype(ctx.num_classes)).removeprefix("torch.")
    if targets.dtype.kind == "f":  # soft labels: which class an image is of is not clear then
        images, allowed, of = len(targets) * each, limits.images * ctx.num_classes, "in all"
    elif arrays["targets"].dtype != wanted or targets.ndim != 1 or not _within(targets, ctx.num_classes):
        raise WireError(f"hard labels must be {wanted} [N] in [0, {ctx.num_classes}), got {targets.dtype}")
    else:
        images, allowed, of = int(np.bincount(targets, minlength=1).max()) * each, limits.images, "of one class"
    if images > allowed:
        raise WireError(f"{images} images {of}, and a client of this run sends {allowed}; see limits.images")


def _within(labels: np.ndarray, num_classes: int) -> bool:
    return not labels.size or bool(0 <= labels.min() <= labels.max() < num_classes)
