"""How well a score separates two classes: ROC AUC with its direction fixed in advance."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from driftscope.errors import DriftscopeError


@dataclass(frozen=True)
class Discrimination:
    """The area under the ROC curve.

    Attributes:
        auc: with the direction fixed in advance, 0 to 1; 0.5 is chance; NaN without both classes.
        oriented_auc: max(auc, 1 − auc): an upper bound that chose its direction from these data.
        higher_means_positive: the direction that was fixed.
        num_positive: units of the class sought.
        num_negative: the others.
        num_excluded: units whose score was not finite or whose class is not known.
    """

    auc: float
    oriented_auc: float
    higher_means_positive: bool
    num_positive: int
    num_negative: int
    num_excluded: int


def roc_auc(
    scores: ArrayLike, is_positive: ArrayLike, *, higher_means_positive: bool
) -> Discrimination:
    """The probability that a positive unit scores higher than a negative one, ties a half.

    Args:
        scores: one per unit.
        is_positive: one truth value per unit; NaN where it is not known.
        higher_means_positive: the direction, fixed before these data were seen.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    truths = np.asarray(is_positive, dtype=np.float64).ravel()
    if values.size != truths.size:
        raise DriftscopeError(f"Got {values.size} scores for {truths.size} labels; give one each.")
    keep = np.isfinite(values) & np.isfinite(truths)
    values, labels = values[keep], truths[keep] != 0
    num_positive = int(labels.sum())
    num_negative = int(labels.size - num_positive)
    auc = nan
    if num_positive and num_negative:
        ranks = scipy_stats.rankdata(values if higher_means_positive else -values)
        surplus = ranks[labels].sum() - num_positive * (num_positive + 1) / 2
        auc = float(surplus / (num_positive * num_negative))
    return Discrimination(
        auc=auc,
        oriented_auc=max(auc, 1 - auc),
        higher_means_positive=higher_means_positive,
        num_positive=num_positive,
        num_negative=num_negative,
        num_excluded=int((~keep).sum()),
    )
