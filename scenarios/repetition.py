"""Repetition: classes come back in later steps, with examples that were not seen before.

Source: Hemati et al., "Class-Incremental Learning with Repetition", CoLLAs 2023,
https://arxiv.org/abs/2301.11396: a class that was seen returns at later steps with some probability; here one
probability for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Scenario
from scenarios.checks import check_fraction, check_whole
from scenarios.class_blocks import ClassBlocks


@dataclass(frozen=True, kw_only=True)
class Repetition(ClassBlocks):
    """Each block's own step, then steps of old classes only; each class is cut evenly over its steps.

    A step of old classes only for which no class was drawn gets one class at random. Exhaustive; steps are
    disjoint.
    """

    probability: float = 0.3  # that a class seen before comes back at a step, in [0, 1]
    extra_steps: int = 5  # steps after the last block, of old classes only, >= 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("scenario.probability", self.probability, example=0.3)
        check_whole("scenario.extra_steps", self.extra_steps, least=0, example=5)

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
        steps: list[list[np.ndarray]] = [[] for _ in range(num_steps)]
        for label in range(labels.num_classes):
            indices = rng.permutation(np.flatnonzero(labels.train_N == label))
            places = np.flatnonzero(present_TC[:, label])
            for step, part in zip(places, np.array_split(indices, len(places)), strict=True):
                steps[step].append(part)
        name = f"repetition({num_steps} steps, probability={self.probability:g}, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, [np.concatenate(step) for step in steps])
