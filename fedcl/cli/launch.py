"""From a typed command to runs: Hydra composes the configuration, once or for each job of a sweep."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedcl.cli.build import build_job, make, plain_choices, resolve, suit_inputs
from fedcl.cli.config_errors import composition_error
from fedcl.cli.endings import Defect, complain, interrupted_at_once
from fedcl.cli.installation import check_plugins, namesake
from fedcl.cli.overrides import hydra_arguments, varied_keys
from fedcl.cli.sweeps import (
    FINISHED,
    IN_USE,
    Sweep,
    choose_folder,
    finished_before,
    isolated_job,
    job_label,
    sweep_folder,
)
from fedcl.cli.typed import SHOWING
from fedcl.cli.verbs import VERBS
from fedcl.core.bugs import TRACEBACK, disk_failure, in_one_line, keep_traceback
from fedcl.core.describe import settings_of
from fedcl.core.errors import ConfigError, FedclError, InUseError, RunError
from fedcl.core.paths import config_dir, typed_path
from fedcl.core.progress import Several


def run_verb(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, which calls `task` once, or once for each job of a sweep.

    Raises:
        FedclError: the configuration cannot be composed, the run failed, or jobs of a sweep did.
    """
    check_plugins()
    if line := namesake():
        print(f"fedcl: {line}", file=sys.stderr)
    sweep, process = Sweep(), os.getpid()

    def task(config: DictConfig) -> None:
        with interrupted_at_once(scratch):
            for module in (VERBS[verb].module, "fedcl.cli.terminal"):
                import_module(module)
        settings = HydraConfig.get()
        raw: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)  # ${...} stays as it was typed
        typed = [str(text).replace(f"strategy={verb}/", "strategy=") for text in raw]
        sweep.started.append(" ".join(typed))
        alone = settings.mode is not RunMode.MULTIRUN
        try:
            with nullcontext() if alone else isolated_job():
                run_job(verb, config, typed, None if alone else sweep, arguments)
        except Exception as error:
            if alone:  # kept from Hydra, which would print it
                sweep.failed[""] = error
                return
            if os.getpid() != process:  # a launcher's worker: the exception is how its parent learns
                raise
            explained = as_config_error(error, verb, arguments)
            if not isinstance(explained, FedclError | Defect):
                traceback.print_exc()
            sweep.failed[sweep.started[-1]] = explained  # the next job may be luckier
            complain(explained, where=f"[{sweep.started[-1]}] ")

    try:
        with hydra_arguments(verb, arguments) as scratch:
            hydra.main(config_path=str(config_dir()), config_name=verb, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if sweep.started and not isinstance(error, HydraException | OmegaConfBaseException):
            raise  # not about the configuration
        raise ConfigError(composition_error(error, verb, arguments)) from error
    if not sweep.started and not SHOWING & {argument.partition("=")[0] for argument in arguments}:
        raise ConfigError("the sweep has no job: a key has no value; type -m KEY=A,B")
    if "" in sweep.failed:
        error = sweep.failed[""]
        explained = as_config_error(error, verb, arguments)
        raise explained from (error if explained is not error else error.__cause__)
    if sweep.folder is not None and "quiet=true" not in arguments:
        print(sweep.outcome, flush=True)
    if sweep.failed:
        mistakes = all(isinstance(error, FedclError) for error in sweep.failed.values())
        said = f"{len(sweep.failed)} of {len(sweep.started)} jobs failed: {'; '.join(sweep.failed)}"
        raise ConfigError(said) if mistakes else Defect(said)


def as_config_error(error: BaseException, verb: str, arguments: list[str]) -> BaseException:
    """An error of OmegaConf, which shows itself when values are asked for, as fedcl says it; others as they are."""
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(composition_error(error, verb, arguments))
    return error


def run_job(verb: str, config: DictConfig, typed: list[str], sweep: Sweep | None, arguments: list[str]) -> None:
    """Choose the folder of one job and run it there."""
    choices = plain_choices(verb, suit_inputs(config, HydraConfig.get().runtime.choices, typed))
    values = resolve(config)
    if isinstance(values.get("out"), str | int | float) and values["out"] != "":
        values["out"] = str(typed_path("out", values["out"]))
    if sweep is None:
        with choose_folder(verb, values, choices) as out, bugs_told(out):
            run_there(verb, values, choices, typed, out)
    else:
        several, listed = varied_keys(arguments)
        sweep.folder = sweep_folder(verb, values["out"], typed, several, listed)
        out = sweep.folder / job_label(typed, several | listed)
        with bugs_told(out):
            run_there(verb, values, choices, typed, out, sweep)


@contextmanager
def bugs_told(out: Path) -> Iterator[None]:
    """A bug in the block, or in client halves that it failed for, leaves its traceback in `out` as a Defect."""
    kept = out / TRACEBACK
    before = kept.stat().st_mtime_ns if kept.exists() else None  # an earlier session's, which may go or stay
    try:
        yield
    except FedclError as error:
        if kept.exists() and kept.stat().st_mtime_ns != before:
            raise Defect(f"{error}; the traceback is in {kept}") from error
        raise
    except Exception as error:
        keep_traceback(out, error)
        if not kept.exists():
            raise
        raise Defect(f"a bug: {in_one_line(error)}; the traceback is in {kept}") from error


def run_there(
    verb: str, values: dict[str, Any], choices: dict[str, str], typed: list[str], out: Path, sweep: Sweep | None = None
) -> None:
    """Build one job, run it in `out` or go on with it, and say what came out and how to look at it."""
    from fedcl.cli.terminal import make_progress, result_line

    job = build_job(verb, values, choices, out, ["fedcl", verb, *typed])
    say = (lambda line: None) if values["quiet"] else partial(print, flush=True)
    if sweep is not None and finished_before(out, settings_of(job)):
        return sweep.leave(FINISHED, out, say)
    run = VERBS[verb].run
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
        return sweep.leave(IN_USE, error, say)
    except RunError:
        if sweep is None or not finished_before(out, settings_of(job)):
            raise
        return sweep.leave(FINISHED, out, say)  # another process finished it since we looked
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
