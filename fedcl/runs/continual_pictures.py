"""Pictures of a continual run: accuracy step by step, the matrix, and what is in the buffer.

Steps are counted from 0 in records and from 1 in pictures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fedcl.core.types import Summary
from fedcl.distill.parameterizations.pixels import DECODER
from fedcl.memory.buffer import Buffer
from fedcl.runs.pictures import labels_of, picture, show_classes, write_numbers

ACROSS, DOWN = 12, 20  # images a class, and classes, of the picture of the buffer


def draw_continual(record: Mapping[str, Any], buffer: Buffer | None, out: Path, class_names: Sequence[str]) -> None:
    """`curve.png`, `matrix.png` and, where images are kept, `buffer.png` in `out`."""
    matrix = np.array(record["matrix"], dtype=float)
    draw_curve(matrix, np.array(record["scenario"]["first_steps"]), out / "curve.png")
    draw_matrix(matrix, record["scenario"]["groups"], out / "matrix.png")
    if buffer is not None and len(buffer) and len(buffer.blocks[0].meta["shape"]) == 3:
        draw_buffer(buffer, out / "buffer.png", class_names)


def draw_curve(matrix: np.ndarray, first: np.ndarray, path: Path) -> None:
    """Mean accuracy on the groups seen, and each group's own line from when it was first seen."""
    steps = np.flatnonzero(~np.isnan(matrix).all(1))
    with picture(path, 6, 3.6) as axes:
        for group in range(matrix.shape[1]):
            after = steps[steps >= first[group]]
            axes.plot(after + 1, matrix[after, group], color="#b8c4d0", linewidth=1)
        means = [matrix[step, first <= step].mean() if (first <= step).any() else np.nan for step in steps]
        axes.plot(steps + 1, means, color="#1f5a99", marker="o", markersize=4, linewidth=2, label="mean of groups seen")
        axes.plot([], [], color="#b8c4d0", label="one group")
        axes.set(xlabel="step", ylabel="accuracy", ylim=(-0.02, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)


def draw_matrix(matrix: np.ndarray, groups: Sequence[str], path: Path) -> None:
    """Accuracy after each evaluated step (rows) on each group (columns)."""
    steps = np.flatnonzero(~np.isnan(matrix).all(1))
    shown = matrix[steps]
    size = np.clip(0.62 * len(groups) + 1.8, 3, 14), np.clip(0.42 * len(steps) + 1.4, 2.4, 10)
    with picture(path, float(size[0]), float(size[1])) as axes:
        image = axes.imshow(shown, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
        if shown.size <= 400:
            write_numbers(axes, shown, shown, ".2f")
        if len(groups) <= 20:
            axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right", fontsize=8)
        if len(steps) <= 20:
            axes.set_yticks(range(len(steps)), [str(step + 1) for step in steps])
        axes.set(xlabel="tested on", ylabel="after step")
        axes.figure.colorbar(image, ax=axes, label="accuracy", fraction=0.05)


def draw_buffer(buffer: Buffer, path: Path, class_names: Sequence[str]) -> None:
    """Images as they are replayed: a row a class."""
    memory = memory_of(buffer)
    labels = labels_of(memory)
    classes: list[int] = labels.unique().tolist()[:DOWN]
    across = min(ACROSS, int(labels.bincount().max()))
    with picture(path, 0.5 * across + 1.2, 0.5 * len(classes) + 0.6) as axes:
        show_classes(axes, memory, classes, class_names, across)
        axes.set_title(f"{len(labels):,} images in {buffer.num_bytes:,} bytes", fontsize=8)


def memory_of(buffer: Buffer) -> Summary:
    """A learner's memory as one summary of pixels."""
    images, targets = buffer.replay()
    first = buffer.blocks[0]
    return Summary(
        arrays={"images": images},
        targets=targets,
        inputs=first.inputs,
        decoder=DECODER(),
        method="memory",
        num_classes=first.meta["num_classes"],
    )
