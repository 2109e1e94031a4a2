"""The command line: `fedcl VERB [key=value ...]`. What is imported here answers `fedcl --version` in no time."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedcl import __version__
from fedcl.endings import INTERRUPTED, complain, disk_failure, interrupted_at_once
from fedcl.errors import ConfigError, FedclError
from fedcl.paths import typed_path
from fedcl.typed import check_report, check_typed
from fedcl.usage import REPORT_USAGE, SUMMARIES, USAGE, help_of
from fedcl.verbs import VERBS

HELP = ("--help", "-h")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 2 (something to put right) or 130 (interrupted)."""
    verb, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    try:
        return answer(verb, arguments)
    except FedclError as error:
        complain(error)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"fedcl: interrupted{interrupt}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:  # Hydra's way to end --info
        return int(end.code or 0)
    except BrokenPipeError:  # the reader of our output went away: fedcl ... | head
        say_no_more()
        return 1
    except OSError as error:
        if (failure := disk_failure(error)) is None:
            raise
        complain(f"{failure}; make room or choose another place, and type the same command again")
        say_no_more()  # it may have been the output that could not be written
        return 2


def answer(verb: str, arguments: list[str]) -> int:
    """Do what one command says."""
    asked = bool({*HELP} & set(arguments))
    if verb in (*HELP, "help"):
        print(USAGE)
    elif verb == "--version":
        print(f"fedcl {__version__}")
    elif verb == "report" and asked:
        print(REPORT_USAGE)
    elif verb == "report":
        report(arguments)
    elif verb in VERBS:
        check_typed(verb, arguments)
        if asked:
            print(help_of(verb))
            return 0
        with interrupted_at_once():
            from fedcl.launch import run_verb
        run_verb(verb, arguments)
    else:
        raise ConfigError(f"there is no command '{verb}'; type fedcl with one of: {', '.join(SUMMARIES)}")
    return 0


def say_no_more() -> None:
    """Send what is left of the output nowhere: Python writes it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(arguments: list[str]) -> None:
    """`fedcl report RUN_DIR... [out=DIR]`; the report lies in `out`, or in the folder above all runs."""
    check_report(arguments)
    folders = [typed_path("RUN_DIR", argument) for argument in arguments if not argument.startswith("out=")]
    given = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    if not folders:
        raise ConfigError("the report needs folders of runs: type fedcl report RUN_DIR... [out=DIR]")
    with interrupted_at_once():
        from fedcl.report import load_runs, write_report
    runs, skipped = load_runs(folders)
    if not runs:
        reasons = "; ".join(f"{skip.path}: {skip.reason}" for skip in skipped)
        raise ConfigError(f"there is no finished run to report ({reasons or 'the folders are empty'})")
    for skip in skipped:
        print(f"skipped {skip.path}: {skip.reason}", file=sys.stderr)
    out = typed_path("out", given[-1]) if given else Path(os.path.commonpath([folder.absolute() for folder in folders]))
    print(write_report(folders, out))
