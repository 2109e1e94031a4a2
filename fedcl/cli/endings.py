"""Endings other than a result: one line for an error, Ctrl-C while modules are imported, a disk that takes no more."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Defect(Exception):
    """A bug whose traceback is kept; the message is all that is left to say."""


def complain(error: BaseException | str, where: str = "") -> None:
    """One line on stderr."""
    print(f"fedcl: {where}{' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def interrupted_at_once(scratch: str | None = None) -> Iterator[None]:
    """Importing modules: Ctrl-C ends the process in one line, and takes a temporary folder `scratch` along.

    A KeyboardInterrupt inside the import of a large library comes out as another error, or not at all. Nothing has
    been written yet that could be lost.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def end(*_: object) -> None:
        os.write(2, b"fedcl: interrupted\n")
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(130)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
