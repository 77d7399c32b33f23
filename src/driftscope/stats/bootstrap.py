"""Rank correlations with intervals over cells: runs of one cell are no independent evidence.

A resample is a row of weights: how often each unit was drawn. All resamples are a few array
operations; scipy's `bootstrap` draws units one by one and knows no cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from driftscope.errors import ConfigError, DriftscopeError
from driftscope.stats.known_values import FloatArray, require_share

WeightedStatistic = Callable[[FloatArray], FloatArray]
"""Weights [resample, unit] -> values [resample, statistic]; NaN where one is undefined."""

MIN_CELLS = 4
"""Fewer cells give no interval: their spread has too few degrees of freedom."""

_BIAS_TAKEN_OFF = 2.0
"""Resamples show two thirds of the bias that a sample has whose seeds scatter (Fisher's z)."""
_CHUNK_ELEMENTS = 200_000


@dataclass(frozen=True)
class BootstrapInterval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: on the units as they are.
        low: lower end; NaN where there are too few cells or resamples that define it.
        high: its upper end.
        num_cells: cells, the independent units.
    """

    estimate: float
    low: float
    high: float
    num_cells: int


def spearman_over_cells(
    signals: ArrayLike,
    target: ArrayLike,
    cells: Sequence[object] | NDArray[np.generic],
    *,
    reference: int = 0,
    num_resamples: int = 1_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[list[BootstrapInterval], list[BootstrapInterval]]:
    """Each signal's Spearman ρ with the target, and the gap of |ρ| to a reference signal's.

    Cells are drawn with replacement, then, within each drawn cell, as many runs as it has
    (Davison & Hinkley 1997, 3.8). The ends are the estimate's Fisher z ± t · (the resamples'
    standard deviation of z), with cells − 2 degrees of freedom. Resamples repeat runs, so that
    their ρ is lower on average; where seeds scatter, so is the sample's own, by up to 1.6 times as
    much. The interval reaches from the lower to the higher of the estimate and the estimate less
    twice that bias. Over population values from 0 to 0.98 it covered 93 % or more
    (`benchmarks/predictor_intervals.py`, docs/decisions.md); a percentile interval covers less than
    half at 0.98 where seeds scatter.

    A perfect order has no Fisher z, so its own end is the estimate.

    A gap's interval joins those of its two sides (Zou 2007) with the correlation of their
    resamples, and ends at −1 and 1.

    Args:
        signals: [unit, signal], finite.
        target: [unit], finite.
        cells: the cell of each unit.
        reference: the column that the others are compared with, chosen before the data are seen,
            or the gaps flatter it.
        num_resamples: how many are drawn.
        confidence: of the intervals.
        seed: of the draws.

    Returns:
        An interval and a gap a signal, in order.
    """
    require_share("confidence", confidence)
    if num_resamples < 2:
        raise ConfigError(f"A bootstrap needs at least 2 resamples, got {num_resamples!r}.")
    codes = _codes(cells)
    num_cells = int(codes.max(initial=-1)) + 1
    statistic = weighted_spearman(signals, target)
    estimates = statistic(np.ones((1, codes.size)))[0]
    if num_cells < MIN_CELLS:
        draws = np.full((1, estimates.size), nan)
    else:
        chunks = resample_weights(codes, num_resamples, np.random.default_rng(seed))
        draws = np.concatenate([statistic(weights) for weights in chunks])
    # the largest z short of a perfect order, so that one resample in perfect order is no infinity
    bound = 1 - 6 / max(num_cells**3 - num_cells, 12)
    quantile = float(special.stdtrit(max(num_cells - 2, 1), (1 + confidence) / 2))
    z, drawn_z = (np.arctanh(np.clip(values, -bound, bound)) for values in (estimates, draws))
    farthest = float(np.arctanh(bound))
    intervals = [
        BootstrapInterval(
            rho, *_ends(rho, float(z[k]), drawn_z[:, k], quantile, farthest, num_cells), num_cells
        )
        for k, rho in enumerate(map(float, estimates))
    ]
    oriented = drawn_z * np.sign(estimates)
    gaps = [
        _gap(intervals[reference], one, oriented[:, reference], oriented[:, k])
        for k, one in enumerate(intervals)
    ]
    return intervals, gaps


def _ends(
    rho: float, z: float, drawn: FloatArray, quantile: float, farthest: float, num_cells: int
) -> tuple[float, float]:
    """The ends of ρ from the Fisher z, at most `farthest`, of the estimate and of the resamples.

    Resamples in perfect order cannot tell how far from it the population is: the variance is at
    least their share of what theory gives so many cells.
    """
    defined = drawn[np.isfinite(drawn)]
    if defined.size < 2 or not np.isfinite(z):
        return nan, nan
    unbiased = z + _BIAS_TAKEN_OFF * (z - float(defined.mean()))
    in_order = float((np.abs(defined) > farthest - 1e-9).mean())
    of_theory = (1 + np.tanh(z) ** 2 / 2) / max(num_cells - 3, 1)  # Bonett & Wright 2000
    half = quantile * float(np.sqrt(max(defined.var(ddof=1), in_order * of_theory)))
    low, high = np.tanh([min(z, unbiased) - half, max(z, unbiased) + half])
    return min(float(low), rho), max(float(high), rho)


def _gap(
    a: BootstrapInterval, b: BootstrapInterval, drawn_a: FloatArray, drawn_b: FloatArray
) -> BootstrapInterval:
    """|ρ of a| − |ρ of b|; 0 where all resamples agree, as two signals of one order do."""
    (size_a, low_a, high_a), (size_b, low_b, high_b) = _by_size(a), _by_size(b)
    gap = size_a - size_b
    known = np.isfinite(drawn_a) & np.isfinite(drawn_b)
    if known.sum() < 2:
        return BootstrapInterval(gap, nan, nan, a.num_cells)
    drawn_a, drawn_b = drawn_a[known], drawn_b[known]
    if np.allclose(drawn_a, drawn_b, rtol=0, atol=1e-9):
        return BootstrapInterval(gap, gap, gap, a.num_cells)
    vary = np.ptp(drawn_a) > 0 and np.ptp(drawn_b) > 0
    correlation = float(np.corrcoef(drawn_a, drawn_b)[0, 1]) if vary else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))

    return BootstrapInterval(
        gap,
        max(gap - reach(size_a - low_a, high_b - size_b), -1.0),
        min(gap + reach(high_a - size_a, size_b - low_b), 1.0),
        a.num_cells,
    )


def _by_size(interval: BootstrapInterval) -> tuple[float, float, float]:
    """The estimate's size and its ends, seen in the estimate's direction.

    The lower end stays below 0 where the sign is open: the size of a ρ near 0 is estimated too
    large, and a gap to it would be covered too seldom.
    """
    if interval.estimate < 0:
        return -interval.estimate, -interval.high, -interval.low
    return interval.estimate, interval.low, interval.high


def weighted_spearman(signals: ArrayLike, target: ArrayLike) -> WeightedStatistic:
    """Spearman's ρ (average ranks) of each signal with the target over the drawn units.

    Args:
        signals: [unit] or [unit, signal], finite.
        target: [unit], finite.

    Returns:
        A statistic giving [resample, signal]; NaN where a side is constant on the drawn units.
    """
    columns = np.asarray(signals, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    rankers = [_weighted_ranker(column) for column in columns.T]
    rank_target = _weighted_ranker(np.asarray(target, dtype=np.float64))

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=1)
        cubes = _sums_of_cubes(weights)

        def squares(tied: FloatArray | None) -> FloatArray:
            """The ranks' squared distances from their mean, half the weight (Kendall 1970)."""
            of_ties = cubes if tied is None else _sums_of_cubes(tied)
            found: FloatArray = (total**3 - of_ties) / 12
            return found

        b, tied = rank_target(weights)
        weighted_b = weights * (b - total[:, None] / 2)
        norm_b = squares(tied)
        values = np.empty((len(weights), len(rankers)))
        for k, rank in enumerate(rankers):
            a, tied = rank(weights)
            # b is centred, so a need not be.
            product = np.einsum("ru,ru->r", weighted_b, a)
            scale = squares(tied) * norm_b
            defined = scale > 1e-9 * total**2
            root = np.sqrt(np.where(defined, scale, 1.0))
            values[:, k] = np.where(defined, product / root, nan)
        clipped: FloatArray = np.clip(values, -1.0, 1.0)
        return clipped

    return statistic


