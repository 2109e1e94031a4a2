"""From a typed command to runs: Hydra composes the configuration, once or for each job of a sweep."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedcl.cli.build import build_job, choose_folder, make, namesake, plain_choices, qualify, resolve
from fedcl.cli.config_errors import explain
from fedcl.cli.endings import complain, disk_failure, interrupted_at_once
from fedcl.cli.sweeps import Sweep, finished_before, isolated_job, job_label, sweep_folder
from fedcl.cli.typed import SHOWING, key_of, split_flags
from fedcl.cli.verbs import VERBS
from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, FedclError, InUseError, RunError
from fedcl.core.paths import config_dir, typed_path
from fedcl.core.progress import Several

SILENT_HYDRA = ("hydra.job_logging.root=null", "hydra.hydra_logging.root=null")  # whatever a YAML says to Hydra itself
CALLS = ("_target_", "()")  # keys that make Hydra, or Python's logging, call what they name
PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")
HYDRAS_OWN = ("hydra._internal.core_plugins.", "hydra_plugins.")


def run_verb(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, which calls `task` once, or once for each job of a sweep.

    Raises:
        ConfigError: the configuration cannot be composed, or jobs of a sweep failed.
        FedclError: the run failed.
    """
    if line := namesake():
        print(f"fedcl: {line}", file=sys.stderr)
    sweep = Sweep()
    process = os.getpid()

    def task(config: DictConfig) -> None:
        with interrupted_at_once(scratch):
            for module in (VERBS[verb].module, "fedcl.cli.terminal"):
                importlib.import_module(module)
        settings = HydraConfig.get()
        raw: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)  # ${...} stays as it was typed
        typed = [str(text).replace(f"strategy={verb}/", "strategy=") for text in raw]
        sweep.started.append(" ".join(typed))
        alone = settings.mode is not RunMode.MULTIRUN
        try:
            if alone:
                run_job(verb, config, typed)
            else:
                with isolated_job():
                    run_job(verb, config, typed, sweep, *varied_keys(arguments))
        except Exception as error:
            if alone:  # kept from Hydra, which would print it
                sweep.failed[""] = error
                return
            if os.getpid() != process:  # a launcher's worker: the exception is how its parent learns
                raise
            explained = in_one_line(error, verb, arguments)
            if not isinstance(explained, FedclError):
                traceback.print_exc()
            sweep.failed[sweep.started[-1]] = explained  # the next job may be luckier
            complain(explained, where=f"[{sweep.started[-1]}] ")

    try:
        with hydra_arguments(verb, arguments) as scratch:
            hydra.main(config_path=str(config_dir()), config_name=verb, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, verb, arguments)) from error
    except ValueError as error:
        if sweep.started:
            raise  # not about the configuration
        raise ConfigError(explain(error, verb, arguments)) from error
    if not sweep.started and not SHOWING & {argument.partition("=")[0] for argument in arguments}:
        raise ConfigError("the sweep has no job: a key has no value; type -m KEY=A,B")
    if "" in sweep.failed:
        error = sweep.failed[""]
        explained = in_one_line(error, verb, arguments)
        raise explained from (error if explained is not error else error.__cause__)
    if sweep.folder is not None and "quiet=true" not in arguments:
        print(sweep.outcome, flush=True)
    if sweep.failed:
        raise ConfigError(f"{len(sweep.failed)} of {len(sweep.started)} jobs failed: {'; '.join(sweep.failed)}")


def in_one_line(error: BaseException, verb: str, arguments: list[str]) -> BaseException:
    """An error of OmegaConf, which shows itself when values are asked for, as fedcl says it; others as they are."""
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(explain(error, verb, arguments))
    return error


def run_job(
    verb: str,
    config: DictConfig,
    typed: list[str],
    sweep: Sweep | None = None,
    several: Collection[str] = (),
    listed: Collection[str] = (),
) -> None:
    """Choose the folder of one job and run it there."""
    choices = plain_choices(verb, HydraConfig.get().runtime.choices)
    values = resolve(config)
    if isinstance(values.get("out"), str | int | float) and values["out"] != "":
        values["out"] = str(typed_path("out", values["out"]))
    if sweep is None:
        with choose_folder(verb, values, choices) as out:
            run_there(verb, values, choices, typed, out)
    else:
        sweep.folder = sweep_folder(verb, values["out"], typed, several, listed)
        run_there(verb, values, choices, typed, sweep.folder / job_label(typed, {*several, *listed}), sweep)


