"""Rules for a part's values, declared beside the field: `alpha: Annotated[float, number(above=0, example=0.5)]`."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fedcl.core.checks import annotations_of, fits, format_value
from fedcl.core.errors import FedclError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must be, and what to type instead of one that is not: the end of a message."""

    message: str
    kind: type = object  # a truth value is no number
    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = math.inf
    options: tuple[str, ...] = ()

    def allows(self, value: Any) -> bool:
        if self.options:
            return value in self.options
        number = isinstance(value, self.kind) and not isinstance(value, bool)
        return number and self.least <= value <= self.most and self.above < value < self.below


def check_rules(part: Any, prefix: str, error: type[FedclError]) -> None:
    """Raise `error` where a field breaks the `Rule` that its annotation names; null passes where the type has it."""
    for name, hint in annotations_of(type(part), include_extras=True).items():
        for rule in getattr(hint, "__metadata__", ()):
            key, value, optional = f"{prefix}.{name}", getattr(part, name), fits(None, hint.__origin__)
            if isinstance(rule, Rule) and not (rule.allows(value) or (optional and value is None)):
                message = rule.message.format(key=key, null=", or null" if optional else "")
                raise error(f"{key}={format_value(value)} {message}")


def whole(least: int, *, example: int) -> Rule:
    """A whole number of at least `least`."""
    message = f"must be a whole number >= {least}{{null}}; type {{key}}={example}"
    return Rule(message=message, kind=Integral, least=least)


def number(*, above: float, example: float) -> Rule:
    """A finite number above `above`."""
    return Rule(message=f"must be a number > {above:g}{{null}}; type {{key}}={example:g}", kind=Real, above=above)


def fraction(*, example: float) -> Rule:
    """A number in [0, 1]."""
    return Rule(message=f"must be a number in [0, 1]{{null}}; type {{key}}={example:g}", kind=Real, least=0, most=1)


def proper_fraction(*, example: float) -> Rule:
    """A number between 0 and 1, neither of them."""
    return Rule(message=f"must lie between 0 and 1{{null}}; type {{key}}={example:g}", kind=Real, above=0, below=1)


def one_of(*options: str) -> Rule:
    return Rule(message=f"is unknown; type one of {', '.join(options)}", options=options)
