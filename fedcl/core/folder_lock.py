"""Lock of a run's folder: one process at a time, and everybody else is told which.

The lock is the operating system's (flock) on `.lock` in the folder, so it ends with its process, however that ends. The
file says who holds it: a holder on another machine counts even where the file system does not carry locks across.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fedcl.core.errors import InUseError

if sys.platform != "win32":  # where there is no flock, folders are not guarded
    import fcntl

LOCK = ".lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep the folder for this process until the block ends; InUseError where anybody has it, OSError from the disk."""
    if sys.platform == "win32":
        yield
        return
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        me = {"host": platform.node(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the lock is let go: nobody else can have made this file
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            holder = _read(descriptor)
            if holder.get("host", platform.node()) != platform.node():
                raise _in_use(path, holder, f"type rm '{path}' if that process is gone")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(path, holder, "wait until it ends") from None
            except OSError:  # a file system without locks: only other machines are seen
                return descriptor
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it between our opening and our locking it


def _in_use(path: Path, holder: dict[str, Any], remedy: str) -> InUseError:
    pid, host, since = (holder.get(name) for name in ("pid", "host", "since"))
    who = "another process" if pid is None else f"process {pid} on {host} since {since}"
    who = f"this process since {since}" if (pid, host) == (os.getpid(), platform.node()) else who
    return InUseError(f"out={path.parent} is in use by {who}; {remedy}, or choose another folder with out=...")


def _read(descriptor: int) -> dict[str, Any]:
    """Who holds the lock; nothing where its holder has not written yet, or died before."""
    with suppress(ValueError, RecursionError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(found, dict) and isinstance(found.get("host"), str):
            return found
    return {}
