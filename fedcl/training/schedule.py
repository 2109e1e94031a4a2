"""Learning-rate schedules: the factor of each update, 1 being the rate that the recipe names."""

from __future__ import annotations

import math
from collections.abc import Sequence

SCHEDULES = ("constant", "step", "cosine", "restarts")


def step(update: int, total: int, milestones: Sequence[float], decay: float) -> float:
    """`decay` for each milestone passed, a milestone being a part of the `total` updates."""
    return decay ** sum(update >= total * part for part in milestones)


def cosine(part: float, floor: float) -> float:
    """Half a cosine from 1 to `floor`, at a `part` of its length."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))


def restarts(epoch: int, floor: float) -> float:
    """Cosines from 1 to `floor` over 1, 2, 4, 8, ... epochs (SGDR, Loshchilov & Hutter, ICLR 2017), constant within
    an epoch. Epoch 0 comes before them, at a tenth, as in GDumb's public code."""
    if epoch == 0:
        return 0.1
    place, length = epoch - 1, 1
    while place >= length:
        place, length = place - length, 2 * length
    return cosine(place / length, floor)
