"""Bootstrap over cells: runs that share a cell are not independent evidence.

A resample is a row of weights: how often each unit was drawn. Statistics take all rows at once,
so that thousands of resamples are a few array operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from driftscope.errors import ConfigError, DriftscopeError
from driftscope.stats.finite import FloatArray, require_choice, require_share

WeightedStatistic = Callable[[FloatArray], FloatArray]
"""Weights [resample, unit] -> values [resample, statistic]; NaN where one is undefined."""

INTERVALS = ("percentile", "bca")
_CHUNK_ELEMENTS = 200_000


@dataclass(frozen=True)
class BootstrapInterval:
    """A statistic with its bootstrap confidence interval.

    Attributes:
        estimate: on the units as they are.
        low: lower end; NaN where fewer than two cells or no resample define the statistic.
        high: its upper end.
        standard_error: standard deviation over the resamples.
        confidence: its level.
        interval: percentile or bca.
        num_cells: cells, the independent units.
        num_units: runs.
        num_resamples: drawn.
        num_undefined: resamples on which the statistic was undefined; left out.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    confidence: float
    interval: str
    num_cells: int
    num_units: int
    num_resamples: int
    num_undefined: int

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves this value out."""
        return bool(value < self.low or value > self.high)


def bootstrap_over_cells(
    statistic: WeightedStatistic,
    cells: Sequence[object] | NDArray[np.generic],
    *,
    num_resamples: int = 2_000,
    confidence: float = 0.95,
    interval: str = "percentile",
    resample_seeds: bool = True,
    seed: int = 0,
) -> tuple[BootstrapInterval, ...]:
    """Bootstrap intervals of one or more statistics that share their resamples.

    Cells are drawn with replacement, then, within each drawn cell, as many runs as it has, with
    replacement (Davison & Hinkley 1997, 3.8). Drawing runs too adds (n − 1)/n of the seeds' share
    of the variance once more: where seeds scatter as much as cells do, intervals are wider than
    nominal; ``resample_seeds=False`` keeps drawn cells whole. Because statistics share resamples,
    a difference of two of them, given as a third statistic, is a paired comparison.

    Args:
        statistic: weights [resample, unit] -> [resample] or [resample, statistic].
        cells: the cell of each unit.
        num_resamples: how many.
        confidence: of the intervals.
        interval: percentile, or bca (bias-corrected and accelerated, Efron 1987; acceleration from
            leaving out one cell at a time).
        resample_seeds: whether runs are drawn within drawn cells.
        seed: of the draws.

    Returns:
        One interval per statistic, in order.
    """
    require_choice("interval", interval, INTERVALS)
    require_share("confidence", confidence)
    if num_resamples < 2:
        raise ConfigError(f"A bootstrap needs at least 2 resamples, got {num_resamples!r}.")
    codes = _codes(cells)
    num_cells = int(codes.max(initial=-1)) + 1
    estimates = _columns(statistic(np.ones((1, codes.size))))[0]
    if num_cells < 2:
        draws = np.full((num_resamples, estimates.size), nan)
    else:
        rng = np.random.default_rng(seed)
        chunks = _weights(codes, num_resamples, rng, resample_seeds=resample_seeds)
        draws = np.concatenate([_columns(statistic(weights)) for weights in chunks])
    left_out = None
    if interval == "bca" and num_cells >= 3:
        without_one = (
            (codes[None, :] != np.arange(start, stop)[:, None]).astype(np.float64)
            for start, stop in _spans(num_cells, codes.size)
        )
        left_out = np.concatenate([_columns(statistic(weights)) for weights in without_one])
    return tuple(
        _interval(
            float(estimates[k]),
            draws[:, k],
            None if left_out is None else left_out[:, k],
            confidence,
            interval,
            (num_cells, codes.size),
        )
        for k in range(estimates.size)
    )


def cell_weights(
    cells: Sequence[object] | NDArray[np.generic],
    num_resamples: int,
    *,
    seed: int = 0,
    resample_seeds: bool = True,
) -> FloatArray:
    """How often each unit is drawn in each resample: [resample, unit]."""
    rng = np.random.default_rng(seed)
    chunks = _weights(_codes(cells), num_resamples, rng, resample_seeds=resample_seeds)
    return np.concatenate(list(chunks))


def weighted_mean(values: ArrayLike) -> WeightedStatistic:
    """The mean of the drawn units, in the values' unit."""
    array = np.asarray(values, dtype=np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        means: FloatArray = (weights @ array) / weights.sum(axis=1)
        return means

    return statistic


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
        total = weights.sum(axis=1, keepdims=True)
        b = rank_target(weights)
        b -= (weights * b).sum(axis=1, keepdims=True) / total
        weighted_b = weights * b
        norm_b = np.einsum("ru,ru->r", weighted_b, b)
        values = np.empty((len(weights), len(rankers)))
        for k, rank in enumerate(rankers):
            a = rank(weights)
            # b is centred, so a need not be for the product; its norm does.
            product = np.einsum("ru,ru->r", weighted_b, a)
            mean = np.einsum("ru,ru->r", weights, a) / total[:, 0]
            norm_a = np.einsum("ru,ru,ru->r", weights, a, a) - total[:, 0] * mean**2
            scale = norm_a * norm_b
            defined = scale > 1e-9 * total[:, 0] ** 2
            root = np.sqrt(np.where(defined, scale, 1.0))
            values[:, k] = np.where(defined, product / root, nan)
        clipped: FloatArray = np.clip(values, -1.0, 1.0)
        return clipped

    return statistic


def with_gaps_of_sizes(statistic: WeightedStatistic, reference: int) -> WeightedStatistic:
    """The statistics, followed by |the reference one| − |each of them|, over the same resamples.

    A gap is positive where the reference's correlation is the stronger one, whatever the signs;
    the reference is chosen before the data are seen, or the gaps flatter it.
    """

    def both(weights: FloatArray) -> FloatArray:
        values = _columns(statistic(weights))
        sizes = np.abs(values)
        return np.concatenate([values, sizes[:, [reference]] - sizes], axis=1)

    return both


def _weighted_ranker(values: FloatArray) -> WeightedStatistic:
    """Average ranks of the drawn units, up to a constant that no correlation sees.

    A unit's rank is the weight below it plus half the weight tied with it; sorting once serves
    every resample.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    group = np.empty(values.size, dtype=np.intp)
    group[order] = np.cumsum(np.concatenate([[0], (ordered[1:] != ordered[:-1]).astype(np.intp)]))
    has_ties = starts.size < values.size

    def rank(weights: FloatArray) -> FloatArray:
        by_value = np.take(weights, order, axis=1)
        if has_ties:
            by_value = np.add.reduceat(by_value, starts, axis=1)
        middle = np.cumsum(by_value, axis=1)
        middle -= by_value / 2
        ranks: FloatArray = np.take(middle, group, axis=1)
        return ranks

    return rank


def _codes(cells: Sequence[object] | NDArray[np.generic]) -> NDArray[np.intp]:
    labels = np.asarray(cells)
    if labels.ndim != 1:
        raise DriftscopeError(f"Cells must be one label per unit, got shape {labels.shape}.")
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)


def _columns(values: FloatArray) -> FloatArray:
    return values[:, None] if values.ndim == 1 else values


def _spans(num_rows: int, num_units: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK_ELEMENTS // max(1, num_units))
    for start in range(0, num_rows, step):
        yield start, min(start + step, num_rows)


def _weights(
    codes: NDArray[np.intp],
    num_resamples: int,
    rng: np.random.Generator,
    *,
    resample_seeds: bool,
) -> Iterator[FloatArray]:
    sizes = np.bincount(codes)
    num_cells = sizes.size
    members = np.argsort(codes, kind="stable")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for start, stop in _spans(num_resamples, codes.size):
        drawn = rng.integers(0, num_cells, size=(stop - start, num_cells))
        flat = drawn + num_cells * np.arange(stop - start)[:, None]
        counts = np.bincount(flat.ravel(), minlength=(stop - start) * num_cells)
        counts = counts.reshape(stop - start, num_cells)
        if not resample_seeds:
            yield counts[:, codes].astype(np.float64)
            continue
        weights = np.empty((stop - start, codes.size))
        for size in np.unique(sizes):
            of_this_size = np.flatnonzero(sizes == size)
            columns = members[first[of_this_size][:, None] + np.arange(size)]
            # size draws in each of the cell's copies are one multinomial of copies × size draws.
            split = rng.multinomial(counts[:, of_this_size] * size, np.full(size, 1 / size))
            weights[:, columns] = split
        yield weights


def _interval(
    estimate: float,
    draws: FloatArray,
    left_out: FloatArray | None,
    confidence: float,
    interval: str,
    counts: tuple[int, int],
) -> BootstrapInterval:
    defined = draws[np.isfinite(draws)]
    low = high = error = nan
    if defined.size >= 2 and np.isfinite(estimate):
        error = float(defined.std(ddof=1))
        probabilities = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
        if interval == "bca":
            probabilities = _bca_probabilities(estimate, defined, left_out, probabilities)
        low, high = (float(value) for value in np.quantile(defined, probabilities))
    return BootstrapInterval(
        estimate=estimate,
        low=low,
        high=high,
        standard_error=error,
        confidence=confidence,
        interval=interval,
        num_cells=counts[0],
        num_units=counts[1],
        num_resamples=draws.size,
        num_undefined=int(draws.size - defined.size),
    )


def _bca_probabilities(
    estimate: float, draws: FloatArray, left_out: FloatArray | None, nominal: FloatArray
) -> FloatArray:
    share_below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / draws.size
    # Draws that all lie on one side would send the correction to infinity: half a draw at least.
    share_below = np.clip(share_below, 0.5 / draws.size, 1 - 0.5 / draws.size)
    bias = special.ndtri(share_below)
    acceleration = 0.0
    kept = left_out[np.isfinite(left_out)] if left_out is not None else np.zeros(0)
    if kept.size >= 3 and np.ptp(kept) > 0:
        deviation = kept.mean() - kept
        acceleration = float((deviation**3).sum() / (6 * ((deviation**2).sum()) ** 1.5))
    shifted = bias + special.ndtri(nominal)
    adjusted: FloatArray = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return adjusted
