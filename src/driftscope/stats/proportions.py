"""A share of counted things, with its interval."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=4096)  # thousands of runs count hits on the same few images
def wilson_interval_pct(num_hits: int, num_trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a proportion (Wilson 1927), in percent; by scipy.

    Raises:
        ValueError: `num_trials` is not positive, or `num_hits` is not from 0 to it.
    """
    from scipy.stats import binomtest  # a second of its own, which most commands do without

    interval = binomtest(num_hits, num_trials).proportion_ci(method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def paired_ratio_interval(
    num_both: int, num_lost: int, num_gained: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of a ratio of two shares that were counted on the same images, in [0, ∞].

    Bonett and Price (2006, Statistics in Medicine 25:3039): Wilson intervals of both shares, at a
    level chosen so that the ratio of their ends covers as it should although the images are the
    same.

    Args:
        num_both: images that are right before and after.
        num_lost: right before, wrong after.
        num_gained: wrong before, right after.
        confidence: the share of such intervals that hold the true ratio.

    Returns:
        The ends of the interval of (share after) / (share before).

    Raises:
        ValueError: nothing was right before.
    """
    from scipy.special import ndtri  # a tenth of a second that each command would wait for

    before, after = num_both + num_lost, num_both + num_gained
    if before == 0:
        raise ValueError("a ratio to a share of 0 is undefined")
    count = num_both + num_lost + num_gained
    of_ratio = math.sqrt((num_lost + num_gained + 2) / ((before + 1) * (after + 1)))
    of_before = math.sqrt((1 - (before + 1) / (count + 2)) / (before + 1))
    of_after = math.sqrt((1 - (after + 1) / (count + 2)) / (after + 1))
    z = float(ndtri((1 + confidence) / 2)) * of_ratio / (of_before + of_after)
    before_low, before_high = _wilson(before, count, z)
    after_low, after_high = _wilson(after, count, z)
    return after_low / before_high, after_high / before_low


def _wilson(num_hits: int, num_trials: int, z: float) -> tuple[float, float]:
    middle = num_hits + z * z / 2
    half = z * math.sqrt(num_hits * (1 - num_hits / num_trials) + z * z / 4)
    return (middle - half) / (num_trials + z * z), (middle + half) / (num_trials + z * z)
