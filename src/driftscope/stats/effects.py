"""Standardised differences with exact (noncentral t) confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from driftscope.stats.known_values import (
    FloatArray,
    finite,
    finite_rows,
    is_constant,
    largest,
    require_share,
)


@dataclass(frozen=True)
class EffectSize:
    """A difference in units of a standard deviation.

    Attributes:
        kind: "cohen d" or "cohen d_z".
        value: signed as mean of a − mean of b; NaN where it is undefined.
        low: lower end of the confidence interval.
        high: its upper end.
        confidence: its level.
        num_a: values (pairs) used of a.
        num_b: values (pairs) used of b.
        num_excluded: values (pairs) left out because they were not finite.
    """

    kind: str
    value: float
    low: float
    high: float
    confidence: float
    num_a: int
    num_b: int
    num_excluded: int


def cohens_d(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> EffectSize:
    """The difference of two means over their pooled standard deviation.

    The interval inverts the noncentral t distribution (Cumming & Finch 2001), exact for normal
    groups of equal variance. NaN with fewer than two values in a group, or where both groups are
    constant but for rounding.
    """
    require_share("confidence", confidence)
    (first, out_a), (second, out_b) = finite(a), finite(b)
    counts = (first.size, second.size, out_a + out_b)
    scale = largest(first, second)
    are_constant = is_constant(first, beside=scale) and is_constant(second, beside=scale)
    if min(first.size, second.size) < 2 or are_constant:
        return EffectSize("cohen d", nan, nan, nan, confidence, *counts)
    first, second = first / scale, second / scale  # squares of tiny values would vanish
    df = first.size + second.size - 2
    squares = ((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()
    d = float((first.mean() - second.mean()) / sqrt(squares / df))
    per_unit = sqrt(1 / first.size + 1 / second.size)
    low, high = _noncentrality_interval(d / per_unit, df, confidence)
    return EffectSize("cohen d", d, low * per_unit, high * per_unit, confidence, *counts)


def cohens_d_z(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> EffectSize:
    """The mean paired difference over the standard deviation of the differences."""
    require_share("confidence", confidence)
    (first, second), keep = finite_rows(a, b)
    differences = first - second
    num_excluded = int((~keep).sum())
    n = differences.size
    if n < 2 or is_constant(differences, beside=largest(first, second)):
        return EffectSize("cohen d_z", nan, nan, nan, confidence, n, n, num_excluded)
    differences = differences / largest(differences)  # squares of tiny values would vanish
    value = float(differences.mean() / differences.std(ddof=1))
    low, high = _noncentrality_interval(value * sqrt(n), n - 1, confidence)
    return EffectSize(
        "cohen d_z", value, low / sqrt(n), high / sqrt(n), confidence, n, n, num_excluded
    )


def _noncentrality_interval(t: float, df: int, confidence: float) -> tuple[float, float]:
    """The noncentralities at which the observed t sits at either end of the central interval.

    The noncentral t is a normal over a scaled χ, so its cdf at t is the mean of Φ(t·s − δ) over
    the distribution of s = √(χ²/df), taken here by Gauss–Legendre quadrature over s's quantiles.
    scipy's nct is not used: for large t it gives NaN or never brackets the answer.
    """
    scales, weights = _scaled_chi(df)
    margin = (1 - confidence) / 2

    def solve(probability: float) -> float:
        def gap(noncentrality: float) -> float:
            return float(weights @ special.ndtr(t * scales - noncentrality)) - probability

        reach = t * scales
        return float(optimize.brentq(gap, reach.min() - 9, reach.max() + 9, xtol=1e-9))

    return solve(1 - margin), solve(margin)


@lru_cache(maxsize=256)
def _scaled_chi(df: int) -> tuple[FloatArray, FloatArray]:
    """Values of √(χ²/df) at the nodes of a quadrature over its quantiles, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(512)
    scales = np.sqrt(2 * special.gammaincinv(df / 2, (nodes + 1) / 2) / df)
    return scales, weights / 2
