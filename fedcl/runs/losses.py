"""Losses of a distillation, taken from its progress, and their picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fedcl.core.progress import Progress, Several
from fedcl.runs.pictures import picture

EVERY = 50  # steps between two points of the curve; others are heard and not kept


class LossListener(Several):
    """Passes everything on, and keeps (step, loss) of "distilling"."""

    def __init__(self, to: Progress) -> None:
        super().__init__(to)
        self.points: list[tuple[int, float]] = []
        self.step, self.total = 0, 0

    def begin(self, task: str, total: int) -> None:
        if task == "distilling":
            self.step, self.total = 0, total
        super().begin(task, total)

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task == "distilling":
            self.step += amount
            if "loss" in figures and (self.step == self.total or (self.step - 1) % EVERY == 0):
                self.points.append((self.step, figures["loss"]))
        super().advance(task, amount, **figures)


def draw_losses(points: Sequence[tuple[int, float]], path: Path) -> None:
    """Loss against steps, on a logarithmic axis where all losses are positive."""
    with picture(path, 5.5, 3.2) as axes:
        axes.plot(*zip(*points, strict=True), color="#6b8cae")
        if all(loss > 0 for _, loss in points):
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="step", ylabel="loss")
        axes.spines[["top", "right"]].set_visible(False)
