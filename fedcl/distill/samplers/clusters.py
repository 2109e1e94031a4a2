"""Representative real images: those nearest to the centres of clusters in feature space.

DREAM (Liu et al., ICCV 2023, "DREAM: Efficient Dataset Distillation by Representative Matching"), section 3.3: each
class is cut into as many k-means clusters (Euclidean, features of the network that is being matched) as a step takes
images, every cluster gives the image nearest to its centre, and the clusters are made anew every few steps.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.rules import whole
from fedcl.distill.batch import Matched
from fedcl.distill.objectives.base import features_of
from fedcl.distill.samplers.base import LargeClasses, Sampler
from fedcl.distill.selection import kmeans


@dataclass(frozen=True, kw_only=True)
class Clusters(Sampler):
    """The same images for `every` real batches; with a network new every step type sampler.every=1 to follow it."""

    needs = frozenset({"embedding"})

    every: Annotated[int, whole(1, example=10)] = 10  # real batches between two clusterings

    def rows(self, classes: LargeClasses, size: int, index: int, matched: Matched, memory: dict[str, Tensor]) -> Tensor:
        if index % self.every == 0:
            found = [features_of(images, matched.network, spec=classes.inputs).cpu() for images in classes.images]
            memory["rows"] = torch.stack(
                [kmeans(features_ND, size, classes.seed("clusters", index), 1) for features_ND in found]
            )
        return memory["rows"]
