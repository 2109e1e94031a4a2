"""Values against the annotations of what they are for: a wrong type is a message, not a traceback."""

import difflib
import hashlib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Self

from fedcl.core.errors import ConfigError

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
LONGEST = 200  # characters of a value in a message


class FromEnvironment(str):
    """A text that an environment variable gave. It is used as it is and shown by the variable's name: it may be secret.

    Four digits of a fingerprint follow the name, so that a run is not taken for one of another value.
    """

    shown: str

    @classmethod
    def named(cls, text: str, source: str) -> Self:
        made = cls(text)
        made.shown = f"{source} ({hashlib.sha256(text.encode()).hexdigest()[:4]})"
        return made


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean X?)" if something else that is known is close, else nothing."""
    close = difflib.get_close_matches(word, [other for other in known if other != word], n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def similar(key: str, known: Iterable[str]) -> str:
    """ " (did you mean A or B?)": keys that end as this one does, nearest places first; else the closest spelling."""
    *above, last = key.split(".")
    others = {other: other.split(".") for other in known if other != key}
    shared = {name: sum(part in parts for part in above) for name, parts in others.items() if parts[-1] == last}
    ends = sorted(shared, key=lambda name: (-shared[name], len(others[name]), name))
    return f" (did you mean {' or '.join(ends[:3])}?)" if ends else nearest(key, others)


def dotted(node: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted names of all keys of nested mappings that can be typed, which one with a dot of its own cannot."""
    names = []
    for key, value in node.items():
        if "." not in str(key):
            names += [f"{path}{key}", *(dotted(value, f"{path}{key}.") if isinstance(value, Mapping) else [])]
    return names


def alternatives(hint: Any) -> tuple[Any, ...]:
    """What a union holds, with a rule or without; itself where an annotation is none."""
    hint = hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def fits(value: Any, hint: Any) -> bool:
    """True for a plain value (as YAML has them) that an annotation can mean; unknown ones take all."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if len(options := alternatives(hint)) > 1:
        return any(fits(value, option) for option in options)
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


def format_hint(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if len(options := alternatives(hint)) > 1:
        return " or ".join(map(format_hint, options))
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        of_any_length = arguments[-1:] == (...,)
        return (
            f"a list [...] of which each is {format_hint(arguments[0])}"
            if of_any_length
            else f"a list of {len(arguments)}"
        )
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def format_value(value: Any) -> str:
    """A value as it is typed on the command line; a long one is cut."""
    if value is None:
        return "null"
    if isinstance(value, FromEnvironment):
        return value.shown
    if isinstance(value, int) and value.bit_length() > 4 * LONGEST:  # Python writes no number of 4,300 digits
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(format_value, value))}]"
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


@cache
def annotations_of(target: Any, include_extras: bool = False) -> dict[str, Any]:
    """Evaluated annotations of a callable's parameters; none where they cannot be evaluated."""
    try:
        target = target if is_dataclass(target) else getattr(target, "__init__", target)
        return typing.get_type_hints(target, include_extras=include_extras)
    except (NameError, TypeError, AttributeError):
        return {}


def check_arguments(target: Any, values: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError at the first key that `target` does not take."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"{path}._target_={target} is nothing that takes values") from None
    unknown = [key for key in values if key not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known = sorted({*parameters} - {"self"})
        raise ConfigError(f"{path} has no key '{unknown[0]}'{nearest(unknown[0], known)}; it takes {', '.join(known)}")
