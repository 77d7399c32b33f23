"""A share of counted things, with its interval."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval_pct(num_hits: int, num_trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a proportion (Wilson 1927), in percent; by scipy.

    Raises:
        ValueError: `num_trials` is not positive, or `num_hits` is not from 0 to it.
    """
    interval = binomtest(num_hits, num_trials).proportion_ci(method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)
