"""The command line: `fedcl VERB [key=value ...]`. Each verb is a Hydra app; errors are one line each."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fedcl import __version__
from fedcl.build import VERBS, build_job, choose_folder, make, namesake, plain_choices, qualify, resolve
from fedcl.describe import settings_of
from fedcl.errors import ConfigError, FedclError, InUseError, RunError
from fedcl.explain import explain
from fedcl.paths import config_dir
from fedcl.progress import Several
from fedcl.sweeps import Sweep, apart, finished_before, job_label, key_of, sweep_folder

SUMMARIES = {name: verb.summary for name, verb in VERBS.items()} | {
    "report": "tables and pictures of finished runs: fedcl report RUN_DIR... [out=DIR]"
}
USAGE = f"""fedcl {__version__}: federated and continual learning with distilled data

{chr(10).join(f"  fedcl {name:<12} {summary}" for name, summary in SUMMARIES.items())}

  fedcl federated                       the embedded data set, in under a minute
  fedcl federated scenario.alpha=0.1    one value changed
  fedcl federated -m seed=0,1,2         a sweep; typed again it skips what is finished and goes on with the rest
  fedcl federated --cfg job             shows the configuration and runs nothing
  fedcl federated --help                lists the options"""
FLAGS = {  # of Hydra's, those that a verb passes on
    *("--help", "-h", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m"),
    *("--config-dir", "-cd", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"),
}
WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--info", "-i"}
SHOWN = ("job", "hydra", "all")  # what --cfg can show


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 2 (something to put right) or 130 (interrupted)."""
    verb, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    try:
        if verb in ("--help", "-h", "help"):
            print(USAGE)
        elif verb == "--version":
            print(f"fedcl {__version__}")
        elif verb == "report":
            report(arguments)
        elif verb in VERBS:
            run_verb(verb, arguments)
        else:
            raise ConfigError(f"there is no command '{verb}'; type fedcl with one of: {', '.join(SUMMARIES)}")
    except FedclError as error:
        complain(error)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"fedcl: interrupted{interrupt}", file=sys.stderr)
        return 130
    except SystemExit as end:  # Hydra's way to end --help
        return int(end.code or 0)
    except BrokenPipeError:  # the reader of our output went away: fedcl ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def complain(error: BaseException, where: str = "") -> None:
    """One line on stderr."""
    print(f"fedcl: {where}{' '.join(str(error).split())}", file=sys.stderr)


