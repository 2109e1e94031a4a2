"""Repetition: classes come back in later steps, with examples that were not seen before.

Source: Hemati et al., "Class-Incremental Learning with Repetition", CoLLAs 2023,
https://arxiv.org/abs/2301.11396: a class that was seen returns at later steps with some probability; here one
probability for all.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.rules import number, whole
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Scenario
from scenarios.class_blocks import ClassBlocks
from scenarios.partition_utils import assign_counts, proportional_counts


@dataclass(frozen=True, kw_only=True)
class Repetition(ClassBlocks):
    """Each block's own step, then steps of old classes only; each class is cut evenly over its steps.

    A step of old classes only for which no class was drawn gets one class at random. Exhaustive; steps are
    disjoint.
    """

    # that a class seen before comes back at a step
    probability: Annotated[float, number(least=0, most=1, example=0.3)] = 0.3
    extra_steps: Annotated[int, whole(0, example=5)] = 5  # steps after the last block, of old classes only

    def build(self, labels: Labels, seed: int) -> Scenario:
        blocks = self.blocks(labels.num_classes, seed)
        rng = numpy_rng(seed, "repetition stream")
        num_steps = len(blocks) + self.extra_steps
        present_TC = rng.random((num_steps, labels.num_classes)) < self.probability
        for own, block in enumerate(blocks):
            present_TC[:own, block] = False
            present_TC[own, block] = True
        for step in range(len(blocks), num_steps):
            if not present_TC[step].any():
                present_TC[step, rng.integers(labels.num_classes)] = True
        sizes_C = np.bincount(labels.train_N, minlength=labels.num_classes)
        counts_TC = np.stack(list(map(proportional_counts, sizes_C, present_TC.T)), axis=1)
        name = f"repetition({num_steps} steps, probability={self.probability:g}, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, assign_counts(labels.train_N, counts_TC, rng))
