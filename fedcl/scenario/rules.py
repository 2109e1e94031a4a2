"""Rules for a recipe's values, declared beside the field: `alpha: Annotated[float, number(above=0, example=0.5)]`."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fedcl.core.errors import ScenarioError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must be, in words, and what to type instead of one that is not."""

    what: str
    example: str
    kind: type = object  # never a truth value
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    options: tuple[str, ...] = ()

    def check(self, key: str, value: Any, optional: bool = False) -> None:
        """Raise ScenarioError where the value is another."""
        if value in self.options or (optional and value is None):
            return
        numeric = not self.options and isinstance(value, self.kind) and not isinstance(value, bool)
        if not numeric or not (self.least <= value <= self.most and self.above < value < math.inf):
            what = f"{self.what}, or null" if optional else self.what
            raise ScenarioError(f"{key}={value!r} must be {what}; type {key}={self.example}")


def whole(least: int, *, example: int) -> Rule:
    """A whole number of at least `least`."""
    return Rule(what=f"a whole number >= {least}", example=str(example), kind=Integral, least=least)


def number(*, above: float, example: float) -> Rule:
    """A finite number above `above`."""
    return Rule(what=f"a number > {above:g}", example=f"{example:g}", kind=Real, above=above)


def fraction(*, example: float) -> Rule:
    """A number in [0, 1]."""
    return Rule(what="a number in [0, 1]", example=f"{example:g}", kind=Real, least=0, most=1)


def one_of(*options: str) -> Rule:
    return Rule(what=f"one of {', '.join(options)}", example=options[0], options=options)
