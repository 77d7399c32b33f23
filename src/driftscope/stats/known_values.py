"""What every test does first: arrays of floats, with what is not finite left out and counted."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope.errors import ConfigError, DriftscopeError, did_you_mean

FloatArray = NDArray[np.float64]


def finite(values: ArrayLike) -> tuple[FloatArray, int]:
    """The finite values, flat and in order, and how many were left out."""
    array = np.asarray(values, dtype=np.float64).ravel()
    keep = np.isfinite(array)
    return array[keep], int((~keep).sum())


def finite_rows(*columns: ArrayLike) -> tuple[tuple[FloatArray, ...], NDArray[np.bool_]]:
    """The columns without the rows where any is not finite, and the mask of the rows kept.

    Raises:
        DriftscopeError: if the columns differ in length.
    """
    arrays = [np.asarray(column, dtype=np.float64).ravel() for column in columns]
    lengths = {array.size for array in arrays}
    if len(lengths) != 1:
        raise DriftscopeError(
            f"Values that belong together must be equally many, got {sorted(lengths)}; "
            "give one value per unit, NaN where one is unknown."
        )
    keep = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    return tuple(array[keep] for array in arrays), keep


def is_constant(values: FloatArray, *, beside: float = 0.0) -> bool:
    """Whether values differ by no more than the rounding of numbers as large as ``beside``."""
    return values.size == 0 or bool(np.ptp(values) <= 1e-13 * beside)


def largest(*columns: FloatArray) -> float:
    """The largest absolute value of all columns; 0 without any."""
    return max((float(np.abs(column).max(initial=0.0)) for column in columns), default=0.0)


def require_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Raise a ConfigError naming the nearest valid choice unless ``value`` is one."""
    choices = tuple(valid)
    if value not in choices:
        raise ConfigError(f"Unknown {name} {value!r}: {did_you_mean(value, choices)}.")


def require_share(name: str, value: float) -> None:
    """Raise a ConfigError unless ``value`` lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value!r}; 0.95 is usual.")


def finite_mean(values: FloatArray) -> float:
    """The mean of the finite values; NaN without one."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else nan


def finite_sd(values: FloatArray) -> float:
    """The sample standard deviation of the finite values; NaN below two."""
    kept = values[np.isfinite(values)]
    return float(kept.std(ddof=1)) if kept.size > 1 else nan
