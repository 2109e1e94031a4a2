"""DD-Ranking's formulas on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from fedcl.core.errors import ConfigError
from fedcl.protocol.ranking import augmentation_robust, label_robust

ZERO = 0.268941421  # (1 - 1/e) / (e - 1/e) = 1 / (1 + e)


def test_ends_and_middle_of_the_label_robust_score():
    # nothing lost, everything won: alpha = 0.5 * 1 - 0.5 * 0 = 0.5 (w = 0.5), and 1 with w = 1
    best = {"full_hard": 1.0, "synthetic_hard": 1.0, "synthetic_any": 1.0, "random_any": 0.0}
    assert label_robust(**best) == pytest.approx((math.exp(0.5) - math.exp(-1)) / (math.e - math.exp(-1)))
    assert label_robust(**best, weight=1) == pytest.approx(1)
    # hard labels lose everything and random images win: alpha = -0.5 - 0.5 = -1
    assert label_robust(full_hard=1, synthetic_hard=0, synthetic_any=0, random_any=1) == pytest.approx(0)
    # as good as random images, and as hard labels on everything
    assert label_robust(full_hard=0.8, synthetic_hard=0.8, synthetic_any=0.7, random_any=0.7) == pytest.approx(ZERO)


def test_a_label_robust_score_worked_by_hand():
    # HLR = 0.84 - 0.48 = 0.36; IOR = 0.60 - 0.40 = 0.20; alpha = 0.10 - 0.18 = -0.08; exp(-0.08) = 0.9231163
    score = label_robust(full_hard=0.84, synthetic_hard=0.48, synthetic_any=0.60, random_any=0.40)
    assert score == pytest.approx((0.9231163 - 0.3678794) / (2.7182818 - 0.3678794), abs=1e-7)
    assert score == pytest.approx(0.236230, abs=1e-6)


def test_augmentation_robust_score():
    # beta = 0.5 * 0.2 + 0.5 * 0.1 = 0.15; exp(0.15) = 1.1618342
    score = augmentation_robust(synthetic=0.6, random=0.4, synthetic_plain=0.5, random_plain=0.4)
    assert score == pytest.approx((1.1618342 - 0.3678794) / 2.3504024, abs=1e-7)
    same = {"synthetic": 0.3, "random": 0.3, "synthetic_plain": 0.9, "random_plain": 0.9}
    assert augmentation_robust(**same) == pytest.approx(ZERO)
    # only the part without augmentation counts with w = 0: beta = -1
    worst = augmentation_robust(synthetic=1, random=0, synthetic_plain=0, random_plain=1, weight=0)
    assert worst == pytest.approx(0, abs=1e-12)


def test_percentages_are_refused():
    with pytest.raises(ConfigError, match="divide percentages by 100"):
        label_robust(full_hard=84, synthetic_hard=0.5, synthetic_any=0.5, random_any=0.5)
    with pytest.raises(ConfigError, match="fractions"):
        augmentation_robust(synthetic=0.5, random=0.5, synthetic_plain=0.5, random_plain=0.5, weight=1.5)