def _sums_of_cubes(weights: FloatArray) -> FloatArray:
    """[resample]; einsum takes a tenth of the time of a power."""
    sums: FloatArray = np.einsum("ru,ru,ru->r", weights, weights, weights)
    return sums


def _weighted_ranker(
    values: FloatArray,
) -> Callable[[FloatArray], tuple[FloatArray, FloatArray | None]]:
    """Average ranks of the drawn units, up to a constant that no correlation sees.

    A unit's rank is the weight below it plus half the weight tied with it; sorting once serves
    every resample. Beside them the weight of each value, or None where all values are different.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    group = np.empty(values.size, dtype=np.intp)
    group[order] = np.cumsum(np.concatenate([[0], (ordered[1:] != ordered[:-1]).astype(np.intp)]))
    has_ties = starts.size < values.size

    def rank(weights: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        by_value = np.take(weights, order, axis=1)
        if has_ties:
            by_value = np.add.reduceat(by_value, starts, axis=1)
        middle = np.cumsum(by_value, axis=1)
        middle -= by_value / 2
        ranks: FloatArray = np.take(middle, group, axis=1)
        return ranks, by_value if has_ties else None

    return rank


def _codes(cells: Sequence[object] | NDArray[np.generic]) -> NDArray[np.intp]:
    labels = np.asarray(cells)
    if labels.ndim != 1:
        raise DriftscopeError(f"Cells must be one label per unit, got shape {labels.shape}.")
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)


def _spans(num_rows: int, num_units: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK_ELEMENTS // max(1, num_units))
    for start in range(0, num_rows, step):
        yield start, min(start + step, num_rows)


def resample_weights(
    codes: NDArray[np.intp], num_resamples: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """How often each unit is drawn in each resample, in chunks: [resample, unit]."""
    sizes = np.bincount(codes)
    num_cells = sizes.size
    members = np.argsort(codes, kind="stable")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for start, stop in _spans(num_resamples, codes.size):
        drawn = rng.integers(0, num_cells, size=(stop - start, num_cells))
        flat = drawn + num_cells * np.arange(stop - start)[:, None]
        counts = np.bincount(flat.ravel(), minlength=(stop - start) * num_cells)
        counts = counts.reshape(stop - start, num_cells)
        weights = np.empty((stop - start, codes.size))
        for size in np.unique(sizes):
            of_this_size = np.flatnonzero(sizes == size)
            columns = members[first[of_this_size][:, None] + np.arange(size)]
            # size draws in each of the cell's copies are one multinomial of copies × size draws.
            split = rng.multinomial(counts[:, of_this_size] * size, np.full(size, 1 / size))
            weights[:, columns] = split
        yield weights
