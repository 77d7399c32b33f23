"""Whether two profiles over the same places go together, in several units at once.

The places of one unit, such as the blocks of a network, are not independent, and a pattern of the
places that all units share is one fact and not many. So the places are what is exchanged, in all
units alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from driftscope.stats.arrangements import (
    EXACT_LIMIT,
    exact_p,
    exact_within_blocks,
    sampled_p,
    sampled_within_blocks,
)
from driftscope.stats.known_values import FloatArray, is_constant


@dataclass(frozen=True)
class ProfileTest:
    """A test of whether profiles go together.

    Attributes:
        by_unit: Spearman's correlation over the places of each unit; NaN where a profile is flat.
        mean: over the units.
        p_value: two-sided, of rearranging the places in all units alike.
        p_floor: the smallest that it could be.
        num_units: units with both profiles.
        num_arrangements: of the places.
    """

    by_unit: FloatArray
    mean: float
    p_value: float
    p_floor: float
    num_units: int
    num_arrangements: int


def profiles_go_together(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    *,
    num_resamples: int = 9_999,
    seed: int = 0,
) -> ProfileTest:
    """The mean rank correlation of pairs of profiles, tested by rearranging the places.

    Every order of the places up to 9! of them, else a seeded sample with the +1 correction. The
    second profiles of all units are rearranged alike.

    Args:
        first, second: one profile a unit, all of one length.
        num_resamples: of a sample.
        seed: of it.
    """
    pairs = [(_ranked(one), _ranked(other)) for one, other in zip(first, second, strict=True)]
    by_unit = np.array([float(one @ other) for one, other in pairs])
    known = [pair for pair, rho in zip(pairs, by_unit, strict=True) if np.isfinite(rho)]
    if not known:
        return ProfileTest(by_unit, nan, nan, nan, 0, 0)
    # the mean correlation is linear in which place of the second stands at which of the first
    together = np.mean([np.outer(one, other) for one, other in known], axis=0)
    places = np.arange(len(together))
    mean = float(np.trace(together))
    if factorial(len(places)) <= EXACT_LIMIT:
        orders = exact_within_blocks((len(places),))
        p_value, p_floor = exact_p(together[places, orders].sum(axis=1), mean)
    else:
        orders = sampled_within_blocks((len(places),), num_resamples, seed)
        p_value, p_floor, _ = sampled_p(together[places, orders].sum(axis=1), mean)
    return ProfileTest(by_unit, mean, p_value, p_floor, len(known), len(orders))


def _ranked(values: ArrayLike) -> FloatArray:
    """Average ranks, centred and of unit length; NaN where they are all equal or one is unknown."""
    given = np.asarray(values, dtype=np.float64)
    if not np.isfinite(given).all() or is_constant(given):
        return np.full(given.shape, nan)
    ranks = scipy_stats.rankdata(given)
    centred: FloatArray = ranks - ranks.mean()
    return centred / np.sqrt(centred @ centred)
