"""Blurry borders: a class fades in before its own step and out after it, linearly.

Source of the idea: Aljundi et al., "Task-Free Continual Learning", CVPR 2019,
https://arxiv.org/abs/1812.03596, and Avalanche's stream with linear decay. The law here, in whole steps: of
the examples of a class of block b, step t gets the part w(t) / sum w with w(t) = max(0, 1 - |t - b| / decay).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.rules import number
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Scenario
from scenarios.class_blocks import ClassBlocks
from scenarios.partition_utils import assign_counts, proportional_counts


@dataclass(frozen=True, kw_only=True)
class Blurry(ClassBlocks):
    """As many steps as blocks; each example arrives once. Exhaustive; steps are disjoint."""

    # steps until nothing is left; <= 1: sharp borders, 2: half of its own step's weight
    decay: Annotated[float, number(above=0, example=2)] = 2.0

    def build(self, labels: Labels, seed: int) -> Scenario:
        blocks = self.blocks(labels.num_classes, seed)
        sizes_C = np.bincount(labels.train_N, minlength=labels.num_classes).tolist()
        counts_TC = np.zeros((len(blocks), labels.num_classes), dtype=np.int64)
        for own, block in enumerate(blocks):
            weights_T = np.maximum(0, 1 - np.abs(np.arange(len(blocks)) - own) / self.decay)
            for label in block:
                counts_TC[:, label] = proportional_counts(sizes_C[label], weights_T)
        steps = assign_counts(labels.train_N, counts_TC, numpy_rng(seed, "blurry stream"), np.concatenate(blocks))
        name = f"blurry({len(blocks)} steps, decay={self.decay:g}, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, steps)
