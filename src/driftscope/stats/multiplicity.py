"""Adjusting the p-values of a family that was declared before they were seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from scipy import stats as scipy_stats

from driftscope.errors import ConfigError
from driftscope.stats.finite import FloatArray, require_choice, require_share


def holm(p_values: FloatArray) -> FloatArray:
    """Holm's (1979) step-down adjustment: strong control whatever the dependence."""
    return _step_down(p_values, lambda p, num_left: p * num_left)


def holm_sidak(p_values: FloatArray) -> FloatArray:
    """The step-down Šidák adjustment: strong control of independent tests."""
    return _step_down(p_values, lambda p, num_left: -np.expm1(num_left * np.log1p(-p)))


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """The false discovery rate's adjustment (Benjamini & Hochberg 1995)."""
    adjusted: FloatArray = scipy_stats.false_discovery_control(p_values, method="bh")
    return adjusted


# statsmodels' multipletests gives the same numbers but takes 90 ms a call for Holm.
METHODS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "holm": holm,
    "holm_sidak": holm_sidak,
    "benjamini_hochberg": benjamini_hochberg,
}


@dataclass(frozen=True)
class Family:
    """The tests that are judged together, declared before their p-values exist.

    Attributes:
        name: what the tests have in common, for the reader.
        members: the names of the tests, each once.
    """

    name: str
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.members)) != len(self.members):
            raise ConfigError(f"The family {self.name!r} names a test twice: {self.members}.")


@dataclass(frozen=True)
class Adjusted:
    """A family's p-values, adjusted.

    Attributes:
        family: as declared.
        method: holm, holm_sidak or benjamini_hochberg.
        alpha: the level.
        p_raw: by test, NaN where it had none.
        p_adjusted: by test, NaN where it had none.
        is_rejected: by test.
        num_tests: how many p-values were adjusted together.
        excluded: declared tests without a finite p-value; they neither count nor contaminate.
    """

    family: Family
    method: str
    alpha: float
    p_raw: dict[str, float]
    p_adjusted: dict[str, float]
    is_rejected: dict[str, bool]
    num_tests: int
    excluded: tuple[str, ...]


def adjust(
    family: Family,
    p_values: Mapping[str, float],
    *,
    method: str = "holm",
    alpha: float = 0.05,
) -> Adjusted:
    """The family's adjusted p-values.

    Args:
        family: the tests declared.
        p_values: by test; one that could not be computed is NaN or missing and is excluded.
        method: holm (strong control whatever the dependence), holm_sidak (independent tests),
            benjamini_hochberg (false discovery rate).
        alpha: the level.

    Raises:
        ConfigError: if a p-value belongs to no declared test, or lies outside 0 to 1.
    """
    require_choice("method of adjustment", method, METHODS)
    require_share("alpha", alpha)
    strangers = [name for name in p_values if name not in family.members]
    if strangers:
        raise ConfigError(
            f"The family {family.name!r} was declared without {strangers}; "
            "declare every test before looking at its p-value."
        )
    raw = {name: float(p_values.get(name, nan)) for name in family.members}
    usable = [name for name in family.members if isfinite(raw[name])]
    outside = {name: raw[name] for name in usable if not 0 <= raw[name] <= 1}
    if outside:
        raise ConfigError(f"A p-value lies between 0 and 1, got {outside}.")
    adjusted = dict.fromkeys(family.members, nan)
    if usable:
        values = METHODS[method](np.array([raw[name] for name in usable]))
        adjusted.update(zip(usable, (float(value) for value in values), strict=True))
    return Adjusted(
        family=family,
        method=method,
        alpha=alpha,
        p_raw=raw,
        p_adjusted=adjusted,
        is_rejected={name: bool(adjusted[name] <= alpha) for name in family.members},
        num_tests=len(usable),
        excluded=tuple(name for name in family.members if name not in usable),
    )


def _step_down(
    p_values: FloatArray, of_smallest: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    """Adjust each p-value by how many are at least as large, never below a smaller one's."""
    order = np.argsort(p_values, kind="stable")
    num_left = np.arange(p_values.size, 0, -1, dtype=np.float64)
    with np.errstate(divide="ignore"):  # a p-value of exactly 1 stays 1
        stepped = of_smallest(p_values[order], num_left)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