def run_verb(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, which calls `task` once, or once for each job of a sweep.

    Raises:
        ConfigError: the configuration cannot be composed, or jobs of a sweep failed.
        FedclError: the run failed.
    """
    check_stop(verb, arguments)
    if line := namesake():
        print(f"fedcl: {line}", file=sys.stderr)
    sweep = Sweep()
    process = os.getpid()

    def task(config: DictConfig) -> None:
        settings = HydraConfig.get()
        typed = [text.replace(f"strategy={verb}/", "strategy=") for text in settings.overrides.task]
        sweep.started.append(" ".join(typed))
        if settings.mode is not RunMode.MULTIRUN:
            try:
                return run_job(verb, config, typed)
            except FedclError as error:  # kept from Hydra, which would print it
                sweep.failed[""] = error
                return None
        try:
            with apart():
                run_job(verb, config, typed, sweep, *varied_keys(arguments))
        except Exception as error:  # the next job may be luckier
            if os.getpid() != process:  # a launcher's worker: the exception is how its parent learns
                raise
            if not isinstance(error, FedclError):
                traceback.print_exc()
            sweep.failed[sweep.started[-1]] = error
            complain(error, where=f"[{sweep.started[-1]}] ")

    try:
        with hydra_arguments(verb, arguments):
            hydra.main(config_path=str(config_dir()), config_name=verb, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, verb, arguments)) from error
    except ValueError as error:
        if sweep.started:
            raise  # not about the configuration
        raise ConfigError(explain(error, verb, arguments)) from error
    if "" in sweep.failed:
        raise sweep.failed[""]
    if sweep.folder is not None and "quiet=true" not in arguments:
        print(sweep.outcome, flush=True)
    if sweep.failed:
        raise ConfigError(f"{len(sweep.failed)} of {len(sweep.started)} jobs failed: {'; '.join(sweep.failed)}")


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
    if sweep is None:
        with choose_folder(verb, values, choices) as out:
            run_there(verb, values, choices, typed, out)
    else:
        sweep.folder = sweep_folder(verb, values["out"], typed, several, listed)
        run_there(verb, values, choices, typed, sweep.folder / job_label(typed, {*several, *listed}), sweep)


def run_there(
    verb: str, values: dict[str, Any], choices: dict[str, str], typed: list[str], out: Path, sweep: Sweep | None = None
) -> None:
    """Build one job, run it in `out` or go on with it, and say in one line what came out."""
    from fedcl.terminal import make_progress, result_line

    say = (lambda line: None) if values["quiet"] else partial(print, flush=True)
    job = build_job(verb, values, choices, out, ["fedcl", verb, *typed])
    if sweep is not None and finished_before(out, settings_of(job)):
        return sweep.skip(out, say)
    run = getattr(importlib.import_module(VERBS[verb].module), VERBS[verb].run)
    tracker = make(values, "tracker") if values.get("tracker") else None
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
        again = "type the same command again" if sweep or values["out"] else f"type the same command with out='{out}'"
        raise KeyboardInterrupt(f"; to go on, {again}") from None
    say(result_line(record, out))


def varied_keys(arguments: Sequence[str]) -> tuple[set[str], set[str]]:
    """Keys with several values in this sweep: those typed so, and those that its experiment lists."""
    parser = OverridesParser.create()
    typed = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    several = {key_of(text) for text in typed if parser.parse_override(text).is_sweep_override()}
    return several, {key_of(key) for key in HydraConfig.get().sweeper.get("params") or {}}


def check_stop(verb: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError where a budget is typed for a verb that has no rounds."""
    if verb != "federated" and any(key_of(argument).startswith("stop.") for argument in arguments):
        end = {
            "continual": "a stream is judged after its last step",
            "distill": "distiller.steps=... is its length",
        }
        raise ConfigError(
            f"stop.* ends federated runs after a round, and fedcl {verb} has none: {end[verb]}; Ctrl-C ends it now, "
            "and the same command with out=FOLDER goes on"
        )


def check_flags(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a flag that a verb does not have, or one without its value."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = argument.partition("=")
        if flag.startswith("-") and flag not in FLAGS:
            key = flag.lstrip("-").replace("-", "_")
            raise ConfigError(f"fedcl has no flag {flag}; values are typed as key=value: {key}={value or '...'}")
        if flag in ("--cfg", "-c") and (value if equals else after) not in SHOWN:
            raise ConfigError(f"{flag} shows one of {', '.join(SHOWN)}; type --cfg job")


@contextmanager
def hydra_arguments(verb: str, arguments: list[str]) -> Iterator[None]:
    """Hydra reads the process's arguments; give it ours, errors as exceptions, and nowhere to leave files."""
    check_flags(arguments)
    flags, typed = split_flags(arguments)
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="fedcl-sweep-") as scratch:
        overrides = for_each_job([qualify(verb, argument) for argument in typed])
        if not any(argument.startswith("hydra.sweep.dir=") for argument in typed):
            overrides.append(f"hydra.sweep.dir='{scratch}'")  # Hydra's own note of the sweep; records have it all
        sys.argv, os.environ["HYDRA_FULL_ERROR"] = [f"fedcl {verb}", *flags, *overrides], "1"
        try:
            yield
        finally:
            sys.argv = argv
            os.environ.pop("HYDRA_FULL_ERROR")
            if full is not None:
                os.environ["HYDRA_FULL_ERROR"] = full


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


def split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and everything else, each in the order typed: Hydra reads overrides in one row only."""
    flags, others = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        (flags if argument.startswith("-") or before in WITH_VALUE else others).append(argument)
    return flags, others


def report(arguments: list[str]) -> None:
    """`fedcl report RUN_DIR... [out=DIR]`; the report lies in `out`, or in the folder above all runs."""
    from fedcl.report import load_runs, write_report

    folders = [Path(argument) for argument in arguments if not argument.startswith(("out=", "-"))]
    given = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    if not folders or {"-h", "--help"} & set(arguments):
        raise ConfigError("the report needs folders of runs: type fedcl report RUN_DIR... [out=DIR]")
    runs, skipped = load_runs(folders)
    if not runs:
        reasons = "; ".join(f"{skip.path}: {skip.reason}" for skip in skipped)
        raise ConfigError(f"there is no finished run to report ({reasons or 'the folders are empty'})")
    for skip in skipped:
        print(f"skipped {skip.path}: {skip.reason}", file=sys.stderr)
    out = Path(given[-1]) if given else Path(os.path.commonpath([folder.absolute() for folder in folders]))
    print(write_report(folders, out))
