"""IID: every client gets an equal part of a random permutation.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, section 3 ("IID"); https://arxiv.org/abs/1602.05629.
"""

from dataclasses import dataclass

import numpy as np

from fedcl.scenario.base import Indices, Partition
from scenarios.partition_utils import check_enough


@dataclass(frozen=True, kw_only=True)
class IID(Partition):
    """Clients of equal size (+-1), each a random sample without regard to labels. Exhaustive."""

    @property
    def name(self) -> str:
        return "iid"

    def split(self, labels_N: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[Indices]:
        check_enough(len(labels_N), self.num_clients, 1)
        return np.array_split(rng.permutation(len(labels_N)), self.num_clients)