def run_there(
    verb: str, values: dict[str, Any], choices: dict[str, str], typed: list[str], out: Path, sweep: Sweep | None = None
) -> None:
    """Build one job, run it in `out` or go on with it, and say what came out and how to look at it."""
    from fedcl.cli.terminal import make_progress, result_line

    job = build_job(verb, values, choices, out, ["fedcl", verb, *typed])
    say = (lambda line: None) if values["quiet"] else partial(print, flush=True)
    if sweep is not None and finished_before(out, settings_of(job)):
        return sweep.skip(out, say)
    run = getattr(importlib.import_module(VERBS[verb].module), VERBS[verb].run)
    tracker = make(values, "tracker") if values.get("tracker") else None
    again = "type the same command again" if sweep or values["out"] else f"type the same command with out='{out}'"
    try:
        with ExitStack() as open_until_done:
            progress = open_until_done.enter_context(make_progress(values["quiet"]))
            if tracker is not None:
                progress = Several(progress, open_until_done.enter_context(tracker.follow(out, progress)))
            record = run(job, progress)
    except InUseError as error:
        if sweep is None:
            raise
        return sweep.leave(error, say)
    except RunError:
        if sweep is None or not finished_before(out, settings_of(job)):
            raise
        return sweep.skip(out, say)  # another process finished it since we looked
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; to go on, {again}") from None
    except OSError as error:
        if (failure := disk_failure(error)) is None:
            raise
        raise RunError(f"{failure}; {out} keeps what was whole: make room and {again} to go on") from error
    say(result_line(record, out))
    if sweep is None:
        say(f"look at it, alone or beside other runs, with: fedcl report {out}")
    return None


def varied_keys(arguments: Sequence[str]) -> tuple[set[str], set[str]]:
    """Keys with several values in this sweep: those typed so, and those that its experiment lists."""
    parser = OverridesParser.create()
    typed = [readable(argument) for argument in arguments if "=" in argument and not argument.startswith("-")]
    several = {key_of(text) for text in typed if parser.parse_override(text).is_sweep_override()}
    return several, {key_of(key) for key in HydraConfig.get().sweeper.get("params") or {}}


@contextmanager
def hydra_arguments(verb: str, arguments: list[str]) -> Iterator[str]:
    """Hydra reads the process's arguments; give it ours, errors as exceptions, and a folder to leave files in."""
    flags, typed = split_flags(arguments)
    overrides = for_each_job([qualify(verb, readable(argument)) for argument in typed])
    check_hydra(verb, flags, overrides)
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="fedcl-sweep-") as scratch:
        if not any(argument.startswith("hydra.sweep.dir=") for argument in typed):
            overrides.append(f"hydra.sweep.dir='{scratch}'")  # Hydra's own note of the sweep; records have it all
        sys.argv = [f"fedcl {verb}", *flags, *overrides, *SILENT_HYDRA]
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


def check_hydra(verb: str, flags: Sequence[str], overrides: list[str]) -> None:
    """Look at what configures Hydra itself, where that is not fedcl's YAML alone: Hydra would call what it names.

    Raises:
        ConfigError: it names a class or a function that is none of Hydra's plug-ins.
    """
    folders = [after for flag, after in pairwise(flags) if flag in ("--config-dir", "-cd")]
    folders += [flag.partition("=")[2] for flag in flags if flag.startswith(("--config-dir=", "-cd="))]
    if not folders and not any("hydra" in override for override in overrides):
        return
    if any(key_of(override) == "hydra.searchpath" for override in overrides):
        raise ConfigError("hydra.searchpath is typed as a flag: --config-dir FOLDER")
    search = [f"hydra.searchpath=['file://{Path(folder).absolute()}']" for folder in folders[-1:]]
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(verb, [*overrides, *search], RunMode.MULTIRUN)
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
    if not any(one.is_sweep_override() and (config_dir() / one.key_or_group).is_dir() for one in parsed):
        return overrides
    changed = []
    for text, one in zip(overrides, parsed, strict=True):
        key, _, value = text.partition("=")
        other = one.is_sweep_override() or one.is_add() or one.is_delete() or one.is_hydra_override()
        changed.append(text if other or not value or "." not in key else f"{key}=choice({value})")
    return changed
