"""The rearrangements that a permutation test compares with: all of them, or a seeded sample.

scipy's `permutation_test` has neither blocks, nor the floor of an exact p-value, nor ties seen
through rounding.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, permutations, product
from math import comb, factorial, prod

import numpy as np
from numpy.typing import NDArray

from driftscope.stats.known_values import FloatArray

IndexArray = NDArray[np.intp]

EXACT_LIMIT = factorial(9)
"""Up to this many arrangements (9! = 362,880) a test enumerates them all."""

TIE_TOLERANCE = 1e-10
"""Two standardised statistics closer than this are the same value seen through rounding."""


def num_within_blocks(block_sizes: tuple[int, ...]) -> int:
    """How many ways there are to permute units inside their blocks."""
    return prod(factorial(size) for size in block_sizes)


@lru_cache(maxsize=16)
def _all_permutations(num_units: int) -> NDArray[np.int8]:
    # One array per n, computed once: 9! rows of int8 are 3.3 MB.
    flat = np.fromiter(
        (position for order in permutations(range(num_units)) for position in order),
        dtype=np.int8,
        count=factorial(num_units) * num_units,
    )
    table = flat.reshape(-1, num_units)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def exact_within_blocks(block_sizes: tuple[int, ...]) -> IndexArray:
    """Every permutation inside blocks, units sorted by block: [arrangement, unit]."""
    table = np.zeros((1, 0), dtype=np.intp)
    for size in block_sizes:
        block = _all_permutations(size).astype(np.intp) + table.shape[1]
        left = np.repeat(table, len(block), axis=0)
        right = np.tile(block, (len(table), 1))
        table = np.concatenate([left, right], axis=1)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def sampled_within_blocks(
    block_sizes: tuple[int, ...], num_resamples: int, seed: int
) -> IndexArray:
    """Seeded random permutations inside blocks, units sorted by block: [arrangement, unit]."""
    rng = np.random.default_rng(seed)
    parts = []
    start = 0
    for size in block_sizes:
        identity = np.broadcast_to(np.arange(start, start + size), (num_resamples, size))
        parts.append(rng.permuted(identity, axis=1))
        start += size
    table = np.concatenate(parts, axis=1).astype(np.intp)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=16)
def exact_splits(num_first: int, num_units: int) -> NDArray[np.bool_]:
    """Every choice of ``num_first`` of the units: [arrangement, unit], True where chosen."""
    table = np.zeros((comb(num_units, num_first), num_units), dtype=np.bool_)
    for row, chosen in enumerate(combinations(range(num_units), num_first)):
        table[row, list(chosen)] = True
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def sampled_splits(num_first: int, num_units: int, num_resamples: int, seed: int) -> IndexArray:
    """Seeded random choices of ``num_first`` of the units: [arrangement, chosen unit].

    Drawn once for all tests of groups of these sizes: drawing costs more than the test itself.
    """
    rng = np.random.default_rng(seed)
    identity = np.broadcast_to(np.arange(num_units), (num_resamples, num_units))
    table = rng.permuted(identity, axis=1)[:, :num_first].astype(np.intp)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=16)
def exact_signs(num_units: int) -> NDArray[np.int8]:
    """Every assignment of signs to the units: [2 ** num_units, unit] of −1 and 1."""
    table = np.array(list(product((1, -1), repeat=num_units)), dtype=np.int8)
    table = table.reshape(2**num_units, num_units)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=2)
def sampled_signs(num_units: int, num_resamples: int, seed: int) -> NDArray[np.int8]:
    """Seeded choices of the units whose signs change: [arrangement, unit] of 0 and 1.

    Drawn once for all tests of so many pairs.
    """
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 2, size=(num_resamples, num_units), dtype=np.int8)
    table.setflags(write=False)
    return table


def tail(values: FloatArray, observed: float) -> NDArray[np.bool_]:
    """Which values are at least as far from 0 as the observed one, ties (to rounding) included."""
    tolerance = TIE_TOLERANCE * max(1.0, float(np.abs(values).max(initial=0.0)))
    return np.abs(values) >= abs(observed) - tolerance


def exact_p(null: FloatArray, observed: float) -> tuple[float, float]:
    """The exact two-sided p-value of a centred statistic, and the smallest that can be had."""
    most_extreme = float(np.abs(null).max())
    return float(tail(null, observed).mean()), float(tail(null, most_extreme).mean())


def sampled_p(null: FloatArray, observed: float) -> tuple[float, float, float]:
    """The Monte Carlo p-value with the +1 correction, its floor, and its standard error.

    The observed arrangement counts as one of the sampled ones (Phipson & Smyth 2010), so that the
    p-value is never 0 and the test keeps its size.
    """
    total = len(null) + 1
    p_value = (1 + int(tail(null, observed).sum())) / total
    return p_value, 1 / total, float(np.sqrt(p_value * (1 - p_value) / total))
