"""Rules for a part's values, declared beside the field: `alpha: Annotated[float, number(above=0, example=0.5)]`.

A configuration is checked under the keys it was typed with (`core/targets.py`), an object that Python makes under the
key that its class has in the presets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_origin

from fedcl.core.checks import alternatives, annotations_of, fits, format_value
from fedcl.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must be, and what to type instead of one that is not."""

    must: str
    example: Any
    allows: Callable[[Any], bool]


class Checked:
    """Base of parts: their fields keep their rules, and a list fills a tuple. A `__post_init__` of its own calls this.

    Fields have no rules where the annotations of a class cannot be evaluated, as with imports for types alone.
    """

    config_key = ""  # where a configuration has such a part

    def __post_init__(self) -> None:
        hints = annotations_of(type(self), include_extras=True)
        for name, value in tuple(vars(self).items()):  # of the object itself: no properties, which may be computed
            hint = hints.get(name)
            if isinstance(value, list) and any(get_origin(option) is tuple for option in alternatives(hint)):
                object.__setattr__(self, name, value := tuple(value))
            check_rule(value, hint, f"{self.config_key}.{name}".lstrip("."))


def check_rule(value: Any, hint: Any, key: str) -> None:
    """Raise ConfigError where a value breaks the `Rule` in its annotation; null passes where the type has it."""
    for rule in getattr(hint, "__metadata__", ()):
        if isinstance(rule, Rule) and not rule.allows(value) and not (value is None and fits(None, hint.__origin__)):
            null = ", or null" if fits(None, hint.__origin__) else ""
            example = format_value(rule.example).replace(", ", ",")
            raise ConfigError(f"{key}={format_value(value)} must be {rule.must}{null}; type {key}={example}")


def whole(least: int, most: float = math.inf, *, example: int) -> Rule:
    """A whole number of at least `least`, and at most `most`."""
    return _within("a whole number", Integral, example, least=least, most=most)


def number(*, example: float, **bounds: float) -> Rule:
    """A finite number within bounds: `least` or `above`, `most` or `below`."""
    return _within("a number", Real, example, **bounds)


def one_of(*options: str) -> Rule:
    return Rule(must=f"one of {', '.join(options)}", example=options[0], allows=options.__contains__)


def each(rule: Rule, *, empty: bool = True) -> Rule:
    """A list of what `rule` says; of at least one unless it may be `empty`."""

    def allows(value: Any) -> bool:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return listed and (empty or len(value) > 0) and all(map(rule.allows, value))

    several = "a list [...]" if empty else "a list [...] of at least one,"
    return Rule(must=f"{several} of which each is {rule.must}", example=(rule.example,), allows=allows)


def _within(
    what: str,
    kind: type,
    example: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Rule:
    def allows(value: Any) -> bool:
        right = isinstance(value, kind) and not isinstance(value, bool)  # a truth value is no number
        return right and least <= value <= most and above < value < below

    low, high = max(least, above), min(most, below)
    bounds = f"{'>=' if least == low else '>'} {low:g}"
    if high < math.inf:
        bounds = f"in {'[' if least == low else '('}{low:g}, {high:g}{']' if most == high else ')'}"
    return Rule(must=f"{what} {bounds}", example=example, allows=allows)
