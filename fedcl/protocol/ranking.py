"""DD-Ranking's scores: what a distilled set owes to its images, not to soft labels or to augmentation.

Formulas of Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation (arXiv 2505.13300). Accuracies
are fractions; "random" is the same number of real images, chosen at random. A set that does as well
as random ones has the score of alpha = 0 (0.27), an unreachable one 1, the worst 0. No fraction is a ConfigError.
"""

import math

from fedcl.core.errors import ConfigError


def label_robust(
    *, full_hard: float, synthetic_hard: float, synthetic_any: float, random_any: float, weight: float = 0.5
) -> float:
    """Label-robust score in [0, 1]: alpha = w IOR - (1 - w) HLR.

    HLR = full_hard - synthetic_hard is what hard labels lose to the whole data; IOR = synthetic_any - random_any
    is what the images win over random ones, each with the labels that suit them best.
    """
    return _score(weight, (synthetic_any, random_any), (synthetic_hard, full_hard))


def augmentation_robust(
    *, synthetic: float, random: float, synthetic_plain: float, random_plain: float, weight: float = 0.5
) -> float:
    """Augmentation-robust score in [0, 1]: alpha = w (synthetic - random) + (1 - w) (the same without augmentation)."""
    return _score(weight, (synthetic, random), (synthetic_plain, random_plain))


def _score(weight: float, first: tuple[float, float], second: tuple[float, float]) -> float:
    """(exp(alpha) - 1/e) / (e - 1/e) of the weighted differences, alpha: -1 to 0, 1 to 1."""
    for value in (weight, *first, *second):
        if not 0 <= value <= 1:
            raise ConfigError(f"accuracies and weights are fractions in [0, 1], got {value}; divide percentages by 100")
    alpha = weight * (first[0] - first[1]) + (1 - weight) * (second[0] - second[1])
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))
