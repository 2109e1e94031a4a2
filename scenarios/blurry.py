"""Blurry borders: a class fades in before its own step and out after it, linearly.

Source of the idea: Aljundi et al., "Task-Free Continual Learning", CVPR 2019,
https://arxiv.org/abs/1812.03596, and Avalanche's stream with linear decay. The law here, in whole steps: of
the examples of a class of block b, step t gets the part w(t) / sum w with w(t) = max(0, 1 - |t - b| / decay).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Scenario
from scenarios.checks import check_number
from scenarios.class_blocks import ClassBlocks
from scenarios.partition_utils import proportional_counts


@dataclass(frozen=True, kw_only=True)
class Blurry(ClassBlocks):
    """As many steps as blocks; each example arrives once. Exhaustive; steps are disjoint."""

    decay: float = 2.0  # steps until nothing is left, > 0; <= 1: sharp borders, 2: half of its own step's weight

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("scenario.decay", self.decay, above=0, example=2)

    def build(self, labels: Labels, seed: int) -> Scenario:
        blocks = self.blocks(labels.num_classes, seed)
        rng = numpy_rng(seed, "blurry stream")
        steps: list[list[np.ndarray]] = [[] for _ in blocks]
        for own, block in enumerate(blocks):
            weights_T = np.maximum(0, 1 - np.abs(np.arange(len(blocks)) - own) / self.decay)
            for label in block:
                indices = rng.permutation(np.flatnonzero(labels.train_N == label))
                borders = np.cumsum(proportional_counts(len(indices), weights_T))[:-1]
                for step, part in zip(steps, np.split(indices, borders), strict=True):
                    step.append(part)
        name = f"blurry({len(blocks)} steps, decay={self.decay:g}, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, [np.concatenate(step) for step in steps])
