"""Two groups and paired differences, two-sided: t tests, Wilcoxon, exact permutation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy import stats as scipy_stats

from driftscope.stats.arrangements import (
    EXACT_LIMIT,
    exact_p,
    exact_signs,
    exact_splits,
    sampled_p,
    sampled_signs,
    sampled_splits,
)
from driftscope.stats.known_values import (
    FloatArray,
    finite,
    finite_rows,
    is_constant,
    largest,
    require_share,
)


@dataclass(frozen=True)
class MeanTest:
    """A two-sided test of a difference of means (of locations, for Wilcoxon).

    Attributes:
        test: its name.
        statistic: t, W⁺, or the difference itself for a permutation test.
        p_value: NaN where the test is undefined.
        difference: mean of a − mean of b (mean of the paired differences).
        num_a: values (pairs) used of a.
        num_b: values (pairs) used of b.
        num_excluded: values (pairs) left out because they were not finite.
        p_floor: the smallest p-value that data of this size could give; 0 for t tests.
        p_standard_error: of a Monte Carlo p-value; 0 otherwise.
        low: confidence interval of the difference; NaN where the test gives none.
        high: its upper end.
        degrees_of_freedom: NaN where there are none.
    """

    test: str
    statistic: float
    p_value: float
    difference: float
    num_a: int
    num_b: int
    num_excluded: int
    p_floor: float = 0.0
    p_standard_error: float = 0.0
    low: float = nan
    high: float = nan
    degrees_of_freedom: float = nan


def welch_t(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> MeanTest:
    """Welch's t test of the difference of two means, variances not assumed equal.

    NaN with fewer than two values in a group or no variance at all.
    """
    require_share("confidence", confidence)
    (first, out_a), (second, out_b) = finite(a), finite(b)
    difference = _mean(first) - _mean(second)
    counts = (first.size, second.size, out_a + out_b)
    scale = largest(first, second)
    has_spread = not (is_constant(first, beside=scale) and is_constant(second, beside=scale))
    if min(first.size, second.size) < 2 or not has_spread:
        return _undefined("welch t", difference, counts)
    first, second = first / scale, second / scale  # squares of tiny values would vanish
    of_first, of_second = _variance(first) / first.size, _variance(second) / second.size
    squares = of_first**2 / (first.size - 1) + of_second**2 / (second.size - 1)
    moments = (float(first.mean() - second.mean()), of_first + of_second)
    df = (of_first + of_second) ** 2 / squares
    return _t_test("welch t", moments, df, difference, scale, confidence, counts)


def paired_t(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> MeanTest:
    """The paired t test of a − b over identical units; NaN below two pairs or without variance."""
    require_share("confidence", confidence)
    (first, second), keep = finite_rows(a, b)
    differences = first - second
    counts = (differences.size, differences.size, int((~keep).sum()))
    if differences.size < 2 or is_constant(differences, beside=largest(first, second)):
        return _undefined("paired t", _mean(differences), counts)
    scale = largest(differences)
    scaled = differences / scale
    moments = (float(scaled.mean()), _variance(scaled) / scaled.size)
    df = float(scaled.size - 1)
    return _t_test("paired t", moments, df, _mean(differences), scale, confidence, counts)


def equivalence(a: ArrayLike, b: ArrayLike, *, margin: float, confidence: float = 0.9) -> MeanTest:
    """Two one-sided paired t tests (TOST, Schuirmann 1987): is the mean of a − b within ± margin?

    A small p-value says yes; it is the larger of the two. At level α that is so where the interval
    of confidence 1 − 2α lies within the margin. NaN below two pairs or without variance.
    """
    two_sided = paired_t(a, b, confidence=confidence)
    df = two_sided.degrees_of_freedom
    error = (two_sided.high - two_sided.low) / 2 / special.stdtrit(df, (1 + confidence) / 2)
    nearer = (margin - abs(two_sided.difference)) / error
    p_value = float(special.stdtr(df, -nearer))
    return replace(two_sided, test="equivalence", statistic=nearer, p_value=p_value)


def wilcoxon_signed_rank(a: ArrayLike, b: ArrayLike) -> MeanTest:
    """Wilcoxon's signed-rank test of a − b; the statistic is W⁺, the sum of positive ranks.

    Zero differences are dropped and counted as excluded. Up to 18 pairs the p-value enumerates all
    assignments of signs to the (average) ranks, so ties are exact too; beyond, scipy's normal
    approximation.
    """
    differences, num_excluded = _differences(a, b)
    nonzero = differences[differences != 0]
    num_excluded += differences.size - nonzero.size
    counts = (nonzero.size, nonzero.size, num_excluded)
    mean = _mean(differences)
    if nonzero.size == 0:
        return _undefined("wilcoxon", mean, counts)
    ranks = scipy_stats.rankdata(np.abs(nonzero))
    statistic = float(ranks[nonzero > 0].sum())
    if 2**nonzero.size <= EXACT_LIMIT:
        null = exact_signs(nonzero.size) @ ranks
        p_value, p_floor = exact_p(null, float(np.sign(nonzero) @ ranks))
    else:
        result = scipy_stats.wilcoxon(nonzero, method="asymptotic")
        p_value, p_floor = float(result.pvalue), 0.0
    return MeanTest("wilcoxon", statistic, p_value, mean, *counts, p_floor=p_floor)


def permutation_of_means(
    a: ArrayLike, b: ArrayLike, *, num_resamples: int = 9_999, seed: int = 0
) -> MeanTest:
    """The permutation test of the difference of two group means.

    Every way of splitting the values into groups of these sizes, up to 9! splits, else a seeded
    sample with the +1 correction. Three against three has 20 splits: two-sided p ≥ 0.1.
    """
    (first, out_a), (second, out_b) = finite(a), finite(b)
    counts = (first.size, second.size, out_a + out_b)
    difference = _mean(first) - _mean(second)
    if min(first.size, second.size) == 0:
        return _undefined("permutation of means", difference, counts)
    pooled = np.concatenate([first, second])
    centred = pooled - pooled.mean()
    # Given the pooled values, the difference of means is linear in the first group's sum.
    per_unit = 1 / first.size + 1 / second.size
    scale = float(np.abs(centred).max()) or 1.0
    observed = difference / scale
    if comb(pooled.size, first.size) <= EXACT_LIMIT:
        null = (exact_splits(first.size, pooled.size) @ centred) * per_unit / scale
        p_value, p_floor = exact_p(null, observed)
        error = 0.0
    else:
        drawn = sampled_splits(first.size, pooled.size, num_resamples, seed)
        null = centred[drawn].sum(axis=1) * per_unit / scale
        p_value, p_floor, error = sampled_p(null, observed)
    name = "permutation of means"
    return MeanTest(name, difference, p_value, difference, *counts, p_floor, error)


def sign_flip(a: ArrayLike, b: ArrayLike, *, num_resamples: int = 9_999, seed: int = 0) -> MeanTest:
    """The paired permutation test of the mean of a − b: every difference may change its sign.

    Exact up to 18 pairs, a seeded sample with the +1 correction beyond. Three pairs: p ≥ 0.25.
    """
    differences, num_excluded = _differences(a, b)
    counts = (differences.size, differences.size, num_excluded)
    mean = _mean(differences)
    if differences.size == 0:
        return _undefined("sign flip", mean, counts)
    scale = float(np.abs(differences).sum()) or 1.0
    shares = differences / scale
    if 2**differences.size <= EXACT_LIMIT:
        null = exact_signs(differences.size) @ shares
        p_value, p_floor = exact_p(null, float(shares.sum()))
        error = 0.0
    else:
        flips = sampled_signs(differences.size, num_resamples, seed)
        null = shares.sum() - 2 * (flips @ shares)
        p_value, p_floor, error = sampled_p(null, float(shares.sum()))
    return MeanTest("sign flip", mean, p_value, mean, *counts, p_floor, error)


def coefficient_of_variation(values: ArrayLike, *, ddof: int = 1) -> float:
    """The standard deviation over the mean's size, a ratio ≥ 0, of the finite values.

    NaN with fewer than ``ddof + 1`` values or a mean of zero. ``ddof=0`` divides by n, as the
    published study does; ``ddof=1`` is the sample's.
    """
    kept, _ = finite(values)
    if kept.size < ddof + 1 or kept.mean() == 0:
        return nan
    return float(kept.std(ddof=ddof) / abs(kept.mean()))


def _differences(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, int]:
    (first, second), keep = finite_rows(a, b)
    return first - second, int((~keep).sum())


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else nan


def _undefined(test: str, difference: float, counts: tuple[int, int, int]) -> MeanTest:
    return MeanTest(test, nan, nan, difference, *counts, p_floor=nan, p_standard_error=nan)


def _variance(values: FloatArray) -> float:
    """The sample variance, about the mean of the values."""
    size = values.size
    return float(((values - values.mean()) ** 2).mean() * (size / (size - 1)))


def _t_test(
    test: str,
    moments: tuple[float, float],
    df: float,
    difference: float,
    scale: float,
    confidence: float,
    counts: tuple[int, int, int],
) -> MeanTest:
    """A t test by the estimate and its variance, in units of `scale`, and its degrees of freedom.

    scipy's own tests give the same to the last digit, and take ten times as long.
    """
    estimate, error = moments[0], sqrt(moments[1])
    statistic = estimate / error
    tail = (1 - confidence) / 2
    low, high = (float(special.stdtrit(df, end)) * error + estimate for end in (tail, 1 - tail))
    return MeanTest(
        test,
        statistic,
        float(2 * special.stdtr(df, -abs(statistic))),
        difference,
        *counts,
        low=low * scale,
        high=high * scale,
        degrees_of_freedom=df,
    )
