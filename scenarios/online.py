"""Online: one pass over a class-incremental stream, a few examples at a time.

Sources: Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017, https://arxiv.org/abs/1706.08840 (one
pass); Mai et al., "Online Continual Learning in Image Classification: An Empirical Survey", Neurocomputing
2022, https://arxiv.org/abs/2101.10423 (batches of 10).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.rules import whole
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Scenario
from scenarios.class_blocks import ClassBlocks


@dataclass(frozen=True, kw_only=True)
class Online(ClassBlocks):
    """Each block's examples in random order, cut into batches; every batch is a step, groups stay blocks.

    `num_steps` counts blocks, as in every class stream. The last batch of a block may be smaller.
    Exhaustive; steps are disjoint.
    """

    batch_size: Annotated[int, whole(1, example=10)] = 10  # examples of a step

    def build(self, labels: Labels, seed: int) -> Scenario:
        blocks = self.blocks(labels.num_classes, seed)
        rng = numpy_rng(seed, "online stream")
        steps: list[np.ndarray] = []
        for block in blocks:
            indices = rng.permutation(np.flatnonzero(np.isin(labels.train_N, block)))
            steps += np.split(indices, np.arange(self.batch_size, len(indices), self.batch_size))
        name = f"online({len(blocks)} blocks, batches of {self.batch_size}, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, steps)
