"""Classes that a configuration names: checked against the annotation of the field that each fills, then made.

A configuration may be somebody else's YAML or a pasted command, so `_target_` opens no callable at large: a field
takes the class of its annotation and what derives from it, of fedcl or of a plug-in that was named. Everything is
checked before anything is made.
"""

import importlib
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from fedcl.core.checks import alternatives, annotations_of, check_arguments, fits, format_hint, format_value
from fedcl.core.errors import ConfigError, FedclError
from fedcl.core.plugins import is_plugin
from fedcl.core.rules import check_rule

ALLOWED = ("fedcl.", "strategies.", "scenarios.", "torch.optim.", "flwr.serverapp.strategy.")
TARGET, PARTIAL = "_target_", "_partial_"


class Expected(NamedTuple):
    """Class that a field takes."""

    kind: type
    later: bool  # the field is a function that makes one: `_partial_: true`


def expected_by(hint: Any) -> list[Expected]:
    """The classes that may be named where a field is annotated so; none where it holds plain values."""
    if len(options := alternatives(hint)) > 1:
        return [one for option in options for one in expected_by(option)]
    later = typing.get_origin(hint) is Callable
    kind = typing.get_args(hint)[-1] if later else hint
    return [Expected(kind, later)] if isinstance(kind, type) and allowed(kind.__module__) else []


def allowed(module: str) -> bool:
    """True for a module whose classes may be named."""
    return f"{module}.".startswith(ALLOWED) or is_plugin(module)


def check_value(value: Any, hint: Any, path: str) -> None:
    """Check a value of a configuration, and all below it, against an annotation; a ConfigError says what is wrong."""
    if typing.get_origin(hint) is typing.Annotated:
        check_value(value, hint.__origin__, path)
        return check_rule(value, hint, path)
    if isinstance(value, dict) and TARGET in value:
        return check_class(value, expected_by(hint), path)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{path}={format_value(value)} is too large; type a number below 2^63")
    plain = [option for option in alternatives(hint) if not expected_by(option)]  # a class must be named
    if not any(fits(value, option) for option in plain):
        raise ConfigError(f"{path}={format_value(value)} does not fit; it must be {format_hint(hint)}")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict):
        for key, item in value.items():
            check_value(item, values_of(hint), f"{path}.{key}")
    elif isinstance(value, list):
        below = arguments[0] if origin in (list, tuple) and arguments[1:] in ((), (...,)) else Any
        for index, item in enumerate(value):
            check_value(item, below, f"{path}[{index}]")
    return None


def check_values(target: Any, values: Mapping[str, Any], path: str) -> None:
    """Check values against the annotations of what they are for."""
    hints = annotations_of(target, include_extras=True)
    for key, value in values.items():
        check_value(value, hints.get(key, Any), f"{path}.{key}" if path else key)


def check_class(node: Mapping[str, Any], expected: list[Expected], path: str) -> None:
    """Check the class that a mapping names, and its values."""
    where = f"{path}.{TARGET}={format_value(node[TARGET])}"
    if not expected:
        raise ConfigError(f"{where} is not allowed: nothing is made of a class there")
    found = locate(node[TARGET], where)
    fitting = [one for one in expected if isinstance(found, type) and issubclass(found, one.kind)]
    if fitting and not allowed(found.__module__):
        home = found.__module__
        raise ConfigError(f"{where} is not allowed: it is {home}.{found.__qualname__}{how_to_name(home)}")
    if not fitting:
        kinds = " or ".join(f"{one.kind.__name__} ({one.kind.__module__})" for one in expected)
        raise ConfigError(f"{where} is not allowed; it must be a class that derives from {kinds}")
    if node.get(PARTIAL, False) is not fitting[0].later:
        need = "it must be true: the class is made later" if fitting[0].later else "leave it out"
        raise ConfigError(f"{path}.{PARTIAL}={format_value(node.get(PARTIAL))} cannot be; {need}")
    values = settings_in(node)
    if hidden := [key for key in values if str(key).startswith("_")]:
        raise ConfigError(f"{path}.{hidden[0]} is not allowed; a configuration takes {TARGET} and the values by name")
    check_arguments(found, values, path)
    check_values(found, values, path)


def values_of(hint: Any) -> Any:
    """The annotation of a mapping's values."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    return arguments[1] if origin in (Mapping, dict) and len(arguments) == 2 else Any


def settings_in(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a mapping that names a class gives to it."""
    return {key: value for key, value in node.items() if key not in (TARGET, PARTIAL)}


def locate(target: Any, where: str) -> Any:
    """Import what a `_target_` names."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if not allowed(module):
        raise ConfigError(f"{where} is not allowed; it must begin with {', '.join(ALLOWED)}{how_to_name(module)}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where} cannot be imported ({one_line(error)})") from error


def how_to_name(module: str) -> str:
    """Hint at the way to name a package as one's own."""
    package = module.partition(".")[0]
    return f"; if {package} is a package of your own, type plugins=[{package}]" if package.isidentifier() else ""


def make(config: Mapping[str, Any], group: str) -> Any:
    """Make what `config[group]` describes; a plain value or null stays what it is. FedclError where it cannot be."""
    try:
        return made(config[group])
    except FedclError:
        raise
    except Exception as error:
        raise ConfigError(f"{group} cannot be made from its values ({one_line(error)})") from error


def made(node: Any) -> Any:
    """The object of a node: what it holds first, then itself."""
    if isinstance(node, list):
        return [made(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: made(value) for key, value in settings_in(node).items()}
    if TARGET not in node:
        return values
    kind = locate(node[TARGET], f"{TARGET}={node[TARGET]}")
    return partial(kind, **values) if node.get(PARTIAL) else kind(**values)


def one_line(error: BaseException) -> str:
    """The message of an error with its line breaks taken out."""
    return " ".join(str(error).split()) or type(error).__name__
