"""Samplers: which real images a class shows at a step, where it has more than a step takes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl.core.inputs import InputSpec
from fedcl.core.rules import Checked
from fedcl.core.seeding import derive
from fedcl.core.types import Origin
from fedcl.distill.batch import Matched


@dataclass(frozen=True, kw_only=True)
class LargeClasses:
    """The classes of one set that have more images than a step takes, and the set's random streams."""

    images: tuple[Tensor, ...]  # uint8 [n, C, H, W] of each class, on the device
    inputs: InputSpec
    origin: Origin
    key: int

    def seed(self, purpose: str, index: int) -> int:
        """The seed of a stream of this set alone, named by the purpose and the number of the real batch."""
        return derive(self.key, purpose, client=self.origin.client, step=self.origin.step, round=index)


class Sampler(Checked, ABC):
    """A frozen dataclass of the sampler's numbers."""

    config_key = "sampler"

    needs: frozenset[str] = frozenset()  # of its networks, see `fedcl.distill.fit.NEEDS`

    @abstractmethod
    def rows(self, classes: LargeClasses, size: int, index: int, matched: Matched, memory: dict[str, Tensor]) -> Tensor:
        """int64 [classes, size] on the CPU: rows of each class, counted within the class.

        Args:
            index: number of the real batch, from 0.
            matched: of the step, for what the sampler `needs`.
            memory: tensors on the CPU that the sampler keeps between batches; part of the checkpoint.
        """


@dataclass(frozen=True, kw_only=True)
class Uniform(Sampler):
    """Independent uniform draws, so that a row may come twice."""

    def rows(self, classes: LargeClasses, size: int, index: int, matched: Matched, memory: dict[str, Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(classes.seed("real batches", index))
        drawn = torch.rand(len(classes.images), size, generator=generator, dtype=torch.float64)
        return (drawn * torch.tensor([len(images) for images in classes.images])[:, None]).long()
