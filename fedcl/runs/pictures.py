"""Pictures beside the record: who holds which classes, and what every client's summary looks like.

Figures are values: no pyplot, no global state. The same input gives the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Axes]:
    """Axes of a figure of so many inches, which is written when the block is done."""
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure.subplots()
    save(figure, path)


def write_numbers(axes: Axes, table: np.ndarray, shades: np.ndarray, form: str) -> None:
    """Numbers in the cells of a heat map, white where the shade is dark; `form` formats one, NaN has none."""
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            color = "white" if shades[row, column] > 0.6 else "black"
            axes.text(column, row, f"{value:{form}}", ha="center", va="center", fontsize=7, color=color)


def draw_partition(counts_KC: np.ndarray, class_names: Sequence[str], path: Path) -> list[Path]:
    """A heat map of class counts, one row a client, with the size of every share beside it.

    Args:
        counts_KC: int [clients, classes].
        path: without suffix; `path.png` and `path.svg` are written.
    """
    clients, classes = counts_KC.shape
    size = np.clip(0.42 * classes + 2.6, 5.5, 13), np.clip(0.26 * clients + 1.2, 2.6, 9)
    figure = Figure(figsize=(float(size[0]), float(size[1])), layout="constrained")
    grid, bars = figure.subplots(1, 2, width_ratios=[5, 1], sharey=True)
    scale = PowerNorm(0.5, vmin=0, vmax=max(int(counts_KC.max()), 1))  # small counts stay visible
    image = grid.imshow(counts_KC, aspect="auto", cmap="Blues", norm=scale, interpolation="nearest")
    if max(clients, classes) <= NUMBERED:
        write_numbers(grid, np.where(counts_KC, counts_KC, np.nan), scale(counts_KC), ".0f")
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
    images, labels = summary.inputs.invert(summary.decode()[0].detach().cpu()).clamp(0, 1), labels_of(summary)
    if images.shape[1] not in (1, 3):
        images = images[:, :1]
    *_, height, width = images.shape
    tiles = torch.full((len(classes), across, 3, height + 1, width + 1), float("nan"))
    for row, label in enumerate(classes):
        found = images[labels == label][:across]
        tiles[row, : len(found), :, :height, :width] = found
    canvas = tiles.permute(0, 3, 1, 4, 2).reshape(len(classes) * (height + 1), across * (width + 1), 3)
    return canvas[:-1, :-1].numpy()


def show_classes(axes: Axes, summary: Summary, classes: Sequence[int], names: Sequence[str], across: int) -> None:
    """The mosaic of a summary with the names of its classes beside it."""
    height = summary.inputs.shape[1]
    axes.set_facecolor("#eef1f4")  # shows through where there is no image
    axes.imshow(mosaic(summary, classes, across), interpolation="nearest")
    axes.set_yticks([row * (height + 1) + (height - 1) / 2 for row in range(len(classes))], [names[c] for c in classes])
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


def draw_summaries(summaries: Sequence[Summary], path: Path, class_names: Sequence[str] | None = None) -> Path | None:
    """One panel a summary: a row a class, a column an image, in the units of pixels.

    Args:
        summaries: as the server decoded them, in order of client.
        path: a .png; its folder must exist. Nothing is drawn of a table's rows.
    """
    if not summaries[0].inputs.is_image:
        return None
    shown = summaries[:MAX_CLIENTS]
    names = list(class_names or map(str, range(summaries[0].num_classes)))
    classes = range(min(len(names), MAX_CLASSES))
    _, height, width = shown[0].inputs.shape
    most = max(int(labels_of(summary).bincount(minlength=1).max()) for summary in shown)
    across = max(1, min(most, MAX_IMAGES))
    tile = 0.29 if across > 3 else 0.4  # inches of an image
    tall = tile * len(classes) * (height + 1) / (width + 1) + 0.3
    panel = max(tile * across + 0.3, 1.1)  # its title needs some
    roomy = panel >= ROOMY
    columns = min(len(shown), int(PAGE // panel))
    rows = -(-len(shown) // columns)
    inches = max(columns * panel + 0.4, 3.3)  # and so does the whole
    figure = Figure(figsize=(inches, rows * tall + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, summary in zip(panels, shown, strict=False):
        show_classes(axes, summary, classes, names, across)
        axes.tick_params(axis="y", length=0, labelsize=8 if roomy else 6)
        whose = "" if len(summaries) == 1 else f"client {summary.origin.client}: "
        axes.set_title(f"{whose}{summary.num_images} images", fontsize=10 if roomy else 7)
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
