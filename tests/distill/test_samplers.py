"""Which real images a step sees: what is kept between steps is part of the state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import Normalization
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import Matched
from fedcl.distill.groups import RealBatches, Segments
from fedcl.distill.networks.queue import Queue
from fedcl.distill.samplers.clusters import Clusters
from fedcl.models.base import Network

UNIT = Normalization(mean=(0.0,), std=(1.0,))
CPU = torch.device("cpu")


class Pixels(Network):
    """Features are the pixels, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def embed(self, images_NCHW):
        return images_NCHW.flatten(1) * self.factor


def three_heaps():
    """One class of 30 grey images in heaps around 20, 120 and 220, of 3, 9 and 18; then a small class of 2."""
    greys = [18, 20, 22, *range(116, 125), *range(212, 230), 0, 255]
    images = torch.tensor(greys, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return LabeledSet(inputs=images, labels_N=torch.tensor([0] * 30 + [1] * 2), num_classes=2)


def test_every_cluster_gives_the_image_nearest_to_its_centre():
    """By hand: the means of the heaps are 20, 120 and 220.5, whatever their sizes; a small class is given whole."""
    batches = RealBatches(Segments([three_heaps()], CPU), 3, 0, UNIT, Clusters())
    rows = batches.rows(0, Matched(network=Pixels()))
    greys = (batches.at(0, Matched(network=Pixels())).inputs[:, 0, 0, 0] * 255).round().int().tolist()
    assert sorted(greys[:3]) in ([20, 120, 220], [20, 120, 221])
    assert greys[3:] == [0, 255]
    assert rows.tolist()[3:] == [30, 31]


def test_clusters_stay_until_they_are_made_anew(new_set):
    segments = Segments([new_set({0: 30, 1: 3})], CPU)
    batches = RealBatches(segments, 4, 0, UNIT, Clusters(every=3))

    def drawn(index, seed):
        turned = torch.Generator().manual_seed(seed)
        network = Pixels(torch.randn(64, generator=turned))  # other features at every step
        return batches.rows(index, Matched(network=network)).tolist()

    seen = [drawn(index, seed=index) for index in range(6)]
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5]
    other = RealBatches(segments, 4, 0, UNIT, Clusters(every=3))
    other.restore(batches.state())
    batches = other
    assert drawn(5, seed=9) == seen[5]


def test_what_a_set_is_given_does_not_depend_on_its_company(new_set):
    sets = [new_set({0: 30, 1: 3}), new_set({0: 30}, client=1)]
    together, *alone = (RealBatches(Segments(s, CPU), 5, 0, UNIT, Clusters()) for s in (sets, sets[:1], sets[1:]))
    seen = Matched(network=Pixels())
    parts = [batches.at(0, seen).inputs for batches in alone]
    assert torch.equal(together.at(0, seen).inputs, torch.cat(parts))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_resumed_run_sees_the_clusters_that_it_saw(stop_after, new_set, new_distiller, ctx):
    """Stopped between two clusterings; with networks that change, clusters of another step would be others."""
    distiller = new_distiller(sampler=Clusters(every=3), networks=Queue(size=2, every=2), real_batch=4, steps=5)
    data = new_set({0: 20, 1: 9})
    whole, state = distiller.begin([data], 5, ctx), distiller.begin([data], 5, ctx)
    while whole.step < 5:
        whole = distiller.step(whole)
    for _ in range(stop_after):
        state = distiller.step(state)
    again = distiller.begin([data], 5, ctx)
    again.restore(state.tensors())
    assert again.step == stop_after
    while again.step < 5:
        again = distiller.step(again)
    assert distiller.finish(again)[0].sha256() == distiller.finish(whole)[0].sha256()
    other = replace(distiller, sampler=Clusters(every=1)).distill([data], 5, ctx)[0]
    assert other.sha256() != distiller.finish(whole)[0].sha256()


def test_wrong_numbers_are_named():
    with pytest.raises(ConfigError, match=r"sampler\.every=0"):
        Clusters(every=0)
