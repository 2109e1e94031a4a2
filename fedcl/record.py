"""The one JSON file that a run leaves: readable without fedcl, rewritten atomically as the run goes on."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedcl import __version__
from fedcl.errors import RunError
from fedcl.folder_lock import hold

RECORD = "record.json"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never half of it."""
    data = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version(), "fedcl": __version__}
    for package in ("torch", "torchvision", "flwr", "numpy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def accuracy_part(curve: list[float]) -> dict[str, float]:
    """{"last", "mean_last5", "best"} of accuracies on the test set, which never chose anything."""
    tail = curve[-5:]
    return {"last": curve[-1], "mean_last5": math.fsum(tail) / len(tail), "best": max(curve)}


@contextmanager
def open_folder(out: Path) -> Iterator[None]:
    """Make the folder of a run and keep it for this process until the block ends, or say why it cannot be used.

    Raises:
        RunError: it holds a finished run, is in use, or cannot be written.
    """
    refuse_finished(out)
    with ExitStack() as open_until_done:
        try:
            out.mkdir(parents=True, exist_ok=True)
            open_until_done.enter_context(hold(out))
        except OSError as error:
            raise RunError(
                f"out={out} cannot be written ({error.strerror}); choose another folder with out=..."
            ) from error
        refuse_finished(out)  # by whoever had it until just now
        yield


def refuse_finished(out: Path) -> None:
    """Raise RunError where the folder holds a finished run."""
    record = read_record(out) if (out / RECORD).exists() else None
    if record is not None and record.get("finished"):
        raise RunError(f"out={out} already holds a finished run; choose another folder with out=..., or delete it")


def read_record(folder: Path) -> dict[str, Any]:
    """The record in `folder`.

    Raises:
        RunError: there is none, or it is not a record.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"no {RECORD} in {folder}: give the folder of a run") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{path} is not a readable record ({error})") from None
    if not isinstance(record, dict) or "verb" not in record:
        raise RunError(f"{path} is JSON but not a fedcl record: it has no 'verb'")
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `folder/record.json`; NaN is refused because JSON has none."""
    write_atomically(folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
