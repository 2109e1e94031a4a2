"""A scenario's index arrays as data: what a client holds at a step, and the groups of test images."""

from dataclasses import dataclass, replace

import torch

from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Origin
from fedcl.data.transforms import transform
from fedcl.scenario.base import Scenario


@dataclass(frozen=True, kw_only=True)
class ShardedDataset:
    """(client, step) -> what that client holds then, transforms applied."""

    train: LabeledSet  # the whole training set, on the device
    scenario: Scenario

    def __call__(self, client: int, step: int) -> LabeledSet:
        held = self.train.select(self.scenario.share(client=client, step=step), Origin(client=client, step=step))
        name = self.scenario.transforms[step] if self.scenario.transforms else ""
        seed = derive(self.scenario.seed, "image transform", client=client, step=step)
        return replace(held, inputs=transform(held.inputs, name, seed)) if name else held

    def history(self, client: int, step: int) -> LabeledSet:
        """All that the client held up to and including `step`; an example that came back is there once a step."""
        parts = [self(client, earlier) for earlier in range(step + 1)]
        return replace(
            parts[-1],
            inputs=torch.cat([part.inputs for part in parts]),
            labels_N=torch.cat([part.labels_N for part in parts]),
        )


def group_sets(test: LabeledSet, scenario: Scenario) -> list[LabeledSet]:
    """One set a column of the accuracy matrix, transforms applied."""
    sets = [test.select(rows) for rows in scenario.groups]
    for index, name in enumerate(scenario.group_transforms):
        seed = derive(scenario.seed, "image transform of a group", step=index)
        sets[index] = replace(sets[index], inputs=transform(sets[index].inputs, name, seed))
    return sets
