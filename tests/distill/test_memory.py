"""An objective with a preparation and a memory: once over all real images, kept in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedcl.distill.networks.none import NoNetworks
from fedcl.distill.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class Means(Objective):
    """Distance of pixels to the mean of all real images of a segment, pulled after the steps' own means."""

    needs_real = False

    def prepare(self, real):
        means = [real.images_of(segment).mean(0) for segment in range(len(real.segments))]
        return {"means": torch.stack(means), "seen": torch.zeros(())}

    def target(self, real, step):
        assert len(real.inputs) == 0  # nothing is drawn for an objective that reads nothing
        step.memory["seen"] = step.memory["seen"] + 1
        step.memory["means"] = step.memory["means"] + 0.1 * step.memory["seen"]
        return step.memory["means"].flatten(1)

    def loss(self, synthetic, target, step):
        return (synthetic.mean(synthetic.inputs.flatten(1)) - target).square().sum()


def test_it_is_prepared_from_all_images_and_goes_on_from_what_it_kept(new_set, new_distiller, ctx):
    distiller = new_distiller(objective=Means(), networks=NoNetworks(), real_batch=2, steps=6, ipc=1)
    data = new_set({0: 9, 1: 5})
    first = distiller.begin([data], 0, ctx)
    images = ctx.inputs.apply(data.inputs)
    for segment in (0, 1):
        torch.testing.assert_close(first.memory["means"][segment], images[data.labels_N == segment].mean(0))
    for _ in range(2):
        first = distiller.step(first)
    assert float(first.memory["seen"]) == 2
    again = distiller.begin([data], 0, ctx)
    again.restore(first.tensors())
    while again.step < 6:
        again = distiller.step(again)
    assert float(again.memory["seen"]) == 6
    assert distiller.finish(again)[0].sha256() == distiller.distill([data], 0, ctx)[0].sha256()
