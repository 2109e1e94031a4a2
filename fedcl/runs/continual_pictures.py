"""Pictures of a continual run: accuracy step by step, the matrix, and what is in the buffer.

Steps are counted from 0 in records and from 1 in pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedcl.distill.blobs import decode
from fedcl.memory.buffer import Buffer
from fedcl.runs.pictures import save

ACROSS, DOWN = 12, 20  # images a class, and classes, of the picture of the buffer


def draw_continual(
    record: Mapping[str, Any], buffer: Buffer | None, out: Path, class_names: Sequence[str]
) -> list[Path]:
    """`curve.png`, `matrix.png` and, where images are kept, `buffer.png` in `out`."""
    matrix = np.array(record["matrix"], dtype=float)
    first = np.array(record["scenario"]["first_steps"])
    paths = [draw_curve(matrix, first, out / "curve.png")]
    paths.append(draw_matrix(matrix, record["scenario"]["groups"], out / "matrix.png"))
    if buffer is not None and len(buffer) and len(buffer.blocks[0].meta["shape"]) == 3:
        paths.append(draw_buffer(buffer, out / "buffer.png", class_names))
    return paths


def draw_curve(matrix: np.ndarray, first: np.ndarray, path: Path) -> Path:
    """Mean accuracy on the groups seen, and each group's own line from when it was first seen."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = np.flatnonzero(~np.isnan(matrix).all(1))
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
    save(figure, path)
    return path


def draw_matrix(matrix: np.ndarray, groups: Sequence[str], path: Path) -> Path:
    """Accuracy after each evaluated step (rows) on each group (columns)."""
    steps = np.flatnonzero(~np.isnan(matrix).all(1))
    shown = matrix[steps]
    size = (np.clip(0.62 * len(groups) + 1.8, 3, 14), np.clip(0.42 * len(steps) + 1.4, 2.4, 10))
    figure = Figure(figsize=(float(size[0]), float(size[1])), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shown, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
    if shown.size <= 400:
        for (row, column), value in np.ndenumerate(shown):
            if not np.isnan(value):
                shade = "white" if value > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
    if len(groups) <= 20:
        axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right", fontsize=8)
    if len(steps) <= 20:
        axes.set_yticks(range(len(steps)), [str(step + 1) for step in steps])
    axes.set(xlabel="tested on", ylabel="after step")
    figure.colorbar(image, ax=axes, label="accuracy", fraction=0.05)
    save(figure, path)
    return path


def draw_buffer(buffer: Buffer, path: Path, class_names: Sequence[str]) -> Path:
    """Images as they are replayed: a row a class."""
    images, targets = buffer.replay()
    images = decode(buffer.blocks[0]).inputs.invert(images.detach()).clamp(0, 1)
    labels = targets.argmax(1) if targets.is_floating_point() else targets
    classes: list[int] = labels.unique().tolist()[:DOWN]
    across = min(ACROSS, int(labels.bincount().max()))
    channels, height, width = images.shape[1:]
    canvas = torch.full((len(classes) * (height + 1) - 1, across * (width + 1) - 1, 3), float("nan"))
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:across]):
            pixels = (image[:1] if channels not in (1, 3) else image).expand(3, -1, -1).permute(1, 2, 0)
            top, left = row * (height + 1), column * (width + 1)
            canvas[top : top + height, left : left + width] = pixels
    figure = Figure(figsize=(0.5 * across + 1.2, 0.5 * len(classes) + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#eef1f4")
    axes.imshow(canvas.numpy(), interpolation="nearest")
    middles = [row * (height + 1) + (height - 1) / 2 for row in range(len(classes))]
    names: list[str] = [str(class_names[label]) for label in classes]
    axes.set_yticks(middles, names)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(labels):,} images in {buffer.num_bytes:,} bytes", fontsize=8)
    save(figure, path)
    return path
