"""The command line: `fedcl VERB [key=value ...]`. Ctrl-C is one line from here on, so nothing is imported before."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 (a bug), 2 (something to put right) or 130 (interrupted)."""
    try:
        from fedcl.cli.commands import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as interrupt:
        print(f"fedcl: interrupted{interrupt}", file=sys.stderr)
        return 130
    except SystemExit as end:  # Hydra's way to end --info
        return int(end.code or 0)
    except BrokenPipeError:  # the reader of our output went away: fedcl ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
