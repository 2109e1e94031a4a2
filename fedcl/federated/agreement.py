"""Agreement: what server and clients must share before a word of one means anything to the other.

A question carries it as short hashes, so that a client with other classes, inputs or another network is refused.
"""

import hashlib

from fedcl.core.describe import describe
from fedcl.distill.context import Context

PARTS = ("classes", "inputs", "network")
_LENGTH = 3  # bytes of a part's hash


def agreement(ctx: Context) -> bytes:
    """The heads of the hashes of all PARTS, in their order."""
    said = (ctx.num_classes, [ctx.inputs.shape, describe(ctx.inputs)], describe(ctx.model))
    return b"".join(hashlib.sha256(repr(part).encode()).digest()[:_LENGTH] for part in said)


def disagreement(mine: bytes, theirs: bytes) -> str | None:
    """Names of the parts in which two agreements differ ("classes, network"), or None."""
    places = [slice(_LENGTH * index, _LENGTH * (index + 1)) for index in range(len(PARTS))]
    return ", ".join(part for part, at in zip(PARTS, places, strict=True) if mine[at] != theirs[at]) or None
