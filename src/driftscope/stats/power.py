"""How many seeds a difference needs, and how small a difference given seeds can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftscope.errors import ConfigError
from driftscope.stats.finite import require_choice, require_share

DESIGNS = ("paired", "two groups")


@dataclass(frozen=True)
class Power:
    """The power of a planned two-sided t test.

    Attributes:
        design: "paired" (pairs of runs that share a seed) or "two groups".
        effect_size: d_z of the pairs, or d of the groups, ≥ 0.
        num_seeds: pairs, or runs in each group.
        alpha: the level.
        power: the probability of rejecting, 0 to 1.
    """

    design: str
    effect_size: float
    num_seeds: int
    alpha: float
    power: float


def power_of_contrast(
    effect_size: float, num_seeds: int, *, design: str = "paired", alpha: float = 0.05
) -> Power:
    """The probability, 0 to 1, that a planned contrast rejects, if the effect is this large."""
    solver = _solver(design, alpha)
    _require_seeds(num_seeds)
    value = float(solver.power(abs(effect_size), num_seeds, alpha, alternative="two-sided"))
    return Power(design, abs(effect_size), num_seeds, alpha, value)


def minimum_detectable_effect(
    num_seeds: int, *, design: str = "paired", alpha: float = 0.05, power: float = 0.8
) -> Power:
    """The smallest standardised effect that a planned number of seeds shows with this power."""
    solver = _solver(design, alpha)
    _require_seeds(num_seeds)
    require_share("power", power)

    # Power rises with the effect: double until it is enough, then halve the interval.
    def reached(effect: float) -> float:
        return float(solver.power(effect, num_seeds, alpha, alternative="two-sided"))

    low, high = 0.0, 1.0
    while reached(high) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < power else (low, middle)
    return Power(design, high, num_seeds, alpha, reached(high))


def num_seeds_needed(
    effect_size: float,
    *,
    design: str = "paired",
    alpha: float = 0.05,
    power: float = 0.8,
    limit: int = 100_000,
) -> Power:
    """The fewest seeds (pairs, or runs in each group) that show this effect with this power.

    Raises:
        ConfigError: if the effect is zero or needs more than ``limit`` seeds.
    """
    require_share("power", power)
    low, high = 1, 2
    while power_of_contrast(effect_size, high, design=design, alpha=alpha).power < power:
        low, high = high, 2 * high
        if high > limit:
            raise ConfigError(
                f"An effect of {effect_size!r} needs more than {limit} seeds for power {power}; "
                "plan for a larger effect."
            )
    while high - low > 1:
        middle = (low + high) // 2
        reached = power_of_contrast(effect_size, middle, design=design, alpha=alpha).power
        low, high = (middle, high) if reached < power else (low, middle)
    return power_of_contrast(effect_size, high, design=design, alpha=alpha)


def _solver(design: str, alpha: float) -> Any:
    from statsmodels.stats.power import TTestIndPower, TTestPower

    require_choice("design", design, DESIGNS)
    require_share("alpha", alpha)
    return TTestPower() if design == "paired" else TTestIndPower()


def _require_seeds(num_seeds: int) -> None:
    if num_seeds < 2:
        raise ConfigError(f"A contrast needs at least 2 seeds, got {num_seeds!r}.")
