"""Where distilling pays: a heat map of accuracies by clients and images a class, from the runs of a sweep.

    fedcl federated -m experiment=when_distilling_pays
    python scripts/draw_map.py runs/federated/sweeps/when_distilling_pays [--out docs/figures]

Two rows of maps, a column a method: its accuracy minus that of its own start (the same arrays before the first step of
distilling), and minus the best selection of real images at the same bytes, which FedDM with its rounds does not have.
Points are percentage points, means over the seeds that both have. Written: `map_DATASET.svg` and a table of the same
numbers, `map_DATASET.md`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcl.report.records import load_runs
from fedcl.runs.pictures import save, write_numbers

STARTS = {  # method: where its images begin
    "one_shot_dm": "one_shot_random",
    "one_shot_kip": "one_shot_random_mse",
    "one_shot_dm_zoom": "one_shot_random_zoom",
    "one_shot_dsa_zoom": "one_shot_random_zoom",
    "feddm": "feddm_start",
}
SELECTIONS = ("one_shot_random", "one_shot_random_mse", "one_shot_random_zoom", "one_shot_kmeans")
LIMIT = 20.0  # percentage points at which colours end

Cell = tuple[int, int]  # clients, images a class
Accuracies = dict[str, dict[Cell, dict[int, float]]]  # method -> cell -> seed -> percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    chosen = parser.parse_args()
    for dataset, found in accuracies(chosen.folder).items():
        draw(found, dataset, chosen.out / f"map_{dataset}.svg")
        (chosen.out / f"map_{dataset}.md").write_text(table(found))
        print(table(found))


def accuracies(folder: Path) -> dict[str, Accuracies]:
    """Data set -> the accuracies of its finished runs, which are named by their sweep: method=...,seed=..."""
    found: dict[str, Accuracies] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for run in load_runs(folder)[0]:
        typed = dict(text.split("=", 1) for text in run.path.name.split(",") if "=" in text)
        config = run.record["config"]
        cell = config["scenario"]["num_clients"], config["distiller"]["ipc"]
        method = found[config["dataset"]["_target_"].rpartition(".")[2].lower()][typed["method"]]
        method[cell][run.record["seed"]] = 100 * run.record["accuracy"]["last"]
    return found


def best_selection(found: Accuracies, method: str, cell: Cell) -> dict[int, float]:
    """Accuracy by seed of the selection that is best in the mean over seeds, where it costs what the method does."""
    if not method.startswith("one_shot"):
        return {}
    there = [found[name][cell] for name in SELECTIONS if found.get(name, {}).get(cell)]
    return max(there, key=lambda by_seed: mean(by_seed.values()), default={})


def differences(one: dict[int, float], other: dict[int, float]) -> list[float]:
    """Percentage points, of the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def table(found: Accuracies) -> str:
    """Accuracy of every method and cell, and what it is above its start and above the best selection, as Markdown."""
    lines = [
        "| method | clients | images a class | accuracy | minus its start | minus the best selection |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for method in found:
        for cell in sorted(found[method]):
            own = found[method][cell]
            against = [found[STARTS[method]][cell], best_selection(found, method, cell)] if method in STARTS else []
            points = [worded(differences(own, other), sign="+") for other in against] or ["", ""]
            lines.append(
                f"| {method} | {cell[0]} | {cell[1]} | {worded([*own.values()])} | {points[0]} | {points[1]} |"
            )
    return "\n".join(lines) + "\n"


def worded(values: list[float], sign: str = "") -> str:
    """Mean and sample standard deviation."""
    if not values:
        return ""
    return f"{mean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def draw(found: Accuracies, dataset: str, path: Path) -> None:
    methods = [name for name in STARTS if name in found]
    cells = {cell for name in methods for cell in found[name]}
    clients, images = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    figure = Figure(figsize=(2.3 * len(methods) + 1, 5.2), layout="constrained")
    panels = figure.subplots(2, len(methods), squeeze=False, sharex=True, sharey=True)
    for column, method in enumerate(methods):
        for row, against in enumerate((lambda cell, name=method: found[STARTS[name]][cell], None)):
            points = np.full((len(clients), len(images)), np.nan)
            for y, count in enumerate(clients):
                for x, each in enumerate(images):
                    cell = count, each
                    other = against(cell) if against else best_selection(found, method, cell)
                    values = differences(found[method].get(cell, {}), other)
                    points[y, x] = mean(values) if values else np.nan
            shown = heat(panels[row, column], points, clients, images)
        panels[0, column].set_title(method, fontsize=9)
        panels[1, column].set_xlabel("images a class")
    for row, words in enumerate(("minus its own start", "minus the best selection")):
        panels[row, 0].set_ylabel(f"{words}\nclients")
    figure.colorbar(shown, ax=panels, label="percentage points", fraction=0.03)
    figure.suptitle(f"{dataset}: accuracy of distilled images", fontsize=11)
    save(figure, path)


def heat(axes: Axes, points: np.ndarray, clients: list[int], images: list[int]):
    shown = axes.imshow(points, cmap="RdBu", vmin=-LIMIT, vmax=LIMIT, aspect="auto")
    write_numbers(axes, points, np.abs(points) / LIMIT, "+.1f")
    axes.set_xticks(range(len(images)), images)
    axes.set_yticks(range(len(clients)), clients)
    return shown


if __name__ == "__main__":
    main()
