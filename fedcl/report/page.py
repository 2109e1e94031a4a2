"""The report: one HTML file that needs nothing else, its figures as files, and results.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from fedcl.core.errors import RunError
from fedcl.core.record import write_atomically
from fedcl.report import html
from fedcl.report.compare import Comparison, compare
from fedcl.report.data import embedded
from fedcl.report.details import failures, runs_section
from fedcl.report.formats import plural
from fedcl.report.pictures import Album
from fedcl.report.records import PAGE, Skipped, leads_out, load_runs
from fedcl.report.results import results_csv
from fedcl.report.sections import Drawing, section
from fedcl.report.statements import statements, where

HERE = Path(__file__).parent
MOST_SKIPPED = 200  # named one by one


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
    comparison = compare(runs)
    drawing = Drawing(album=Album())
    page = render(comparison, skipped, drawing)
    out = Path(out)
    if leads_out(out / "figures"):  # `out` may hold somebody else's runs, and this is where files are written
        raise RunError(
            f"{out / 'figures'} is a link to another place; remove it, or choose another folder with out=..."
        )
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name, svg in drawing.files.items():
            write_atomically(out / "figures" / name, svg)
        write_atomically(out / "results.csv", results_csv(comparison).encode("utf-8", "replace"))
        write_atomically(out / PAGE, page.encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"out={out} cannot be written ({error.strerror}); choose another folder with out=...") from error
    return out / PAGE


def render(comparison: Comparison, skipped: Sequence[Skipped], drawing: Drawing) -> str:
    """The page as text; figures are collected in `drawing`."""
    groups = comparison.groups
    said = statements(comparison)
    sections = "".join(
        section(group, number, drawing, repeat_statement=number > 1) for number, group in enumerate(groups, 1)
    )
    numbers = {id(run): n for n, run in enumerate((run for group in groups for run in group.runs), 1)}
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        lead=html.text(said[0]).replace(" ± ", "\u00a0±\u00a0"),
        summary=html.text(_summary(comparison, skipped)),
        groups=_groups(comparison),
        skipped=_skipped(skipped),
        failed=_failed(comparison, numbers),
        sections=sections,
        limits=_limits(drawing),
        runs=runs_section(comparison, numbers) if numbers else "",
        data=embedded(comparison),
    )


def _summary(comparison: Comparison, skipped: Sequence[Skipped]) -> str:
    count = sum(len(group.runs) for group in comparison.groups)
    parts = [plural(count, "finished run"), plural(sum(len(g.methods) for g in comparison.groups), "method")]
    parts.append(plural(len(comparison.groups), "group") + " of comparable runs")
    if skipped:
        parts.append(f"{plural(len(skipped), 'path')} skipped")
    return " · ".join(parts)


def _groups(comparison: Comparison) -> str:
    """Says that groups must not be compared, and lists them."""
    if len(comparison.groups) < 2:
        return ""
    links = "".join(
        f'<li><a href="#group-{number}">{html.text(f"{group.verb}: {where(group)}")}</a> '
        f"<span>{html.text(plural(len(group.runs), 'run'))}</span></li>"
        for number, group in enumerate(comparison.groups, 1)
    )
    return (
        '<nav aria-label="Groups of comparable runs"><p>These runs are not all comparable: they differ in '
        "the verb, the data, the model or the partition. Each group stands alone, and no figure or ratio "
        "mixes two.</p>"
        f"<ol>{links}</ol></nav>\n"
    )


def _skipped(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return ""
    items = [f"{one.path}: {one.reason}" for one in skipped[:MOST_SKIPPED]]
    if len(skipped) > MOST_SKIPPED:
        items.append(f"and {len(skipped) - MOST_SKIPPED} more")
    title = f"{plural(len(skipped), 'path')} skipped, and why"
    return html.details(title, html.listing(items), opened=len(skipped) <= 5)


def _failed(comparison: Comparison, numbers: dict[int, int]) -> str:
    """Links to the runs in which something failed."""
    found = [
        (numbers[id(run)], f"{method.name}, seed {run.seed}")
        for group in comparison.groups
        for method in group.methods
        for run in (*method.runs, *method.repeats)
        if failures(run.record)
    ]
    if not found:
        return ""
    links = ", ".join(f'<a href="#run-{number}">{html.text(name)}</a>' for number, name in found[:20])
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return f'<p class="notice bad">Something failed in {plural(len(found), "run")}: {links}{more}.</p>\n'


def _limits(drawing: Drawing) -> str:
    """What was left out so that the page stays small."""
    said = []
    if drawing.left_out:
        count = plural(drawing.left_out, "figure")
        said.append(f"{count} of the later groups were not drawn; their tables are whole.")
    if drawing.album.left_out:
        count = plural(drawing.album.left_out, "picture")
        said.append(f"{count} were too big to embed; they lie in the runs’ folders.")
    if not said:
        return ""
    return f'<p class="note">{html.text(" ".join(said))} Report fewer runs at a time to see them.</p>\n'
