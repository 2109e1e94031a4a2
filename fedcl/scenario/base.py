"""One grid: who holds which training examples at which step, and which test examples are looked at.

A `Scenario` is a table steps x clients of index arrays made from labels and a seed alone. Federated
learning is one row, continual learning one column, federated continual learning the whole table.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.rules import Checked, whole
from fedcl.core.seeding import numpy_rng

Indices = np.ndarray  # int64 [n], indices into the training set or the test set

TRANSFORMS = {  # of images; a step names one as "name:value", "" is none, and whoever builds the images applies it
    "rotate": "angle in degrees",
    "permute": "whole number: the seed of one fixed permutation of the pixels",
    "noise": "standard deviation of Gaussian noise, as a fraction of the pixel range",
    "blur": "standard deviation of a Gaussian blur, in pixels",
}


def parse_transform(text: str) -> tuple[str, float]:
    """Name and value of a transform: "rotate:30" is ("rotate", 30.0); "" is ("", 0.0). ScenarioError for others."""
    if text == "":
        return "", 0.0
    name, _, number = str(text).partition(":")
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    wrong = not np.isfinite(value) or (name != "rotate" and value < 0) or (name == "permute" and value % 1)
    if name not in TRANSFORMS or wrong:
        known = "; ".join(f"{key}:VALUE ({meaning})" for key, meaning in TRANSFORMS.items())
        raise ScenarioError(f"transform '{text}' is none of: {known}; type e.g. rotate:30, or '' for none")
    return name, value


@dataclass(frozen=True, kw_only=True)
class Labels:
    """All that a scenario may look at: the labels of both sets. Images play no part."""

    train_N: np.ndarray  # int64 [N]
    test_N: np.ndarray  # int64 [N']
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Index arrays for every cell of the grid, and the groups of test examples that make matrix columns."""

    name: str
    seed: int
    num_classes: int
    # [steps][clients] -> int64 training indices, sorted, none twice; a client may hold nothing at a step
    shares: tuple[tuple[Indices, ...], ...]
    groups: tuple[Indices, ...]  # -> int64 test indices; one group a column of the accuracy matrix
    group_names: tuple[str, ...]  # "all", "classes 0-1", "rotation 30", ...
    transforms: tuple[str, ...] = ()  # one named image transform a step ("" = none); () = none anywhere
    group_transforms: tuple[str, ...] = ()  # the same for groups
    disjoint: bool = True  # whether the shares of a step must be disjoint

    def __post_init__(self) -> None:
        """Raise ScenarioError for tables of different sizes, or an example that two clients hold at one step."""
        place = f"scenario '{self.name}'"
        if not self.shares or not self.shares[0]:
            raise ScenarioError(f"{place} has no steps or no clients")
        if len({len(step) for step in self.shares}) != 1:
            raise ScenarioError(f"{place} has steps with different numbers of clients")
        if len(self.groups) != len(self.group_names):
            raise ScenarioError(f"{place} has {len(self.groups)} groups but {len(self.group_names)} names")
        for size, table in ((self.num_steps, self.transforms), (len(self.groups), self.group_transforms)):
            if table and len(table) != size:
                raise ScenarioError(f"{place} has {len(table)} transforms for {size} places")
        for transform in (*self.transforms, *self.group_transforms):
            parse_transform(transform)
        for number, step in enumerate(self.shares, 1):
            if any(share.ndim != 1 or (np.diff(share) <= 0).any() for share in step):
                raise ScenarioError(f"{place}, step {number}: a share is not sorted, or has an example twice")
            if self.disjoint and len(np.unique(held := np.concatenate(step))) != len(held):
                raise ScenarioError(f"{place}, step {number}: an example is held twice")

    @property
    def num_steps(self) -> int:
        return len(self.shares)

    @property
    def num_clients(self) -> int:
        return len(self.shares[0])

    def share(self, *, client: int, step: int = 0) -> Indices:
        """Training indices that `client` holds at `step`."""
        return self.shares[step][client]

    @property
    def sha256(self) -> str:
        """Hash of the index arrays, the groups and the transforms: equal means the same split."""
        digest = hashlib.sha256()
        for table in (*self.shares, self.groups):
            digest.update(f"|{len(table)}".encode())
            for indices in table:
                digest.update(f":{len(indices)}|".encode())
                digest.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
        digest.update(repr((self.transforms, self.group_transforms)).encode())
        return digest.hexdigest()

    def counts(self, labels_N: np.ndarray, step: int = 0) -> np.ndarray:
        """int64 [clients, classes]: how many examples of each class every client holds at `step`."""
        return np.stack([np.bincount(labels_N[share], minlength=self.num_classes) for share in self.shares[step]])

    def first_steps(self, labels: Labels, client: int | None = None) -> np.ndarray:
        """int64 [groups]: the step at which a group is first seen, as metrics need it; `num_steps` where it never is.

        A group is seen at a step that has its transform and holds, at `client` (None: at any client), at least one
        training example of one of its classes.
        """
        present_TC = np.zeros((self.num_steps, self.num_classes), dtype=bool)
        for index, step in enumerate(self.shares):
            for share in step if client is None else (step[client],):
                present_TC[index, labels.train_N[share]] = True
        step_transforms = np.array(self.transforms or ("",) * self.num_steps)
        group_transforms = self.group_transforms or ("",) * len(self.groups)
        firsts = []
        for group, transform in zip(self.groups, group_transforms, strict=True):
            seen_T = present_TC[:, np.unique(labels.test_N[group])].any(axis=1) & (step_transforms == transform)
            firsts.append(int(seen_T.argmax()) if seen_T.any() else self.num_steps)
        return np.array(firsts, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked, ABC):
    """A way to make a scenario: a frozen dataclass of its numbers, in `scenarios/`, named by one YAML."""

    config_key = "scenario"

    seed: Annotated[int | None, whole(0, example=0)] = None  # who gets what is drawn from it; None: from the run's seed

    def deal(self, labels: Labels, seed: int) -> Scenario:
        """The grid for these labels: of the recipe's own seed, or of `seed` where it has none. Raises as `build`."""
        return self.build(labels, seed if self.seed is None else self.seed)

    @abstractmethod
    def build(self, labels: Labels, seed: int) -> Scenario:
        """The grid for these labels and this seed; the same arguments give the same arrays.

        ScenarioError where the recipe cannot be carried out on these labels; the message names the number to change.
        """


@dataclass(frozen=True, kw_only=True)
class Partition(Recipe):
    """A recipe that deals one step's examples to clients: the federated row of the grid."""

    num_clients: Annotated[int, whole(1, example=10)]

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name that the record shows, with the numbers that matter."""

    @abstractmethod
    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        """Positions in `labels_N` for each client, in any order. Raises as `build`."""

    def build(self, labels: Labels, seed: int) -> Scenario:
        shares = self.split(labels.train_N, labels.num_classes, numpy_rng(seed, "partition"))
        return Scenario(
            name=self.name,
            seed=seed,
            num_classes=labels.num_classes,
            shares=(tuple(np.sort(share).astype(np.int64) for share in shares),),
            groups=(np.arange(len(labels.test_N), dtype=np.int64),),
            group_names=("all",),
        )
