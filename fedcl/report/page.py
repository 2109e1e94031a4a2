"""The report: one HTML file that needs nothing else, its figures as files, and results.csv."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedcl.core.errors import RunError
from fedcl.core.record import write_atomically
from fedcl.report import figures, tables
from fedcl.report.compare import Comparison, Listed, accuracy, compare
from fedcl.report.formats import number, percent, plural
from fedcl.report.pictures import Album
from fedcl.report.records import PAGE, Run, Skipped, leads_out, load_runs
from fedcl.report.results import embedded, results_csv
from fedcl.report.series import shown
from fedcl.report.settings import differences, flat
from fedcl.report.statements import statements, terms, where

# parts of a record that the page shows elsewhere
KNOWN = {"verb", "finished", "config", "seed", "versions", "seconds", "scenario", "accuracy", "rounds", "command"}
KNOWN |= {"communication", "matrix", "continual", "memory", "distillation"}


def write_report(paths: str | Path | Iterable[str | Path], out: str | Path) -> Path:
    """Write `out`/report.html, `out`/figures/*.svg and `out`/results.csv: the same for the same records.

    Args:
        paths: as for `load_runs`.
        out: a folder; made when it is not there. Files of an earlier report are replaced.

    Returns:
        The path of the page.

    Raises:
        RunError: `out` cannot be written.
    """
    runs, skipped = load_runs(paths)
    comparison, album, out = compare(runs), Album(), Path(out)
    page = render(comparison, skipped, album)
    folder = out / "figures"
    if leads_out(folder):  # `out` may hold somebody else's runs, and this is where files are written
        raise RunError(f"{folder} is a link to another place; remove it, or choose another folder with out=...")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, svg in album.files.items():
            write_atomically(folder / name, svg)
        write_atomically(out / "results.csv", results_csv(comparison).encode("utf-8", "replace"))
        write_atomically(out / PAGE, page.encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"out={out} cannot be written ({error.strerror}); choose another folder with out=...") from error
    return out / PAGE


def render(comparison: Comparison, skipped: Sequence[Skipped], album: Album) -> str:
    """The page as text; figures are collected in `album`."""
    said = statements(comparison)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever comes from a record is text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plural"] = plural
    return environment.get_template("page.html").render(
        lead=said[0].replace(" ± ", "\u00a0±\u00a0"),
        said=said,
        groups=comparison.groups,
        runs=entries(comparison),
        skipped=skipped,
        album=album,
        data=embedded(comparison),
        figures=figures,
        tables=tables,
        **{call.__name__: call for call in (where, terms, shown)},
    )


def entries(comparison: Comparison) -> list[dict[str, Any]]:
    """What the page says of each run, in the order of the report."""
    changes = [own for group in comparison.groups for own in differences([flat(run.config) for run in group.runs])]
    return [_entry(listed, own) for listed, own in zip(comparison.listed(), changes, strict=True)]


def _entry(listed: Listed, changes: Mapping[str, str]) -> dict[str, Any]:
    run, record = listed.run, listed.run.record
    name, failed, command, ended = f"{listed.method.name}, seed {run.seed}", _failures(run), record.get("command"), ""
    if isinstance(by := record.get("stopped"), Mapping):  # a budget ended the run before its last round
        ended = f"stopped early by {by.get('by', '?')}={by.get('limit', '?')} at {by.get('value', '?')}"
    title = f"{name}: {percent(accuracy(run))}{' (repeats a seed; in no mean)' if listed.repeat else ''}"
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    facts = {"folder": run.path, "seconds": number(record["seconds"])} | ({"end": ended} if ended else {})
    told = {key: value for key, value in record.items() if isinstance(value, str | int | float) and key not in KNOWN}
    more = [(key.replace("_", " "), str(value)[:300]) for key, value in told.items()]
    return {
        "listed": listed,
        "name": name,
        "title": ", ".join(filter(None, [title, ended, plural(len(failed), "failure") if failed else ""])),
        "command": shlex.join(command) if isinstance(command, list) else "the record does not say",
        "facts": [*facts.items(), ("versions", versions), *more],
        "failed": failed,
        "changes": {key: value.strip('"') for key, value in changes.items() if key != "out"},  # in the group
    }


def _failures(run: Run) -> list[str]:
    """What failed, one plain sentence each kind, with the rounds in which it happened."""
    places: dict[tuple[int, str], list[int]] = {}
    for row in run.record.get("rounds", ()):
        for failure in row.get("failed", ()):
            key = (failure["client"], " ".join(failure["reason"].split()))
            places.setdefault(key, []).append(row["round"] + 1)
    return [
        f"Client {client} gave no usable answer in {_ranges(numbers)}: {reason[:300]}"
        for (client, reason), numbers in places.items()
    ]


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as "rounds 1-3, 7"."""
    counter = count()
    spans = [list(span) for _, span in groupby(sorted(set(numbers)), lambda number: number - next(counter))]
    text = ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans)
    return f"round {text}" if text.isdigit() else f"rounds {text}"
