"""Distribution matching: class means of features.

Dataset Condensation with Distribution Matching (Zhao & Bilen, WACV 2023), equation 5:
sum over classes of || mean phi(real) - mean phi(synthetic) ||^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedcl.distill.objectives.base import MatchBatch, Objective, features, features_of, mixes_images


@dataclass(frozen=True, kw_only=True)
class Distribution(Objective):
    """Means of embeddings and, if asked, of logits (FedDM, Xiong et al., CVPR 2023, adds them)."""

    logits: bool = False  # add || mean logits(real) - mean logits(synthetic) ||^2
    chunk: int = 64  # real images a pass, all with batch norm: bounds memory, and is fastest on the CPU

    @property
    def batched(self) -> bool:
        return True

    def _means(self, side: MatchBatch, features_ND: Tensor, network: nn.Module) -> list[Tensor]:
        mean = side.mean(features_ND)
        if not self.logits:
            return [mean]
        classifier = cast(Any, network).classifier
        # an affine classifier's mean of logits is the logits of the mean; one with batch norm is not affine
        return [mean, side.mean(classifier(features_ND)) if mixes_images(network) else classifier(mean)]

    def target(self, real: MatchBatch, network: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            return self._means(real, features_of(real, network, self.chunk), network)

    def loss(self, synthetic: MatchBatch, target: list[Tensor], network: nn.Module) -> Tensor:
        means = self._means(synthetic, features(network, synthetic.images_NCHW), network)
        terms = [(a - b).square().sum() for a, b in zip(means, target, strict=True)]
        return torch.stack(terms).sum()
