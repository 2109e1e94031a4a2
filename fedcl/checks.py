"""Values against the annotations of what they are for: a wrong type is a message, not a traceback."""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

from fedcl.errors import ConfigError

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean X?)" if something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (as YAML has them) can be meant by an annotation; unknown ones take all."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    if origin is tuple and isinstance(value, list | tuple):
        options = arguments[:1] * len(value) if arguments[-1:] == (...,) else arguments
        return len(options) == len(value) and all(fits(v, o) for v, o in zip(value, options, strict=True))
    return origin is not tuple


def words(hint: Any) -> str:
    """An annotation in words."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(words(option) for option in options)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, options))
    if typing.get_origin(hint) is tuple:
        if options[-1:] == (...,):
            return f"a list [...] of which each is {words(options[0])}"
        return f"a list of {len(options)}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def spell(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def annotations_of(target: Any) -> dict[str, Any]:
    """Evaluated annotations of a callable's parameters; none where they cannot be evaluated."""
    try:
        return typing.get_type_hints(target if is_dataclass(target) else getattr(target, "__init__", target))
    except (NameError, TypeError, AttributeError):
        return {}


def check_values(target: Any, values: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError at the first value whose type does not fit."""
    hints = annotations_of(target)
    for key, value in values.items():
        if isinstance(value, dict) or key not in hints or fits(value, hints[key]):
            continue
        name = f"{path}.{key}" if path else key
        raise ConfigError(f"{name}={spell(value)} does not fit; it must be {words(hints[key])}")


def check_arguments(target: Any, values: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError at the first key that `target` does not take, or whose value does not fit."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"{path}._target_={target} is nothing that takes values") from None
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in values:
            if key not in parameters:
                known = sorted(name for name in parameters if name != "self")
                raise ConfigError(f"{path} has no key '{key}'{nearest(key, known)}; it takes {', '.join(known)}")
    check_values(target, values, path)
