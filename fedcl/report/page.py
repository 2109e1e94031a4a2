"""The report: one HTML file that needs nothing else, its figures as files, and results.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedcl.core.errors import RunError
from fedcl.core.record import write_atomically
from fedcl.report import figures, tables
from fedcl.report.compare import Comparison, compare
from fedcl.report.details import entries
from fedcl.report.formats import plural
from fedcl.report.pictures import Album
from fedcl.report.records import PAGE, Skipped, leads_out, load_runs
from fedcl.report.results import embedded, results_csv
from fedcl.report.series import shown
from fedcl.report.statements import statements, terms, where


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
