"""The part of the page about single runs: command, settings that differ, versions, and what failed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from fedcl.report import formats, html
from fedcl.report.compare import Comparison, Group, accuracy
from fedcl.report.records import Run
from fedcl.report.settings import differences, flat

KNOWN = {"verb", "finished", "config", "seed", "versions", "seconds", "scenario", "accuracy", "rounds"} | {
    "communication",
    "matrix",
    "continual",
    "memory",
    "distillation",
    "command",
}
MOST_DIFFERENCES = 60


def runs_section(comparison: Comparison, numbers: Mapping[int, int]) -> str:
    """Every run, closed until asked for.

    Args:
        numbers: the id of a run object to its number on the page.
    """
    parts = ['<section id="runs">\n<h2>Runs</h2>\n']
    for number, group in enumerate(comparison.groups, 1):
        parts.append(f"<h3>Group {number}</h3>\n" if len(comparison.groups) > 1 else "")
        parts.append(_group(group, numbers))
    return "".join(parts) + "</section>\n"


def _group(group: Group, numbers: Mapping[int, int]) -> str:
    own = differences([flat(run.config) for run in group.runs])
    changes = {id(run): difference for run, difference in zip(group.runs, own, strict=True)}
    parts = []
    for method in group.methods:
        for run in (*method.runs, *method.repeats):
            repeat = " (repeats a seed; in no mean)" if any(run is one for one in method.repeats) else ""
            failed = failures(run.record)
            alarm = f", {formats.plural(len(failed), 'failure')}" if failed else ""
            early = f", {stopped(run.record)}" if stopped(run.record) else ""
            title = f"{method.name}, seed {run.seed}: {formats.percent(accuracy(run))}{repeat}{early}{alarm}"
            body = _run(run, failed, changes[id(run)])
            parts.append(html.details(title, body, ident=f"run-{numbers[id(run)]}"))
    return "".join(parts)


def _run(run: Run, failed: list[str], changes: Mapping[str, str]) -> str:
    command = run.record.get("command")
    line = shlex.join(map(str, command)) if isinstance(command, list) else "the record does not say"
    said = [(key, value.strip('"')) for key, value in changes.items() if key != "out"]
    shown = said[:MOST_DIFFERENCES]
    more = len(said) - len(shown)
    facts = [("folder", str(run.path)), ("seconds", formats.number(run.record["seconds"]))]
    facts += [("end", stopped(run.record))] if stopped(run.record) else []
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in run.record["versions"].items()))]
    facts += [
        (name.replace("_", " "), str(value)[:300])
        for name, value in run.record.items()
        if name not in KNOWN and isinstance(value, str | int | float)
    ]
    parts = [f"<pre><code>{html.text(line)}</code></pre>\n", html.pairs(facts)]
    if failed:
        parts.append(f'<div class="notice bad"><p>What failed</p>{html.listing(failed)}</div>\n')
    if shown:
        parts.append("<h4>Settings that differ from other runs of the group</h4>\n" + html.pairs(shown))
        parts.append(f'<p class="note">and {more} more, in the record</p>' if more else "")
    return "".join(parts)


def stopped(record: Mapping) -> str:
    """Which budget ended the run before its last round, in words; empty where none did."""
    found = record.get("stopped")
    if not isinstance(found, Mapping):
        return ""
    return f"stopped early by {found.get('by', '?')}={found.get('limit', '?')} at {found.get('value', '?')}"


def failures(record: Mapping) -> list[str]:
    """What failed in a run, one plain sentence each kind, with the rounds in which it happened."""
    places: dict[tuple[str, str], list[int]] = {}
    for row in record.get("rounds", []):
        for failure in row.get("failed", []):
            key = (
                str(failure.get("client", "?")),
                " ".join(str(failure.get("reason", "no reason given")).split()),
            )
            places.setdefault(key, []).append(row["round"] + 1)
    found = [
        f"Client {client} gave no usable answer in {_ranges(rounds)}: {reason[:300]}"
        for (client, reason), rounds in places.items()
    ]
    return found


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as "rounds 1-3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    text = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)
    return f"round {text}" if text.isdigit() else f"rounds {text}"
