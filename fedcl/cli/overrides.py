"""Overrides as Hydra reads them: what was typed, made readable, and nothing in it that Hydra would call."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from fedcl.cli.typed import key_of, names_in, split_flags
from fedcl.core.errors import ConfigError
from fedcl.core.paths import config_dir, config_dirs, option_files

SILENT_HYDRA = ("hydra.job_logging.root=null", "hydra.hydra_logging.root=null")  # whatever a YAML says to Hydra itself
CALLS = ("_target_", "()")  # keys that make Hydra, or Python's logging, call what they name
PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")
HYDRAS_OWN = ("hydra._internal.core_plugins.", "hydra_plugins.")


def qualify(verb: str, argument: str) -> str:
    """An override as Hydra reads it: `strategy=a,b` is `strategy=<verb>/a,<verb>/b`, and plugins are a list."""
    key, equals, value = argument.partition("=")
    if key == "plugins":
        return f"plugins=[{','.join(names_in(argument))}]"
    if key != "strategy" or not equals:
        return argument
    names = r"(?<![\w/])(?!null\b)([A-Za-z_]\w*)(?![\w/(])"  # choice(a,b): the words inside
    return "strategy=" + re.sub(names, rf"{verb}/\1", value)


def search_path() -> list[str]:
    """Hydra's override for the folders of configurations beside fedcl's own."""
    folders = ["file://" + str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in config_dirs()[1:]]
    quoted = ",".join(f"'{folder}'" for folder in folders)
    return [f"hydra.searchpath=[{quoted}]"] if folders else []


@contextmanager
def hydra_arguments(verb: str, arguments: list[str]) -> Iterator[str]:
    """Hydra reads the process's arguments; give it ours, errors as exceptions, and a folder to leave files in."""
    flags, typed = split_flags(arguments)
    overrides = for_each_job([qualify(verb, readable(argument)) for argument in typed])
    check_hydra(verb, overrides)
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="fedcl-sweep-") as scratch:
        if not any(argument.startswith("hydra.sweep.dir=") for argument in typed):
            overrides.append(f"hydra.sweep.dir='{scratch}'")  # Hydra's own note of the sweep; records have it all
        sys.argv = [f"fedcl {verb}", *flags, *overrides, *search_path(), *SILENT_HYDRA]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            yield scratch
        finally:
            sys.argv = argv
            os.environ.pop("HYDRA_FULL_ERROR")
            if full is not None:
                os.environ["HYDRA_FULL_ERROR"] = full


def readable(argument: str) -> str:
    """A value that Hydra's grammar cannot read (a path with spaces or accents), in quotes; anything else as it is."""
    key, equals, value = argument.partition("=")
    if not equals or not value or set(value) & set("'\"[]{}(),$\\"):
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return f"{key}='{value}'"
    return argument


def check_hydra(verb: str, overrides: list[str]) -> None:
    """Raise ConfigError where Hydra's own configuration, all of which it would call, names other than its plug-ins."""
    if any(key_of(override) == "hydra.searchpath" for override in overrides):
        raise ConfigError("hydra.searchpath is typed as a flag: --config-dir FOLDER")
    if not search_path() and not any("hydra" in override for override in overrides):
        return
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(verb, [*overrides, *search_path()], RunMode.MULTIRUN)
    for key, value in leaves(OmegaConf.to_container(config.hydra), "hydra"):
        plugin = key in PLUGINS and isinstance(value, str) and value.startswith(HYDRAS_OWN)
        if key.rpartition(".")[2] in CALLS and not plugin:
            raise ConfigError(f"{key}={value} is not allowed: only Hydra's own plug-ins may be named there")


def leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything below a node that is no mapping or list."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path, node


def for_each_job(overrides: list[str]) -> list[str]:
    """Values below options that a sweep varies, as a sweep of one value each.

    Hydra first composes what all jobs share with the default options, which need not have such a value:
    `distiller=idc,ncfm parameterization.factor=1` is about the parameterization of these two.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException:
        return overrides  # Hydra will say what is wrong
    if not any(one.is_sweep_override() and option_files(one.key_or_group) for one in parsed):
        return overrides
    changed = []
    for text, one in zip(overrides, parsed, strict=True):
        key, _, value = text.partition("=")
        other = one.is_sweep_override() or one.is_add() or one.is_delete() or one.is_hydra_override()
        changed.append(text if other or not value or "." not in key else f"{key}=choice({value})")
    return changed


def varied_keys(arguments: Sequence[str]) -> tuple[set[str], set[str]]:
    """Keys with several values in this sweep: those typed so, and those that its experiment lists."""
    parser = OverridesParser.create()
    typed = [readable(argument) for argument in arguments if "=" in argument and not argument.startswith("-")]
    several = {key_of(text) for text in typed if parser.parse_override(text).is_sweep_override()}
    return several, {key_of(key) for key in HydraConfig.get().sweeper.get("params") or {}}
