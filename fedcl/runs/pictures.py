"""Pictures beside the record: who holds which classes, and what every client's summary looks like.

Figures are values: no pyplot, no global state. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedcl.core.types import Summary

MAX_CLIENTS, MAX_CLASSES, MAX_IMAGES = 12, 20, 10  # of one picture of summaries; what is left out is said
PAGE = 13.3  # inches that panels side by side may take: twelve narrow ones
ROOMY = 2.0  # inches of a panel above which its words may be large
NUMBERED = 20  # a table of at most so many rows and columns has its numbers written in


def save(figure: Figure, path: Path) -> None:
    """Write a figure without dates or random names; the folder must exist."""
    FigureCanvasAgg(figure)
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[path.suffix.removeprefix(".")]
    with matplotlib.rc_context({"svg.hashsalt": "fedcl", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata=nothing)


def draw_partition(counts_KC: np.ndarray, class_names: Sequence[str], path: Path) -> list[Path]:
    """A heat map of class counts, one row a client, with the size of every share beside it.

    Args:
        counts_KC: int [clients, classes].
        path: without suffix; `path.png` and `path.svg` are written.
    """
    clients, classes = counts_KC.shape
    small = max(clients, classes) <= NUMBERED
    height = float(np.clip(0.26 * clients + 1.2, 2.6, 9))
    figure = Figure(figsize=(float(np.clip(0.42 * classes + 2.6, 5.5, 13)), height), layout="constrained")
    grid, bars = figure.subplots(1, 2, width_ratios=[5, 1], sharey=True)
    scale = PowerNorm(0.5, vmin=0, vmax=max(int(counts_KC.max()), 1))  # small counts stay visible
    image = grid.imshow(counts_KC, aspect="auto", cmap="Blues", norm=scale, interpolation="nearest")
    if small:
        for (client, label), count in np.ndenumerate(counts_KC):
            if count:
                shade = "white" if scale(count) > 0.6 else "black"
                grid.text(label, client, str(count), ha="center", va="center", fontsize=7, color=shade)
        grid.set_xticks(range(classes), class_names, fontsize=8, rotation=0 if max(map(len, class_names)) < 4 else 45)
    else:
        grid.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=[grid, bars], label="examples of a class", fraction=0.04, aspect=40)
    grid.yaxis.set_major_locator(MaxNLocator(min(clients, 20), integer=True))
    grid.set(xlabel="class", ylabel="client")
    totals = counts_KC.sum(1)
    bars.barh(range(clients), totals, height=0.8, color="#6b8cae")
    bars.set(xlabel="examples", xlim=(0, max(1, totals.max()) * 1.05))
    bars.xaxis.set_major_locator(MaxNLocator(2))
    bars.tick_params(left=False, labelleft=False)
    bars.spines[["top", "right"]].set_visible(False)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    for target in paths:
        save(figure, target)
    return paths


def labels_of(summary: Summary) -> torch.Tensor:
    """int64 [M]: the class of every decoded image, the likeliest where labels are soft."""
    targets = summary.decoder.expand(summary.targets).cpu()
    return targets.argmax(1) if summary.is_soft else targets


def mosaic(summary: Summary, classes: Sequence[int], across: int = MAX_IMAGES) -> np.ndarray:
    """Images of a summary as one float array [H', W', 3] in [0, 1]: a row of `across` a class, NaN where none is."""
    images, _ = summary.decode()
    images = summary.inputs.invert(images.detach().cpu()).clamp(0, 1)
    labels = labels_of(summary)
    channels, height, width = summary.inputs.shape
    tile_h, tile_w = height + 1, width + 1
    canvas = torch.full((len(classes) * tile_h - 1, across * tile_w - 1, 3), float("nan"))
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:across]):
            pixels = (image[:1] if channels not in (1, 3) else image).expand(3, -1, -1)
            canvas[row * tile_h : row * tile_h + height, column * tile_w : column * tile_w + width] = pixels.permute(
                1, 2, 0
            )
    return canvas.numpy()


def draw_summaries(summaries: Sequence[Summary], path: Path, class_names: Sequence[str] | None = None) -> Path | None:
    """One panel a summary: a row a class, a column an image, in the units of pixels.

    Args:
        summaries: as the server decoded them, in order of client.
        path: a .png; its folder must exist. Nothing is drawn of a table's rows.
    """
    if not summaries[0].inputs.is_image:
        return None
    shown = list(summaries[:MAX_CLIENTS])
    names = list(class_names or map(str, range(summaries[0].num_classes)))
    classes = range(min(len(names), MAX_CLASSES))
    _, height, width = shown[0].inputs.shape
    most = max(int(labels_of(summary).bincount(minlength=1).max()) for summary in shown)
    across = max(1, min(most, MAX_IMAGES))
    tile = 0.29 if across > 3 else 0.4  # inches of an image
    tall = tile * len(classes) * (height + 1) / (width + 1) + 0.3
    panel = max(tile * across + 0.3, 1.1)  # its title needs some
    columns = min(len(shown), int(PAGE // panel))
    rows = -(-len(shown) // columns)
    inches = max(columns * panel + 0.4, 3.3)  # and so does the whole
    figure = Figure(figsize=(inches, rows * tall + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, summary in zip(panels, shown, strict=False):
        alone = len(summaries) == 1
        draw_panel(axes, summary, list(classes), names, across, alone=alone, roomy=panel >= ROOMY)
    limits = [
        f"the first {len(shown)} of {len(summaries)} clients" if len(shown) < len(summaries) else "",
        f"the first {len(classes)} of {len(names)} classes" if len(classes) < len(names) else "",
        f"at most {MAX_IMAGES} images a class" if most > MAX_IMAGES else "",
    ]
    title = f"Summaries by {shown[0].method}, one row a class"
    if any(limits):
        title += f"; shown: {', '.join(filter(None, limits))}"
    figure.suptitle(title, fontsize=11 if inches > 6 else 9, wrap=True)
    save(figure, path)
    return path


def draw_panel(
    axes: Axes,
    summary: Summary,
    classes: list[int],
    names: list[str],
    across: int,
    *,
    alone: bool = False,
    roomy: bool = False,
) -> None:
    """One summary; its words are larger where the panel is wide enough for them."""
    height = summary.inputs.shape[1]
    axes.set_facecolor("#eef1f4")  # shows through where a client has no image
    axes.imshow(mosaic(summary, classes, across), interpolation="nearest")
    axes.set_yticks([row * (height + 1) + (height - 1) / 2 for row in range(len(classes))], [names[c] for c in classes])
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=8 if roomy else 6)
    axes.spines[:].set_visible(False)
    whose = "" if alone else f"client {summary.origin.client}: "
    axes.set_title(f"{whose}{summary.num_images} images", fontsize=10 if roomy else 7)
