"""Commands that need no run: version, help, lists of options, report. Nothing heavy is imported before it is needed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedcl import __version__
from fedcl.cli.endings import Defect, complain, interrupted_at_once
from fedcl.cli.listing import list_options, show_option
from fedcl.cli.typed import check_listing, check_report, check_typed, doors_opened
from fedcl.cli.usage import REPORT_USAGE, SUMMARIES, USAGE, help_of
from fedcl.cli.verbs import VERBS
from fedcl.core.bugs import disk_failure
from fedcl.core.errors import ConfigError, FedclError
from fedcl.core.paths import typed_path

HELP = ("--help", "-h")


def run(arguments: Sequence[str]) -> int:
    """Do what one command says; the exit status is 0, 2 for something to put right, or 1 for a bug."""
    verb, *more = arguments or ["--help"]
    try:
        answer(verb, more)
    except (FedclError, Defect) as error:
        complain(error)
        return 1 if isinstance(error, Defect) else 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (failure := disk_failure(error)) is None:
            raise
        complain(f"{failure}; make room or choose another place, and type the same command again")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the output may be what is full: Python would write it once more
        return 2
    return 0


def answer(verb: str, arguments: list[str]) -> None:
    """Print what is asked for, or run what is said."""
    asked = bool({*HELP} & set(arguments))
    if verb in (*HELP, "help"):
        print(USAGE)
    elif verb == "--version":
        print(f"fedcl {__version__}")
    elif asked and verb in ("report", "list", "show"):
        print(REPORT_USAGE if verb == "report" else f"fedcl {verb}: {SUMMARIES[verb]}")
    elif verb == "report":
        report(arguments)
    elif verb in ("list", "show"):
        word = check_listing(verb, arguments)
        with doors_opened(arguments):
            print(list_options(word) if verb == "list" else show_option(word or ""))
    elif verb in VERBS:
        with doors_opened(arguments):
            check_typed(verb, arguments)
            if asked:
                print(help_of(verb))
                return
            with interrupted_at_once():
                from fedcl.cli.launch import run_verb
            run_verb(verb, arguments)
    else:
        raise ConfigError(f"there is no command '{verb}'; type fedcl with one of: {', '.join(SUMMARIES)}")


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
