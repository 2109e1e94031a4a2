"""Real batches: which rows, of whom, in what order."""

from __future__ import annotations

import torch

from fedcl.core.inputs import Normalization
from fedcl.distill.groups import RealBatches, Segments

UNIT = Normalization(mean=(0.0,), std=(1.0,))
CPU = torch.device("cpu")


def test_segments_are_the_classes_that_are_there(new_set):
    segments = Segments([new_set({3: 2, 1: 4}), new_set({}), new_set({1: 1}, client=2)], CPU)
    assert segments.label_S.tolist() == [1, 3, 1]
    assert segments.set_S.tolist() == [0, 0, 2]
    assert segments.count_S.tolist() == [4, 2, 1]
    assert segments.offset_S.tolist() == [0, 4, 6]


def test_every_row_belongs_to_its_segment(new_set):
    sets = [new_set({0: 3, 1: 30}), new_set({1: 5, 2: 40, 3: 1}, client=1)]
    segments = Segments(sets, CPU)
    batches = RealBatches(segments, 5, key=0, spec=UNIT)
    assert batches.sizes == (3, 5, 5, 5, 1)
    assert torch.equal(batches.segment_N, torch.arange(5).repeat_interleave(torch.tensor(batches.sizes)))
    for step in range(3):
        rows = batches.rows(step)
        first = segments.offset_S[batches.segment_N]
        assert ((rows >= first) & (rows < first + segments.count_S[batches.segment_N])).all()
        side = batches.at(step)
        assert side.counts == batches.sizes
        assert torch.equal(side.targets, segments.label_S[side.segment_N])
        torch.testing.assert_close(side.inputs * 255, segments.inputs[rows].float())


def test_small_classes_are_given_whole_and_large_ones_drawn(new_set):
    segments = Segments([new_set({0: 3, 1: 30})], CPU)
    batches = RealBatches(segments, 5, key=0, spec=UNIT)
    drawn = [batches.rows(step) for step in range(400)]
    assert all(rows[:3].tolist() == [0, 1, 2] for rows in drawn)
    counts = torch.bincount(torch.cat([rows[3:] for rows in drawn]) - 3, minlength=30)
    # 2000 uniform draws over 30: 66.7 each, standard deviation 8; five of them
    assert counts.sum() == 2000
    assert (counts - 2000 / 30).abs().max() < 41


def test_what_a_set_draws_does_not_depend_on_its_company(new_set):
    sets = [new_set({0: 30, 1: 3}), new_set({0: 30}, client=1)]
    together = RealBatches(Segments(sets, CPU), 5, key=0, spec=UNIT)
    images = together.at(4).inputs
    alone = [RealBatches(Segments([data], CPU), 5, key=0, spec=UNIT).at(4).inputs for data in sets]
    assert torch.equal(images, torch.cat(alone))


def test_steps_draw_anew(new_set):
    batches = RealBatches(Segments([new_set({0: 30})], CPU), 5, key=0, spec=UNIT)
    assert not torch.equal(batches.rows(0), batches.rows(1))
    assert torch.equal(batches.rows(1), batches.rows(1))
