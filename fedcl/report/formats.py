"""Numbers as people read them. Units are decimal: 1 kB is 1,000 bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

NOTHING = "–"
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over seeds."""

    mean: float
    std: float | None  # None for a single value, which has no spread
    count: int  # values, one a seed


def spread(values: Iterable[float | int | None]) -> Spread | None:
    """The spread of the values that are there, or None when there are none."""
    kept = [value for value in values if value is not None]
    if not kept:
        return None
    mean = math.fsum(kept) / len(kept)
    if len(kept) == 1:
        return Spread(mean=mean, std=None, count=1)
    variance = math.fsum((value - mean) ** 2 for value in kept) / (len(kept) - 1)
    return Spread(mean=mean, std=math.sqrt(variance), count=len(kept))


def three(value: float) -> str:
    """At least three significant digits and no exponent: 1,234 and 12.3 and 0.0123."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:,.{min(decimals, 6)}f}"


def _pair(value: Spread, scale: float, digits: int | None) -> str:
    """The mean and its deviation with as many decimals; a deviation below the last of them is left out."""
    mean = value.mean / scale
    text = three(mean) if digits is None else f"{mean:,.{digits}f}"
    if value.std is None:
        return text
    decimals = len(text.partition(".")[2])
    deviation = f"{value.std / scale:,.{decimals}f}"
    return f"{text} ± {deviation}" if float(deviation.replace(",", "")) else text


def percent(value: Spread | float | None) -> str:
    """A fraction as "97.21 %", a spread as "97.2 ± 0.3 %"."""
    if value is None:
        return NOTHING
    value = value if isinstance(value, Spread) else Spread(mean=value, std=None, count=1)
    return f"{_pair(value, 0.01, 1 if value.std is not None else 2)} %"


def size(value: Spread | float | None) -> str:
    """Bytes as "12.3 kB", a spread as "12.3 ± 0.1 kB"."""
    if value is None:
        return NOTHING
    value = value if isinstance(value, Spread) else Spread(mean=value, std=None, count=1)
    scale, unit = next((pair for pair in UNITS if abs(value.mean) >= pair[0]), UNITS[-1])
    if unit == "B":
        return f"{_pair(value, 1, 0 if float(value.mean).is_integer() and not value.std else 1)} B"
    return f"{_pair(value, scale, None)} {unit}"


def number(value: Spread | float | None) -> str:
    """A plain number of three digits, with its spread."""
    if value is None:
        return NOTHING
    value = value if isinstance(value, Spread) else Spread(mean=value, std=None, count=1)
    return _pair(value, 1, None)


def count(value: Spread | float | None) -> str:
    """How many: "20", "1,234", with its spread "12.5 ± 0.7"."""
    if value is None:
        return NOTHING
    value = value if isinstance(value, Spread) else Spread(mean=value, std=None, count=1)
    return _pair(value, 1, 0 if float(value.mean).is_integer() and not value.std else 1)


def round_size(value: float) -> str:
    """A round number of bytes: "3 kB", "300 B"."""
    return size(float(value)).replace(".00 ", " ").replace(".0 ", " ")


def seconds(value: Spread | float | None) -> str:
    """Seconds as "12.3 s"."""
    return NOTHING if value is None else f"{number(value)} s"


def plural(count: int, word: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
