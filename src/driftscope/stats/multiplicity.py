"""Adjusting the p-values of a family that was declared before they were seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from driftscope.errors import ConfigError
from driftscope.stats.known_values import FloatArray, require_share


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
    """A family's p-values, adjusted by Holm's method.

    Attributes:
        family: as declared.
        alpha: the level.
        p_adjusted: by test, NaN where it had none.
        num_tests: how many p-values were adjusted together.
        excluded: declared tests without a finite p-value; they neither count nor contaminate.
    """

    family: Family
    alpha: float
    p_adjusted: dict[str, float]
    num_tests: int
    excluded: tuple[str, ...]


def adjust(family: Family, p_values: Mapping[str, float], *, alpha: float = 0.05) -> Adjusted:
    """The family's p-values after Holm's (1979) adjustment, which holds whatever the dependence.

    Args:
        family: the tests declared.
        p_values: by test; one that could not be computed is NaN or missing and is excluded.
        alpha: the level.

    Raises:
        ConfigError: if a p-value belongs to no declared test, or lies outside 0 to 1.
    """
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
    values = holm(np.array([raw[name] for name in usable]))
    adjusted = dict.fromkeys(family.members, nan) | dict(zip(usable, values.tolist(), strict=True))
    excluded = tuple(name for name in family.members if name not in usable)
    return Adjusted(family, alpha, adjusted, len(usable), excluded)


def holm(p_values: FloatArray) -> FloatArray:
    """Each p-value times how many are at least as large, never below a smaller one's, at most 1.

    statsmodels gives the same numbers, and is the reference of the tests; scipy has no Holm.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values, dtype=np.float64)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
