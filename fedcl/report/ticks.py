"""Where the axes of figures have ticks, and what stands at them: no two alike, none touching."""

import math
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

GAP = 0.15  # of the axis, between two labels
GRIDS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))  # of a decade, coarse to fine


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers at equal distances in [low, high]."""
    places = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in places if low <= tick <= high]


def percents(ticks: Sequence[float]) -> list[str]:
    """Fractions as "98%", with as many decimals as it takes to tell each from its neighbours: "97.5%"."""
    decimals = next((d for d in range(3) if all(abs(round(100 * t, d) - 100 * t) < 1e-6 for t in ticks)), 3)
    return [f"{100 * tick:.{decimals}f}%" for tick in ticks]


def log_ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers in [low, high] that keep apart on a log axis: of the finest grid that fits."""
    best: list[float] = []
    for grid in GRIDS:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**power for power in powers for step in grid if low <= step * 10.0**power <= high]
        found = thin_out(found, low, high) if grid == GRIDS[0] else found
        if len(best) < 2 or (found == thin_out(found, low, high) and len(found) <= 6):
            best = found
    if len(best) < 2:  # less than half a decade
        best = even_ticks(low, high, most=4)
    return thin_out(best, low, high)


def thin_out(ticks: Sequence[float], low: float, high: float) -> list[float]:
    """The ticks, without those too near to the one before them on a log axis."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= GAP * math.log(high / low):
            kept.append(tick)
    return kept
