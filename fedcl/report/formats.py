"""Numbers as people read them. Units are decimal: 1 kB is 1,000 bytes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NOTHING = "–"
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over seeds."""

    mean: float
    std: float | None = None  # None for a single value, which has no spread
    count: int = 1  # values, one a seed


def spread(values: Iterable[float | int | None]) -> Spread | None:
    """The spread of the values that are there, or None when there are none."""
    kept = [value for value in values if value is not None]
    if not kept:
        return None
    mean, freedom = math.fsum(kept) / len(kept), len(kept) - 1
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / freedom) if freedom else None
    return Spread(mean=mean, std=std, count=len(kept))


def three(value: float) -> str:
    """At least three significant digits and no exponent: 1,234 and 12.3 and 0.0123."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:,.{min(decimals, 6)}f}"


def _pair(value: Spread, scale: float = 1, digits: int | None = None) -> str:
    """The mean and its deviation with as many decimals; a deviation below the last of them is left out."""
    mean = value.mean / scale
    text = three(mean) if digits is None else f"{mean:,.{digits}f}"
    if value.std is None:
        return text
    deviation = f"{value.std / scale:,.{len(text.partition('.')[2])}f}"
    return f"{text} ± {deviation}" if float(deviation.replace(",", "")) else text


def _whole(value: Spread) -> int:
    """Decimals of something that is counted."""
    return 0 if float(value.mean).is_integer() and not value.std else 1


def _of_any(say: Callable[[Spread], str]) -> Callable[[Spread | float | None], str]:
    """Let a format take a plain number, too, and None, which is NOTHING."""
    return lambda value: NOTHING if value is None else say(value if isinstance(value, Spread) else Spread(mean=value))


@_of_any
def percent(value: Spread) -> str:
    """A fraction as "97.21 %", a spread as "97.2 ± 0.3 %"."""
    return f"{_pair(value, 0.01, 2 if value.std is None else 1)} %"


@_of_any
def size(value: Spread) -> str:
    """Bytes as "12.3 kB", a spread as "12.3 ± 0.1 kB"."""
    scale, unit = next((pair for pair in UNITS if abs(value.mean) >= pair[0]), UNITS[-1])
    return f"{_pair(value, scale, _whole(value) if unit == 'B' else None)} {unit}"


@_of_any
def number(value: Spread) -> str:
    """A plain number of three digits, with its spread."""
    return _pair(value)


@_of_any
def count(value: Spread) -> str:
    """How many: "20", "1,234", with its spread "12.5 ± 0.7"."""
    return _pair(value, digits=_whole(value))


@_of_any
def seconds(value: Spread) -> str:
    """Seconds as "12.3 s"."""
    return f"{_pair(value)} s"


def round_size(value: float) -> str:
    """A round number of bytes: "3 kB", "300 B"."""
    return size(float(value)).replace(".00 ", " ").replace(".0 ", " ")


def plural(count: int, word: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
