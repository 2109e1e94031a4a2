"""What all class streams share: an order of the classes, cut into blocks, and one group of tests a block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.rules import whole
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Indices, Labels, Recipe, Scenario
from scenarios.partition_utils import proportional_counts

ORDERS = ("labels", "seed", "numpy")


@dataclass(frozen=True, kw_only=True)
class ClassBlocks(Recipe):
    """Classes in blocks of nearly equal size; a subclass says when a block's examples arrive."""

    # number of blocks, sizes +-1, larger ones first; or: classes of a block, of which the last may be smaller
    num_steps: Annotated[int | None, whole(1, example=5)] = None
    classes_per_step: Annotated[int | None, whole(1, example=5)] = None
    first_step: Annotated[int | None, whole(1, example=5)] = None  # classes of the first block; None: as the others
    # labels (0, 1, 2, ...) | seed (random from order_seed, or from the scenario's seed where that is null) |
    # numpy (np.random.RandomState(order_seed).permutation(classes), as published) | an explicit list
    class_order: str | tuple[int, ...] = "labels"
    order_seed: Annotated[int | None, whole(0, example=1993)] = None  # for seed and numpy

    def __post_init__(self) -> None:
        """Raise ScenarioError for what can be seen to be wrong without labels."""
        if (self.num_steps is None) == (self.classes_per_step is None):
            raise ScenarioError(
                f"scenario.num_steps={self.num_steps} and scenario.classes_per_step={self.classes_per_step}: one "
                "must be a number and the other null; type e.g. scenario.num_steps=null scenario.classes_per_step=2"
            )
        super().__post_init__()
        if not isinstance(self.class_order, str):
            object.__setattr__(self, "class_order", tuple(self.class_order))
        elif self.class_order not in ORDERS:
            raise ScenarioError(f"scenario.class_order={self.class_order} is unknown; type one of {', '.join(ORDERS)}")
        if self.class_order == "numpy" and self.order_seed is None:
            raise ScenarioError("scenario.class_order=numpy needs the seed of the order; type scenario.order_seed=1993")
        if self.class_order == "numpy" and (self.order_seed or 0) >= 2**32:
            raise ScenarioError("numpy's orders have seeds below 2**32; type scenario.order_seed=1993")

    @property
    def order_name(self) -> str:
        """How the record names the order."""
        if not isinstance(self.class_order, str):
            return "given order"
        return self.class_order + (f" {self.order_seed}" if self.order_seed is not None else "")

    def order(self, num_classes: int, seed: int) -> np.ndarray:
        """int64 [num_classes]: the classes in order of arrival."""
        if self.class_order == "labels":
            return np.arange(num_classes)
        if self.class_order == "seed":
            return numpy_rng(seed if self.order_seed is None else self.order_seed, "class order").permutation(
                num_classes
            )
        if self.class_order == "numpy":  # the legacy generator, local: published orders are permutations drawn by it
            return np.random.RandomState(self.order_seed).permutation(num_classes).astype(np.int64)
        if sorted(self.class_order) != list(range(num_classes)):
            missing = sorted({*range(num_classes)} - {*self.class_order})
            raise ScenarioError(
                f"scenario.class_order is no permutation of the {num_classes} classes 0..{num_classes - 1}"
                + (f" ({missing[:5]} missing)" if missing else " (a class is there twice, or is unknown)")
                + "; type each class once, or scenario.class_order=labels"
            )
        return np.array(self.class_order, dtype=np.int64)

    def blocks(self, num_classes: int, seed: int) -> list[np.ndarray]:
        """The classes of each block, int64, in order of arrival."""
        head = self.first_step or 0
        rest = num_classes - head
        if self.classes_per_step is not None:
            full, last = divmod(max(rest, 0), self.classes_per_step)
            sizes = [self.classes_per_step] * full + [last] * (last > 0)
        else:
            count = (self.num_steps or 0) - (head > 0)
            sizes = proportional_counts(max(rest, 0), np.ones(count)).tolist() if count else []
        sizes = [head] * (head > 0) + sizes
        if min(sizes) < 1 or sum(sizes) != num_classes:
            raise ScenarioError(
                f"{num_classes} classes cannot fill {self.num_steps or len(sizes)} steps"
                + (f" with {head} in the first; type a smaller scenario.first_step" if head else "")
                + (f"; type scenario.num_steps={num_classes} or less" if self.num_steps and not head else "")
            )
        return np.split(self.order(num_classes, seed), np.cumsum(sizes)[:-1])

    def scenario(
        self, name: str, labels: Labels, seed: int, blocks: list[np.ndarray], steps: Sequence[Indices]
    ) -> Scenario:
        """The one-client grid of these steps, with the test examples of each block as a group."""
        for number, step in enumerate(steps, 1):
            if len(step) == 0:
                raise ScenarioError(
                    f"step {number} of scenario '{name}' has no training examples: its classes have none, or too few "
                    "to come back; type fewer scenario.num_steps, or leave these classes out of the data set"
                )
        return Scenario(
            name=name,
            seed=seed,
            num_classes=labels.num_classes,
            shares=tuple((np.sort(step).astype(np.int64),) for step in steps),
            groups=tuple(np.flatnonzero(np.isin(labels.test_N, block)) for block in blocks),
            group_names=tuple(map(block_name, blocks)),
        )


def block_name(block: np.ndarray) -> str:
    """ "class 4", "classes 0-1" for neighbours, "classes 3,7" otherwise."""
    if len(block) == 1:
        return f"class {block[0]}"
    if (np.diff(block) == 1).all():
        return f"classes {block[0]}-{block[-1]}"
    return "classes " + ",".join(map(str, block))
