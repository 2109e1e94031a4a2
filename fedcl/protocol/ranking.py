"""DD-Ranking's scores: what a distilled set owes to its images, not to soft labels or to augmentation.

Formulas of Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation (arXiv 2505.13300). Accuracies
are fractions; "random" is the same number of real images, chosen at random. A set that does as well
as random ones has the score of alpha = 0 (0.27), an unreachable one 1, the worst 0.
"""

from __future__ import annotations

import math

from fedcl.core.errors import ConfigError


def label_robust(
    *, full_hard: float, synthetic_hard: float, synthetic_any: float, random_any: float, weight: float = 0.5
) -> float:
    """Label-robust score in [0, 1].

    HLR = full_hard - synthetic_hard is what hard labels lose to the whole data; IOR = synthetic_any - random_any
    is what the images win over random ones, each with its best kind of labels; alpha = w IOR - (1 - w) HLR.

    Args:
        full_hard: accuracy of the whole training set with hard labels.
        synthetic_hard: of the distilled set with hard labels.
        synthetic_any: of the distilled set with the labels that suit it best.
        random_any: of random real images with the labels that suit them best.
        weight: w, of the improvement over random.

    Raises:
        ConfigError: an accuracy or the weight is not a fraction.
    """
    _fractions(full_hard, synthetic_hard, synthetic_any, random_any, weight)
    return _score(weight * (synthetic_any - random_any) - (1 - weight) * (full_hard - synthetic_hard))


def augmentation_robust(
    *, synthetic: float, random: float, synthetic_plain: float, random_plain: float, weight: float = 0.5
) -> float:
    """Augmentation-robust score in [0, 1]: beta = w (synthetic - random) + (1 - w) (the same without augmentation).

    Args:
        synthetic, random: accuracies with augmentation.
        synthetic_plain, random_plain: accuracies without.
        weight: w, of the part with augmentation.

    Raises:
        ConfigError: an accuracy or the weight is not a fraction.
    """
    _fractions(synthetic, random, synthetic_plain, random_plain, weight)
    return _score(weight * (synthetic - random) + (1 - weight) * (synthetic_plain - random_plain))


def _score(alpha: float) -> float:
    """(exp(alpha) - 1/e) / (e - 1/e): -1 to 0, 1 to 1."""
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def _fractions(*values: float) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise ConfigError(f"accuracies and weights are fractions in [0, 1], got {value}; divide percentages by 100")
