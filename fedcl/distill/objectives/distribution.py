"""Distribution matching: class means of features.

Dataset Condensation with Distribution Matching (Zhao & Bilen, WACV 2023), equation 5:
sum over classes of || mean phi(real) - mean phi(synthetic) ||^2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective, features, features_of, mixes_images, network_of


@dataclass(frozen=True, kw_only=True)
class Distribution(Objective):
    """Means of embeddings and, if asked, of logits (FedDM, Xiong et al., CVPR 2023, adds them)."""

    needs, batched = frozenset({"embedding"}), True

    logits: bool = False  # add || mean logits(real) - mean logits(synthetic) ||^2
    chunk: int = 64  # real images a pass, all with batch norm: bounds memory, and is fastest on the CPU

    def _means(self, side: MatchBatch, features_ND: Tensor, network: nn.Module) -> list[Tensor]:
        mean = side.mean(features_ND)
        if not self.logits:
            return [mean]
        classifier = network_of(network).classifier
        # an affine classifier's mean of logits is the logits of the mean; one with batch norm is not affine
        return [mean, side.mean(classifier(features_ND)) if mixes_images(network) else classifier(mean)]

    @torch.no_grad()
    def target(self, real: MatchBatch, step: MatchStep) -> list[Tensor]:
        return self._means(real, features_of(real.inputs, step.network, self.chunk), step.network)

    def loss(self, synthetic: MatchBatch, target: list[Tensor], step: MatchStep) -> Tensor:
        means = self._means(synthetic, features(step.network, synthetic.inputs), step.network)
        terms = [(a - b).square().sum() for a, b in zip(means, target, strict=True)]
        return torch.stack(terms).sum()
