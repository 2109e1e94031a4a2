"""Domain-incremental: the classes stay, the look of the images changes from step to step.

Sources: Goodfellow et al., "An Empirical Investigation of Catastrophic Forgetting", 2013,
https://arxiv.org/abs/1312.6211 (permuted pixels); Lopez-Paz & Ranzato, NeurIPS 2017,
https://arxiv.org/abs/1706.08840 (rotations); Mai et al., 2022, https://arxiv.org/abs/2101.10423 (noise,
blur). The scenario only names a step's transform (`fedcl.scenario.base.TRANSFORMS`); whoever builds the images
applies it.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.rules import one_of
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Recipe, Scenario, parse_transform


@dataclass(frozen=True, kw_only=True)
class DomainIncremental(Recipe):
    """One step a transform; the group of a step is the whole test set under the same transform."""

    transforms: tuple[str, ...]  # one a step, as "rotate:30"; "" is the image as it is
    # all: every step holds the whole training set; part: random disjoint parts, sizes +-1, exhaustive
    examples: Annotated[str, one_of("all", "part")] = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if not self.transforms:
            raise ScenarioError("scenario.transforms is empty; type e.g. scenario.transforms=[rotate:0,rotate:30]")
        for transform in self.transforms:
            parse_transform(transform)
        super().__post_init__()

    def build(self, labels: Labels, seed: int) -> Scenario:
        num_examples, num_steps = len(labels.train_N), len(self.transforms)
        everything = np.arange(num_examples, dtype=np.int64)
        parts = [everything] * num_steps
        if self.examples == "part":
            if num_examples < num_steps:
                raise ScenarioError(
                    f"{num_examples} examples cannot be cut into {num_steps} parts; type scenario.examples=all"
                )
            parts = np.array_split(numpy_rng(seed, "domain parts").permutation(everything), num_steps)
        return Scenario(
            name=f"domain_incremental({num_steps} steps, {self.examples})",
            seed=seed,
            num_classes=labels.num_classes,
            shares=tuple((np.sort(part),) for part in parts),
            groups=(np.arange(len(labels.test_N), dtype=np.int64),) * num_steps,
            group_names=tuple(transform or "original" for transform in self.transforms),
            transforms=self.transforms,
            group_transforms=self.transforms,
        )
