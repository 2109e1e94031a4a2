"""Find and read records. What cannot be read is named, with the reason, and the rest is reported."""

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from fedcl.core.errors import RunError
from fedcl.core.record import RECORD, ROWS, with_rows
from fedcl.report.schema import Unreadable, known_parts

PAGE = "report.html"  # a folder that holds one is the output of an earlier report, not a run
NO_RECORD = f"there is no {RECORD} in this folder or below it"


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a run stood after one round in which it was evaluated."""

    round: int  # counted from 0
    wire_bytes: int  # both directions, from the start to the end of this round
    accuracy: float  # in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run: where it lies, and its record."""

    path: Path  # the folder
    record: Mapping[str, Any]  # as in record.json

    def at(self, *keys: str) -> Any:
        """The value of the record below these keys, or None where it has none."""
        found: Any = self.record
        for key in keys:
            found = None if found is None else found.get(key)
        return found

    @property
    def verb(self) -> str:
        return self.record["verb"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.record["config"]

    def part(self, group: str) -> Mapping[str, Any]:
        """A group of the configuration, {} where there is none."""
        found = self.config.get(group)
        return found if isinstance(found, Mapping) else {}

    @property
    def partition(self) -> str:
        """SHA-256 of the index arrays, "" where the verb deals no data out."""
        return self.at("scenario", "sha256") or ""

    @property
    def total_bytes(self) -> int | None:
        """Wire bytes in both directions, from the record; None for a verb without communication."""
        return total_bytes(self)

    @property
    def num_clients(self) -> int | None:
        """Clients of the partition; None for a verb that deals no data out."""
        return self.at("scenario", "num_clients")

    @cached_property
    def curve(self) -> tuple[Point, ...]:
        """Accuracy against bytes so far, at every evaluated round; empty for a verb without communication."""
        so_far, points = 0, []
        for row in self.record["rounds"] if "communication" in self.record else ():
            so_far += row["up"]["wire_bytes"] + row["down"]["wire_bytes"]
            if row.get("accuracy") is not None:
                points.append(Point(round=row["round"], wire_bytes=so_far, accuracy=row["accuracy"]))
        return tuple(points)


def at(*keys: str) -> Callable[[Run], Any]:
    """`Run.at` of these keys as a function of the run."""
    return lambda run: run.at(*keys)


total_bytes = at("communication", "total_wire_bytes")


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A path that is not in the report, and why, in plain words."""

    path: Path
    reason: str


def load_runs(paths: str | Path | Iterable[str | Path]) -> tuple[list[Run], list[Skipped]]:
    """Read every record in the folders, the sweeps and the globs given, in a fixed order.

    Args:
        paths: one or several of: the folder of a run; a folder that holds runs at any depth; a
            record.json; a glob of these.

    Returns:
        The finished runs, and what was skipped with its reason. Never raises for what it finds on disk.
    """
    runs: list[Run] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    given = [paths] if isinstance(paths, str | Path) else paths
    for folder, reason in chain.from_iterable(_folders(str(path)) for path in given):
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            if reason:
                raise Unreadable(reason)
            runs.append(read_run(folder))
        except Unreadable as error:
            skipped.append(Skipped(path=folder, reason=str(error)))
    return sorted(runs, key=lambda run: str(run.path)), skipped


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        Unreadable: there is none, it is not finished, or it is not a record of this version.
    """
    if leads_out(folder / RECORD) or leads_out(folder / ROWS):
        raise Unreadable("the record is a link to a file elsewhere, which is not followed; copy the file here")
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        record = json.loads(text, parse_constant=_refuse)
        if "\\ud" in text.lower():  # half a surrogate pair is JSON, but no text that could be written
            json.dumps(record, ensure_ascii=False).encode()
        if isinstance(record, dict):  # null is the same as absent
            record = {name: part for name, part in with_rows(record, folder).items() if part is not None}
    except json.JSONDecodeError as error:
        raise Unreadable(f"the record is cut off or is not JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeError:
        raise Unreadable("the record is not readable text (UTF-8)") from None
    except RecursionError:
        raise Unreadable("the record is nested too deeply to be one of fedcl's") from None
    except OSError as error:
        raise Unreadable(f"the record cannot be opened ({error.strerror})") from None
    except RunError as error:  # of its rows
        raise Unreadable(str(error)) from None
    return Run(path=folder, record=known_parts(record))


def leads_out(path: Path) -> bool:
    """Whether a file of a run's folder is a link out of it: the folder may be somebody else's work."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent))


def _refuse(constant: str) -> float:
    raise Unreadable(f"the record holds {constant}, which is not JSON and which fedcl never writes")


def _folders(given: str) -> Iterator[tuple[Path, str]]:
    """(folder, "") for each run at or below a path or the matches of a glob, (folder, reason) for what is not one."""
    matches = [] if os.path.lexists(given) else sorted(glob.glob(given, recursive=True))
    for path in map(Path, matches or [given]):
        if not path.exists():
            what = "nothing matches this pattern" if glob.has_magic(given) else "there is no such file or folder"
            yield path, what
        elif path.is_file():
            yield (path.parent, "") if path.name == RECORD else (path, f"this is a file, but not a {RECORD}")
        else:
            yield from list(_walk(path)) or [(path, NO_RECORD)]


def _walk(folder: Path, quiet: bool = False) -> Iterator[tuple[Path, str]]:
    """Runs below `folder`; a sub-folder without any is named once, at its top."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"this folder cannot be read ({error.strerror})"
        return
    names = {entry.name for entry in entries}
    if RECORD in names:
        yield folder, ""
    quiet = quiet or bool(names & {RECORD, PAGE})  # a run's own sub-folders, and those of an earlier report
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            below = folder / entry.name
            unnamed = quiet or (below / PAGE).exists()
            yield from list(_walk(below, quiet)) or ([] if unnamed else [(below, NO_RECORD)])
