"""Hydra's and OmegaConf's errors in one line: what is wrong, and what to type instead."""

from __future__ import annotations

import re
from typing import Any

from fedcl.build import compose_config, qualify
from fedcl.checks import nearest
from fedcl.paths import config_dir


def explain(error: BaseException, verb: str, arguments: list[str]) -> str:
    """One line for an error of composition.

    Args:
        arguments: what the user typed after the verb.
    """
    text = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        return unknown_option(str(missing), verb)
    for pattern in (r"Could not override '([^']+)'", r"Key '([^']+)' is not in struct"):
        if match := re.search(pattern, text):
            key = match.group(1).split("@")[0]
            return f"there is no key '{key}'{nearest(key, known_keys(verb, arguments))}; --cfg job lists all"
    if override := getattr(error, "override", None):
        return f"'{override}' cannot be read as key=value; put quotes around special characters"
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"a value refers to ${{{match.group(1)}}}, which does not exist"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)} has several values; type -m before them to run a sweep, or [...] for a list"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(line for line in lines if not re.match(r"full_key|object_type|reference_type|See http", line))


def unknown_option(missing: str, verb: str) -> str:
    """`missing` is group/option as Hydra looked for it."""
    folder, _, option = missing.removesuffix(".yaml").rpartition("/")
    options = sorted(path.stem for path in (config_dir() / folder).glob("*.yaml"))
    group = folder.removesuffix(f"/{verb}")
    if not options:
        return f"there is no configuration '{missing}'"
    return f"{group} has no option '{option}'{nearest(option, options)}; choose one of: {', '.join(options)}"


def known_keys(verb: str, arguments: list[str]) -> list[str]:
    """Every key and group that may be typed with the options that were chosen, or with the defaults."""
    groups = {path.name for path in config_dir().iterdir() if path.is_dir()}
    chosen = [qualify(verb, a) for a in arguments if a.partition("=")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        try:
            config = compose_config(verb, overrides)
        except Exception:  # the second error while explaining the first: explain with less
            continue
        return sorted({*groups, *walk(config)})
    return sorted(groups)


def walk(node: Any, path: str = "") -> list[str]:
    """Dotted names of all keys below a mapping; interpolations are not followed."""
    names = []
    for key in node:
        name = f"{path}{key}"
        names.append(name)
        child = node._get_node(key)
        if hasattr(child, "items"):
            names += walk(child, f"{name}.")
    return names
