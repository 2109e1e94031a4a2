"""Pictures: the right files, the right pixels, the same bytes each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import ArraySpec, Decoder, Origin, Summary
from fedcl.runs.continual_pictures import draw_curve, draw_matrix
from fedcl.runs.losses import draw_losses
from fedcl.runs.pictures import MAX_IMAGES, draw_partition, draw_summaries, mosaic


@dataclass(frozen=True, kw_only=True)
class Plain(Decoder):
    name = "plain"
    arrays: ClassVar = {"images": ArraySpec(role="row", coding="image")}

    def decode(self, arrays, shape):
        return arrays["images"]


def summary(labels, client=0, channels=1, classes=3):
    """Image n is constant n / 10 in pixels; normalised with mean 0.5 and std 0.25."""
    pixels = torch.arange(len(labels)).float().div(10).view(-1, 1, 1, 1).expand(-1, channels, 2, 2)
    return Summary(
        arrays={"images": (pixels - 0.5) / 0.25},
        targets=torch.tensor(labels),
        num_source_C=torch.ones(classes, dtype=torch.int64),
        inputs=InputSpec(
            shape=(channels, 2, 2), preprocess=Normalization(mean=(0.5,) * channels, std=(0.25,) * channels)
        ),
        decoder=Plain(),
        method="dm",
        origin=Origin(client=client),
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mosaic_puts_images_in_the_row_of_their_class(channels):
    canvas = mosaic(summary([2, 0, 2], channels=channels), [0, 1, 2])
    assert canvas.shape == (3 * 3 - 1, MAX_IMAGES * 3 - 1, 3)
    assert canvas[0, 0] == pytest.approx([0.1] * 3, abs=1e-6)  # image 1, of class 0
    assert canvas[6, 0] == pytest.approx([0.0] * 3, abs=1e-6)  # image 0, of class 2
    assert canvas[6, 3] == pytest.approx([0.2] * 3, abs=1e-6)  # image 2, of class 2
    assert np.isnan(canvas[3:5]).all()  # nothing of class 1


def test_pixels_are_clamped():
    bright = summary([0])
    bright.arrays["images"].add_(1000)
    assert mosaic(bright, [0])[0, 0].max() == 1


def draw(clients, classes, folder):
    counts = np.arange(clients * classes).reshape(clients, classes)
    return draw_partition(counts, [str(label) for label in range(classes)], folder / "partition")


@pytest.mark.parametrize(("clients", "classes"), [(10, 10), (100, 10), (3, 100), (1, 1)])
def test_partition_is_drawn(clients, classes, tmp_path):
    paths = draw(clients, classes, tmp_path)
    assert [path.name for path in paths] == ["partition.png", "partition.svg"]
    assert imread(paths[0]).std() > 0.01, "not blank"


@pytest.mark.parametrize(("clients", "classes"), [(3, 2), (2, 21)], ids=["with numbers", "with a scale of colours"])
def test_partition_repeats(clients, classes, tmp_path):
    first, second = ([path.read_bytes() for path in draw(clients, classes, tmp_path)] for _ in range(2))
    assert first == second


def test_partition_of_empty_shares(tmp_path):
    draw_partition(np.zeros((2, 3), int), ["a", "b", "c"], tmp_path / "partition")


def test_summaries_are_drawn_and_repeat(tmp_path):
    made = [summary([0, 1, 2, 2], client=client) for client in range(3)]
    first = draw_summaries(made, tmp_path / "summaries.png").read_bytes()
    assert draw_summaries(made, tmp_path / "summaries.png").read_bytes() == first
    assert draw_summaries(made[:2], tmp_path / "two.png").read_bytes() != first


def test_what_is_left_out_is_said(tmp_path, monkeypatch, blank_pictures):
    titles = []
    monkeypatch.setattr("matplotlib.figure.Figure.suptitle", lambda self, text, **_: titles.append(text))
    draw_summaries([summary([0], client=client) for client in range(30)], tmp_path / "many.png")
    draw_summaries([summary([0] * 40, classes=30)], tmp_path / "wide.png")
    draw_summaries([summary([0])], tmp_path / "all.png")
    assert "the first 12 of 30 clients" in titles[0]
    assert "the first 20 of 30 classes" in titles[1]
    assert "at most 10 images a class" in titles[1]
    assert "shown" not in titles[2]


def test_soft_labels_go_to_their_largest_class(tmp_path):
    hard = summary([1, 0])
    soft = Summary(**{**vars(hard), "targets": torch.tensor([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])})
    assert np.array_equal(mosaic(hard, [0, 1, 2]), mosaic(soft, [0, 1, 2]), equal_nan=True)


def test_a_picture_is_as_wide_as_its_fullest_class(tmp_path):
    assert mosaic(summary([0, 0, 0, 1]), [0, 1], across=2).shape == (2 * 3 - 1, 2 * 3 - 1, 3)
    size = {}
    for count in (1, 10, 11):
        made = [summary([0] * count, client=client) for client in range(8)]
        size[count] = imread(draw_summaries(made, tmp_path / f"{count}.png")).shape[:2]
    assert size[1] < size[10] == size[11]  # one row of narrow panels, two of wide ones
    assert size[1][1] < size[10][1]


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when they are saved, with their labels laid out."""
    figures = []

    def keep(self, path, **_):
        self.canvas.draw()
        figures.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    return figures


def labels(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]


def test_pictures_of_a_stream_count_steps_from_one(tmp_path, drawn):
    matrix = np.array([[0.9, np.nan], [np.nan, np.nan], [0.5, 0.7]])  # the second step was not evaluated
    draw_curve(matrix, np.array([0, 2]), tmp_path / "curve.png")
    draw_matrix(matrix, ["classes 0-1", "classes 2-3"], tmp_path / "matrix.png")
    curve, table = (figure.axes[0] for figure in drawn)
    mean = next(line for line in curve.lines if line.get_label() == "mean of groups seen")
    assert mean.get_xdata().tolist() == [1, 3]
    assert mean.get_ydata().tolist() == pytest.approx([0.9, 0.6])
    assert labels(table.yaxis) == ["1", "3"]
    assert labels(table.xaxis) == ["classes 0-1", "classes 2-3"]


@pytest.mark.parametrize("losses", [(7.0, 3.0, 2.0), (6.0, 5.5, 5.2), (900.0, 1.0, 0.002)], ids=str)
def test_an_axis_of_losses_has_plain_numbers(tmp_path, drawn, losses):
    draw_losses(list(enumerate(losses, 1)), tmp_path / "loss.png")
    found = labels(drawn[0].axes[0].yaxis)
    assert len(found) >= 2
    assert len({float(text) for text in found}) == len(found)  # every one a number, and no two alike
