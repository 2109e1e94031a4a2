"""Progress display: live bars on a terminal, a line now and then elsewhere, or nothing.

Everything here goes to stderr, and nothing here can change a result.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fedcl.core.progress import SILENT, Progress

PAUSE = 10.0  # seconds between two plain lines about the same work


@contextmanager
def make_progress(quiet: bool = False) -> Iterator[Progress]:
    """The listener that fits where stderr goes."""
    console = Console(stderr=True)
    if quiet:
        yield SILENT
    elif console.is_terminal:
        with live_bars(console) as bars:
            yield Live(bars)
    else:
        yield Plain(sys.stderr)


def live_bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:>10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}", style="dim"),
        console=console,
        transient=True,
        refresh_per_second=5,
    )


def show_bytes(size: float) -> str:
    """A size with three digits and a decimal unit: 812 B, 43.1 kB, 25.9 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def show_seconds(seconds: float) -> str:
    """A duration: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_figures(figures: Mapping[str, float]) -> str:
    """Figures beside a bar: "loss 0.123  accuracy 0.973  up 43.1 kB" (a name in ..._bytes is a size)."""
    shown = []
    for name, value in figures.items():
        size = name.endswith("bytes")
        label = (name.removesuffix("bytes").rstrip("_") or "bytes").replace("_", " ")
        shown.append(f"{label} {show_bytes(value) if size else f'{value:.3g}'}")
    return "  ".join(shown)


class Live(Progress):
    """Bars on a terminal, one a running task, the outermost on top."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def begin(self, task: str, total: int) -> None:
        self.end(task)
        self.tasks[task] = self.bars.add_task(task, total=total, figures="")

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task in self.tasks:
            self.bars.advance(self.tasks[task], amount)
            if figures:
                self.bars.update(self.tasks[task], figures=show_figures(figures))

    def end(self, task: str) -> None:
        if task in self.tasks:
            self.bars.remove_task(self.tasks.pop(task))

    def say(self, line: str) -> None:
        self.bars.console.print(line, markup=False, highlight=False)


@dataclass
class Work:
    """A task under way."""

    total: int
    started: float
    done: int = 0
    figures: str = ""


class Plain(Progress):
    """Lines for a log file: what is said, and every PAUSE seconds where the work stands."""

    def __init__(self, stream: TextIO, pause: float = PAUSE) -> None:
        self.stream, self.pause = stream, pause
        self.tasks: dict[str, Work] = {}  # outermost first
        self.spoken = time.monotonic()

    def begin(self, task: str, total: int) -> None:
        self.end(task)
        now = time.monotonic()
        if not self.tasks:
            self.spoken = now
        self.tasks[task] = Work(total, now)

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task not in self.tasks:
            return
        self.tasks[task].done += amount
        if time.monotonic() - self.spoken < self.pause:
            return
        if figures:
            self.tasks[task].figures = show_figures(figures)
        parts = [f"{name} {work.done}/{work.total}  {work.figures}".rstrip() for name, work in self.tasks.items()]
        self.say("  ".join(parts) + self.remaining())

    def remaining(self) -> str:
        """Time left of the outermost task of which some is done, if the rest goes as that part did."""
        for name, work in self.tasks.items():
            if 0 < work.done < work.total:
                left = (time.monotonic() - work.started) * (work.total - work.done) / work.done
                return f"  {name}: about {show_seconds(left)} left"
        return ""

    def end(self, task: str) -> None:
        self.tasks.pop(task, None)

    def say(self, line: str) -> None:
        self.spoken = time.monotonic()
        print(line, file=self.stream, flush=True)


def result_line(record: Mapping[str, Any], out: Path) -> str:
    """Result of a run and its folder in one line; parts that a verb lacks are left out."""
    parts = []
    if "accuracy" in record:
        parts.append(f"accuracy {record['accuracy']['last']:.4f}")
    found = record.get("distillation", {})
    if "accuracy" in found:
        values = {"": found} | found.get("controls", {})
        parts.append("  ".join(f"{n} {v['accuracy']['mean']:.4f}".strip() for n, v in values.items()))
        parts[-1] = f"accuracy {parts[-1]}  {show_bytes(found['bytes'])}"
    if "communication" in record:
        cost = record["communication"]
        parts += [f"{way} {show_bytes(cost[way]['wire_bytes'])}" for way in ("up", "down") if way in cost]
    if "seconds" in record:
        parts.append(show_seconds(record["seconds"]))
    if "stopped" in record:
        parts.append(f"stopped by {record['stopped']['by']} after round {record['rounds'][-1]['round'] + 1}")
    return "  ".join([*parts, str(out)])
