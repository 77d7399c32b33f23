"""Correlation with exact permutation p-values, over all units or within blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from driftscope.errors import DriftscopeError
from driftscope.stats.arrangements import (
    EXACT_LIMIT,
    IndexArray,
    exact_p,
    exact_within_blocks,
    num_within_blocks,
    sampled_p,
    sampled_within_blocks,
)
from driftscope.stats.known_values import (
    FloatArray,
    finite_rows,
    is_constant,
    largest,
    require_choice,
)

KINDS = ("pearson", "spearman")
_CHUNK_ELEMENTS = 400_000


@dataclass(frozen=True)
class CorrelationTest:
    """A correlation and its permutation p-value.

    Attributes:
        kind: pearson or spearman.
        statistic: the coefficient over all units, −1 to 1; NaN where it is undefined.
        p_value: NaN where the coefficient is undefined.
        p_floor: the smallest p-value that these values, in any arrangement, could have given.
        p_standard_error: of a Monte Carlo p-value; 0 for an exact one.
        procedure: "exact", "monte carlo", or "undefined".
        num_arrangements: how many were enumerated or drawn.
        num_units: pairs used.
        num_blocks: 1 where the units were permuted freely.
        num_excluded: pairs left out because a value was not finite.
    """

    kind: str
    statistic: float
    p_value: float
    p_floor: float
    p_standard_error: float
    procedure: str
    num_arrangements: int
    num_units: int
    num_blocks: int
    num_excluded: int

    def can_reach(self, alpha: float) -> bool:
        """Whether any arrangement of these data could have given a p-value of at most alpha."""
        return bool(self.p_floor <= alpha)


def correlation(x: ArrayLike, y: ArrayLike, *, kind: str = "spearman") -> float:
    """The correlation coefficient of the finite pairs, −1 to 1.

    Spearman uses average ranks for ties. NaN with fewer than three finite pairs or
    where either side is constant.

    Args:
        x: one value per unit.
        y: one value per unit.
        kind: pearson or spearman.
    """
    require_choice("kind of correlation", kind, KINDS)
    (a, b), _ = finite_rows(x, y)
    if not _is_defined(a, b):
        return nan
    if kind == "spearman":
        a, b = scipy_stats.rankdata(a), scipy_stats.rankdata(b)
    a, b = _standardised(a), _standardised(b)
    return float(np.clip(a @ b, -1.0, 1.0))


def permutation_correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kind: str = "spearman",
    blocks: Sequence[object] | None = None,
    num_resamples: int = 9_999,
    seed: int = 0,
) -> CorrelationTest:
    """The correlation of x and y with its permutation p-value.

    All arrangements are enumerated up to 9! = 362,880 of them; beyond that ``num_resamples`` are
    drawn from ``seed`` and the p-value carries the +1 correction and its standard error. With
    ``blocks`` (for example seeds) x is permuted within each block only, which asks whether x and y
    go together inside blocks, and the p-value compares the coefficient's distance from its mean
    over those arrangements; the coefficient reported stays the one over all units.

    Args:
        x: one value per unit.
        y: one value per unit.
        kind: pearson, or spearman (average ranks).
        blocks: one label per unit, or None for free permutation.
        num_resamples: Monte Carlo draws where enumeration is too large.
        seed: of those draws.

    Returns:
        NaN statistic and p-value, procedure "undefined", with fewer than three finite pairs or a
        constant side.

    Raises:
        DriftscopeError: if x, y and blocks differ in length.
    """
    (test,) = permutation_correlations(
        x,
        [y],
        kind=kind,
        blocks=blocks,
        num_resamples=num_resamples,
        seed=seed,
    )
    return test


def permutation_correlations(
    x: ArrayLike,
    ys: Sequence[ArrayLike],
    *,
    kind: str = "spearman",
    blocks: Sequence[object] | None = None,
    num_resamples: int = 9_999,
    seed: int = 0,
) -> tuple[CorrelationTest, ...]:
    """`permutation_correlation` of x with each y; rearranging x once serves them all."""
    require_choice("kind of correlation", kind, KINDS)
    tests: dict[int, CorrelationTest] = {}
    same_units: dict[bytes, list[int]] = {}
    for k, y in enumerate(ys):
        _, keep = finite_rows(x, y)
        same_units.setdefault(keep.tobytes(), []).append(k)
    for members in same_units.values():
        first, keep = finite_rows(x, ys[members[0]])
        order, sizes = _sorted_by_block(blocks, keep)
        a = first[0][order]
        columns = [finite_rows(x, ys[k])[0][1][order] for k in members]
        design = _Design(kind, sizes, int((~keep).sum()), num_resamples, seed)
        tests.update(zip(members, _tests_on_same_units(a, columns, design), strict=True))
    return tuple(tests[k] for k in range(len(ys)))


@dataclass(frozen=True)
class _Design:
    kind: str
    block_sizes: tuple[int, ...]
    num_excluded: int
    num_resamples: int
    seed: int

    @property
    def is_exact(self) -> bool:
        return num_within_blocks(self.block_sizes) <= EXACT_LIMIT

    def arrangements(self) -> IndexArray:
        if self.is_exact:
            return exact_within_blocks(self.block_sizes)
        return sampled_within_blocks(self.block_sizes, self.num_resamples, self.seed)


def _tests_on_same_units(
    a: FloatArray, columns: list[FloatArray], design: _Design
) -> list[CorrelationTest]:
    defined = [k for k, b in enumerate(columns) if _is_defined(a, b)]
    undefined = CorrelationTest(
        design.kind,
        nan,
        nan,
        nan,
        nan,
        "undefined",
        0,
        a.size,
        len(design.block_sizes),
        design.num_excluded,
    )
    tests = [undefined] * len(columns)
    if not defined:
        return tests
    table = design.arrangements()
    nulls = _null_distributions(a, [columns[k] for k in defined], table, design)
    for k, (null, observed) in zip(defined, nulls, strict=True):
        error = 0.0
        if design.is_exact:
            p_value, p_floor = exact_p(null, observed)
        else:
            p_value, p_floor, error = sampled_p(null, observed)
        tests[k] = CorrelationTest(
            kind=design.kind,
            statistic=correlation(a, columns[k], kind=design.kind),
            p_value=p_value,
            p_floor=p_floor,
            p_standard_error=error,
            procedure="exact" if design.is_exact else "monte carlo",
            num_arrangements=len(table),
            num_units=a.size,
            num_blocks=len(design.block_sizes),
            num_excluded=design.num_excluded,
        )
    return tests


def partial_correlation(
    x: ArrayLike, y: ArrayLike, given: Sequence[ArrayLike], *, kind: str = "spearman"
) -> float:
    """The correlation of x and y given other variables, −1 to 1.

    Each side (its average ranks for Spearman) is replaced by its residual from a least-squares fit
    on the covariates (their ranks for Spearman) and an intercept; the statistic is the Pearson
    correlation of the residuals. NaN with fewer than ``len(given) + 3`` rows, or where a side is
    explained entirely by the covariates.

    Args:
        x: one value per unit.
        y: one value per unit.
        given: covariates, each one value per unit.
        kind: pearson or spearman.
    """
    require_choice("kind of correlation", kind, KINDS)
    columns, keep = finite_rows(x, y, *given)
    num_units = int(keep.sum())
    if num_units < len(columns) + 1:
        return nan
    if kind == "spearman":
        columns = tuple(scipy_stats.rankdata(column) for column in columns)
    design = np.column_stack([np.ones(num_units), *columns[2:]])
    residuals = []
    for side in columns[:2]:
        fitted = design @ np.linalg.lstsq(design, side, rcond=None)[0]
        residual = side - fitted
        if np.linalg.norm(residual) <= 1e-9 * max(1.0, float(np.linalg.norm(side))):
            return nan
        residuals.append(_standardised(residual))
    return float(np.clip(residuals[0] @ residuals[1], -1.0, 1.0))


def _is_defined(a: FloatArray, b: FloatArray) -> bool:
    return a.size >= 3 and not any(is_constant(side, beside=largest(side)) for side in (a, b))


def _standardised(values: FloatArray) -> FloatArray:
    centred = values - values.mean()
    centred = centred / largest(centred)  # squares of tiny values would vanish
    scaled: FloatArray = centred / np.linalg.norm(centred)
    return scaled


def _sorted_by_block(
    blocks: Sequence[object] | None, keep: np.ndarray
) -> tuple[IndexArray, tuple[int, ...]]:
    if blocks is None:
        return np.arange(int(keep.sum())), (int(keep.sum()),)
    if len(blocks) != keep.size:
        raise DriftscopeError(
            f"Blocks must name one block per unit, got {len(blocks)} for {keep.size} units."
        )
    labels = [str(label) for label, kept in zip(blocks, keep, strict=True) if kept]
    _, codes = np.unique(labels, return_inverse=True) if labels else (None, np.zeros(0, np.intp))
    sizes = tuple(int(size) for size in np.bincount(codes) if size)
    return np.argsort(codes, kind="stable"), sizes


def _null_distributions(
    a: FloatArray, columns: list[FloatArray], table: IndexArray, design: _Design
) -> Iterator[tuple[FloatArray, float]]:
    """Per column, the coefficient less its mean over the arrangements: for each, and observed."""
    block = np.repeat(np.arange(len(design.block_sizes)), design.block_sizes)
    if design.kind == "spearman":
        a, columns = scipy_stats.rankdata(a), [scipy_stats.rankdata(b) for b in columns]
    a = _standardised(a)
    right = np.column_stack([_standardised(b) for b in columns])
    block_means = np.bincount(block, weights=a) / np.bincount(block)
    expected = block_means[block] @ right
    null = np.empty((len(table), len(columns)))
    step = max(1, _CHUNK_ELEMENTS // a.size)
    for start in range(0, len(table), step):
        null[start : start + step] = a[table[start : start + step]] @ right
    observed = a @ right
    for k in range(len(columns)):
        yield null[:, k] - expected[k], float(observed[k] - expected[k])
