"""The one JSON file that a run leaves: readable without fedcl, rewritten atomically as the run goes on.

While a run goes on, the rows that it grows by (rounds, steps, the accuracy matrix) are appended to `rows.jsonl` and
stand as null in `record.json`, so that a round costs the same however many there were. A finished or failed record
holds them itself.
"""

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedcl import __version__
from fedcl.core.bugs import TRACEBACK, keep_traceback
from fedcl.core.errors import RunError
from fedcl.core.folder_lock import hold
from fedcl.core.plugins import plugin_versions

RECORD = "record.json"
ROWS = "rows.jsonl"  # one line a round or step: {part of the record: what that round adds to it}
GROWING = ("rounds", "steps", "matrix")  # parts that grow by a row


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


def versions(config: Any = None) -> dict[str, str]:
    """Versions of what a result depends on, with a row for each plug-in whose classes the configuration names."""
    packages = ("torch", "torchvision", "flwr", "numpy", "scikit-learn")
    found = {"python": platform.python_version(), "fedcl": __version__} | dict.fromkeys(packages, "absent")
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found | plugin_versions(config)


def accuracy_part(curve: list[float]) -> dict[str, float]:
    """{"last", "mean_last5", "best"} of accuracies on the test set, which never chose anything."""
    tail = curve[-5:]
    return {"last": curve[-1], "mean_last5": math.fsum(tail) / len(tail), "best": max(curve)}


@contextmanager
def open_folder(out: Path) -> Iterator[None]:
    """Make the folder of a run and keep it for this process until the block ends, or say why it cannot be used.

    A bug in the block leaves its traceback in the folder. RunError where it holds a finished run, is in use, or cannot
    be written.
    """
    refuse_finished(out)
    with ExitStack() as open_until_done:
        try:
            out.mkdir(parents=True, exist_ok=True)
            open_until_done.enter_context(hold(out))
        except OSError as error:
            reason = f"out={out} cannot be written ({error.strerror})"
            raise RunError(f"{reason}; choose another folder with out=...") from error
        refuse_finished(out)  # by whoever had it until just now
        (out / TRACEBACK).unlink(missing_ok=True)  # of an earlier session
        try:
            yield
        except Exception as error:
            keep_traceback(out, error)
            raise


def refuse_finished(out: Path) -> None:
    """Raise RunError where the folder holds a finished run."""
    record = read_record(out) if (out / RECORD).exists() else None
    if record is not None and record.get("finished"):
        raise RunError(f"out={out} already holds a finished run; choose another folder with out=..., or delete it")


def read_record(folder: Path) -> dict[str, Any]:
    """The record in `folder`; that of an unfinished run with the rows that lie beside it. RunError where it is none."""
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"no {RECORD} in {folder}: give the folder of a run") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{path} is not a readable record ({error})") from None
    if not isinstance(record, dict) or "verb" not in record:
        raise RunError(f"{path} is JSON but not a fedcl record: it has no 'verb'")
    return with_rows(record, folder)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `folder/record.json`; NaN is refused because JSON has none."""
    write_atomically(folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")


def head_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its rows, which lie in `rows.jsonl` while the run goes on."""
    return {name: None if name in GROWING else part for name, part in record.items()}


def row_line(**added: Any) -> str:
    """One line of `rows.jsonl`: what a round or step adds to each growing part of the record."""
    return json.dumps(added, allow_nan=False) + "\n"


def with_rows(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record of an unfinished run with its rows from `rows.jsonl` in `folder`; any other as it is.

    RunError where that file is damaged.
    """
    path = Path(folder) / ROWS
    if record.get("finished") or all(record.get(name, ()) is not None for name in GROWING):
        return record
    try:
        text = path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete {path.parent} to start that run again") from None
    return fill(record, text, path)


def fill(record: Mapping[str, Any], text: str, path: Path) -> dict[str, Any]:
    """Undo `head_of` with the text of `rows.jsonl`, whose last line is none where a kill left it without its end.

    RunError where a line is not what `row_line` writes.
    """
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            where = f"line {number} of {path} is damaged ({error})"
            raise RunError(f"{where}; delete {path.parent} to start that run again") from None
    growing = [name for name in GROWING if record.get(name, ()) is None]
    return {**record, **{name: [row[name] for row in rows if name in row] for name in growing}}
