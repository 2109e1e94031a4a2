"""Figures: what stands at the axes can be read, and what is drawn can be seen."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from fedcl.report import compare, load_runs
from fedcl.report.figures import (
    SERIES,
    accuracy_against_bytes,
    accuracy_against_ipc,
    accuracy_against_rounds,
    accuracy_over_steps,
)
from fedcl.report.series import over_sizes, seen_so_far
from fedcl.report.ticks import log_ticks, percents, thin_out


def group_of(make):
    (group,) = compare(load_runs(make.root)[0]).groups
    return group


def texts(figure, axis):
    """Labels of an axis with their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [(tick.label1.get_text(), tick.label1.get_window_extent(canvas.get_renderer())) for tick in ticks]


@pytest.mark.parametrize(("spread", "most"), [(0.002, 2e5), (0.01, 2.4e5), (0.02, 1e6), (0.3, 1e8)], ids=str)
def test_labels_tell_ticks_apart_and_do_not_touch(make, spread, most):
    make.save("a", make.federated("fedavg", curve=((100_000, 0.99 - spread), (round(most) - 100_000, 0.99))))
    make.save("b", make.federated("one_shot", curve=((190_000, 0.985),)))
    for draw in (accuracy_against_bytes, accuracy_against_rounds):
        figure = draw(group_of(make))
        for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
            found = texts(figure, axis)
            assert len(found) >= 2
            assert len({text for text, _ in found}) == len(found)
            for (_, one), (_, other) in itertools.pairwise(found):
                assert one.x1 + 3 < other.x0 or one.y1 < other.y0
            assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for _, box in found)


def test_percents_have_as_many_digits_as_it_takes():
    assert percents([0.97, 0.975, 0.98]) == ["97.0%", "97.5%", "98.0%"]
    assert percents([0.5, 0.6]) == ["50%", "60%"]
    assert percents([0.9925, 0.995]) == ["99.25%", "99.50%"]


def test_log_ticks_are_round_and_apart():
    assert log_ticks(1e3, 1e7) == [1e3, 1e4, 1e5, 1e6, 1e7]
    assert log_ticks(900, 11_000) == pytest.approx([1000, 2000, 5000, 10_000])
    for low, ratio in itertools.product((190, 1e3, 36_000, 6e6), (1.1, 1.3, 2, 5, 30, 1e3, 1e9)):
        found = log_ticks(low, low * ratio)
        assert 2 <= len(found) <= 7
        assert found == thin_out(found, low, low * ratio)


def test_a_curve_beneath_another_is_seen(make):
    curve = tuple((100, accuracy) for accuracy in np.linspace(0.3, 0.9, 20))
    make.save("a", make.federated("fedavg", curve=curve))
    make.save("b", make.federated("fedprox", curve=curve))
    make.save("c", make.federated("feddm", curve=curve, **{"config.clients_per_round": None}))
    figure = accuracy_against_rounds(group_of(make))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()  # not the legend
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3] / 255
    inside = pixels[round(figure.bbox.height - box.y1) : round(figure.bbox.height - box.y0)]
    for colour in SERIES[:3]:
        columns = (np.abs(inside - to_rgb(colour)).max(2) < 0.25).any(0)
        seen = np.flatnonzero(columns)
        assert columns[seen[0] : seen[-1]].mean() > 0.4, colour  # between the markers, too


def test_steps_are_counted_from_one(make):
    make.save("a", make.continual(matrix=((0.9, None), (0.5, 0.7))))
    figure = accuracy_over_steps(group_of(make))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2]
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([0.9, 0.6])


def test_means_are_over_the_groups_seen_by_then(make):
    make.save("a", make.continual(matrix=((None, None), (0.9, 0.1)), **{"scenario.first_steps": [0, 0]}))
    make.save("b", make.continual(seed=1, matrix=((0.9, 0.1), (0.5, 0.7)), **{"scenario.first_steps": [0, 0]}))
    found = [seen_so_far(run) for run in group_of(make).methods[0].runs]
    assert found == [[None, pytest.approx(0.5)], [pytest.approx(0.5), pytest.approx(0.6)]]


def test_a_published_number_has_a_line_of_its_own(make):
    make.save("a", make.distill(ipc=1, **{"config.distiller.published": {"digits": {"1": 0.9}}}))
    make.save("b", make.distill(ipc=10))
    group = group_of(make)
    names = [name for name, _ in over_sizes(group, "ipc")]
    assert names == ["dm", "dm, published, another protocol", "control: kmeans", "control: random"]
    figure = accuracy_against_ipc(group)
    assert [text for text, _ in texts(figure, figure.axes[0].xaxis)] == ["1", "10"]
