"""Bugs: an error that is no `FedclError`, worded with file and line, its traceback kept in the run's folder."""

import errno
import traceback
from contextlib import suppress
from pathlib import Path

from fedcl.core.errors import FedclError
from fedcl.core.plugins import KNOWN, is_plugin

TRACEBACK = "traceback.txt"
OURS = KNOWN[:3]
LIBRARIES = ("site-packages", "dist-packages", "lib/python3", "<")  # in the name of a file that nobody here wrote
LONGEST = 400  # characters of a message; it may be anybody's
_REFUSED = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO")  # by a disk
_DISK = {getattr(errno, name) for name in _REFUSED if hasattr(errno, name)}


def is_bug(error: BaseException) -> bool:
    """True where somebody has to mend code: not what a user can put right, nor an interrupt, nor a full disk."""
    return isinstance(error, Exception) and not isinstance(error, FedclError) and disk_failure(error) is None


def disk_failure(error: BaseException) -> str | None:
    """Refusal of a disk, in words; None where the error is about something else."""
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    place = f" ({error.filename})" if error.filename else ""
    return f"a file could not be written: {error.strerror}{place}"


def place_of(error: BaseException) -> str:
    """File and line of a bug, "mypkg/mine.py:12": the last of a plug-in or a script, else of fedcl, else ""."""
    own = theirs = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module, file = str(frame.f_globals.get("__name__")), Path(frame.f_code.co_filename)
        depth = len(module.split(".")) + (file.name == "__init__.py")  # as many parts as the module's name has
        place = f"{'/'.join(file.parts[-depth:])}:{line}"
        if module.partition(".")[0] in OURS:
            own = place
        elif is_plugin(module) or not any(part in file.as_posix() for part in LIBRARIES):
            theirs = place
    return theirs or own


def in_one_line(error: BaseException) -> str:
    """The type and the message of an error, and where it happened if it is a bug."""
    place = place_of(error) if is_bug(error) else ""
    message = " ".join(str(error)[:LONGEST].split())
    return f"{type(error).__name__}: {message}{f' ({place})' if place else ''}"


def keep_traceback(folder: Path, error: BaseException) -> None:
    """Write the traceback of a bug to `folder/traceback.txt`; the first of a session is the one to look at."""
    if is_bug(error) and not (folder / TRACEBACK).exists():
        with suppress(OSError):  # the bug itself is what has to be heard
            folder.mkdir(parents=True, exist_ok=True)
            text = "".join(traceback.format_exception(error))[-100 * LONGEST :]
            (folder / TRACEBACK).write_text(text, encoding="utf-8", errors="replace")
