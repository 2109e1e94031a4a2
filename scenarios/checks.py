"""Checks of a recipe's numbers: every error names the key, what is wrong, and what to type."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from fedcl.core.errors import ScenarioError


def check_whole(key: str, value: Any, *, least: int, example: int) -> None:
    """Raise ScenarioError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ScenarioError(f"{key} is {value!r} but must be a whole number >= {least}; type {key}={example}")


def check_number(key: str, value: Any, *, above: float, example: float) -> None:
    """Raise ScenarioError unless `value` is a finite number with above < value."""
    if not isinstance(value, Real) or isinstance(value, bool) or not above < float(value) < math.inf:
        raise ScenarioError(f"{key} is {value!r} but must be a number > {above:g}; type {key}={example:g}")


def check_fraction(key: str, value: Any, *, example: float) -> None:
    """Raise ScenarioError unless `value` is a number in [0, 1]."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ScenarioError(f"{key} is {value!r} but must be a number in [0, 1]; type {key}={example:g}")


def check_choice(key: str, value: Any, options: tuple[str, ...]) -> None:
    """Raise ScenarioError unless `value` is one of `options`."""
    if value not in options:
        raise ScenarioError(f"{key} is {value!r} but must be one of {', '.join(options)}; type {key}={options[0]}")


def check_enough(num_examples: int, num_clients: int, min_size: int) -> None:
    """Raise ScenarioError when there are too few examples for `min_size` at each client."""
    if num_examples < num_clients * min_size:
        raise ScenarioError(
            f"{num_examples} examples cannot give {num_clients} clients {min_size} each; "
            f"type scenario.num_clients={max(1, num_examples // max(min_size, 1))} or fewer"
        )
