"""Losses of a distillation, taken from its progress, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fedcl.core.progress import Progress
from fedcl.runs.pictures import save

EVERY = 50  # steps between two points of the curve; others are heard and not kept


class LossListener(Progress):
    """Passes everything on, and keeps (step, loss) of "distilling"."""

    def __init__(self, to: Progress) -> None:
        self.to = to
        self.points: list[tuple[int, float]] = []
        self.step, self.total = 0, 0

    def begin(self, task: str, total: int) -> None:
        if task == "distilling":
            self.step, self.total = 0, total
        self.to.begin(task, total)

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task == "distilling":
            self.step += amount
            if "loss" in figures and (self.step == self.total or (self.step - 1) % EVERY == 0):
                self.points.append((self.step, figures["loss"]))
        self.to.advance(task, amount, **figures)

    def end(self, task: str) -> None:
        self.to.end(task)

    def say(self, line: str) -> None:
        self.to.say(line)

    def wrote(self, record: Mapping[str, Any]) -> None:
        self.to.wrote(record)


def draw_losses(points: Sequence[tuple[int, float]], path: Path) -> None:
    """Loss against steps, on a logarithmic axis where all losses are positive."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([step for step, _ in points], [loss for _, loss in points], color="#6b8cae")
    if all(loss > 0 for _, loss in points):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="step", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
