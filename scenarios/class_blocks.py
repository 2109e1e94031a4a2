"""What all class streams share: an order of the classes, cut into blocks, and one group of tests a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Indices, Labels, Recipe, Scenario
from scenarios.checks import check_choice, check_whole

ORDERS = ("labels", "seed", "numpy")


@dataclass(frozen=True, kw_only=True)
class ClassBlocks(Recipe):
    """Classes in blocks of nearly equal size; a subclass says when a block's examples arrive."""

    num_steps: int | None = None  # number of blocks, sizes +-1, larger ones first; or:
    classes_per_step: int | None = None  # classes of a block; the last block may be smaller
    first_step: int | None = None  # classes of the first block ("B50"); null = as the others
    # labels (0, 1, 2, ...) | seed (random from order_seed, or from the scenario's seed where that is null) |
    # numpy (np.random.RandomState(order_seed).permutation(classes), as published) | an explicit list
    class_order: str | tuple[int, ...] = "labels"
    order_seed: int | None = None  # for seed and numpy

    def __post_init__(self) -> None:
        """Check all that can be checked without labels.

        Raises:
            ScenarioError: what is wrong, and what to type.
        """
        if (self.num_steps is None) == (self.classes_per_step is None):
            raise ScenarioError(
                f"scenario.num_steps={self.num_steps} and scenario.classes_per_step={self.classes_per_step}: "
                "one must be a number and the other null; "
                "type e.g. scenario.num_steps=null scenario.classes_per_step=2"
            )
        for key in ("num_steps", "classes_per_step", "first_step"):
            if getattr(self, key) is not None:
                check_whole(f"scenario.{key}", getattr(self, key), least=1, example=5)
        if isinstance(self.class_order, str):
            check_choice("scenario.class_order", self.class_order, ORDERS)
        else:
            object.__setattr__(self, "class_order", tuple(self.class_order))
        if self.class_order == "numpy" and self.order_seed is None:
            raise ScenarioError("scenario.class_order=numpy needs the seed of the order; type scenario.order_seed=1993")
        if self.order_seed is not None:
            check_whole("scenario.order_seed", self.order_seed, least=0, example=1993)
            if self.class_order == "numpy" and self.order_seed >= 2**32:
                raise ScenarioError("numpy's orders have seeds below 2**32; type scenario.order_seed=1993")

    @property
    def order_name(self) -> str:
        """How the record names the order."""
        if not isinstance(self.class_order, str):
            return "given order"
        return self.class_order + (f" {self.order_seed}" if self.order_seed is not None else "")

    def order(self, num_classes: int, seed: int) -> np.ndarray:
        """int64 [num_classes]: the classes in order of arrival."""
        if not isinstance(self.class_order, str):
            return explicit_order(self.class_order, num_classes)
        if self.class_order == "numpy":
            # The legacy generator, local: published orders are permutations drawn by it.
            return np.random.RandomState(self.order_seed).permutation(num_classes).astype(np.int64)
        if self.class_order == "seed":
            order_seed = seed if self.order_seed is None else self.order_seed
            return numpy_rng(order_seed, "class order").permutation(num_classes)
        return np.arange(num_classes)

    def blocks(self, num_classes: int, seed: int) -> list[np.ndarray]:
        """The classes of each block, int64, in order of arrival."""
        head = self.first_step or 0
        rest = num_classes - head
        if self.classes_per_step is not None:
            full, last = divmod(max(rest, 0), self.classes_per_step)
            sizes = [self.classes_per_step] * full + [last] * (last > 0)
        else:
            count = (self.num_steps or 0) - (head > 0)
            sizes = [len(part) for part in np.array_split(np.arange(rest), count)] if count else []
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
        for index, step in enumerate(steps):
            if len(step) == 0:
                raise ScenarioError(
                    f"step {index + 1} of scenario '{name}' has no training examples: its classes "
                    "have none, or too few to come back; type fewer scenario.num_steps, or leave "
                    "these classes out of the data set"
                )
        return Scenario(
            name=name,
            seed=seed,
            num_classes=labels.num_classes,
            shares=tuple((np.sort(step).astype(np.int64),) for step in steps),
            groups=tuple(np.flatnonzero(np.isin(labels.test_N, block)) for block in blocks),
            group_names=tuple(block_name(block) for block in blocks),
        )


def explicit_order(class_order: Sequence[int], num_classes: int) -> np.ndarray:
    """int64 [num_classes]; ScenarioError unless it is a permutation of the classes."""
    if len(class_order) != num_classes or set(class_order) != set(range(num_classes)):
        missing = sorted(set(range(num_classes)) - set(class_order))
        raise ScenarioError(
            f"scenario.class_order is no permutation of the {num_classes} classes 0..{num_classes - 1}"
            + (f" ({missing[:5]} missing)" if missing else " (a class is there twice, or is unknown)")
            + "; type each class once, or scenario.class_order=labels"
        )
    return np.array(class_order, dtype=np.int64)


def block_name(block: np.ndarray) -> str:
    """ "class 4", "classes 0-1" for neighbours, "classes 3,7" otherwise."""
    if len(block) == 1:
        return f"class {block[0]}"
    if (np.diff(block) == 1).all():
        return f"classes {block[0]}-{block[-1]}"
    return "classes " + ",".join(str(label) for label in block)
