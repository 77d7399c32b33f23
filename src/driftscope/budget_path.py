"""How a pool's choices change on the way W₀ + α·ΔW, foretold from the few shares α looked at.

On the way from the pretrained to the adapted model an image's cosines to the class prompts move
smoothly. So a polynomial through those at 0, at 1 and at the nearest shares that were tried tells,
without a forward pass, what the model chooses at another share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.estimate import Referee
from driftscope.signals.label_free import estimated_retention_pct

_HALVINGS = 7
_FIRST_MARGIN = 0.4
"""Of what a budget allows to lose: so much first lies between an estimate and its lower end."""
_LEAST_STEP = 0.1
"""Of the way between a share that keeps the budget and one that does not: so far is gone."""


@dataclass(eq=False)
class ChoicePath:
    """The cosines of a pool's images to its classes at shares of what training has changed.

    Args:
        referee: the pretrained model's view of the pool.
        adapted: the cosines at the share 1.
    """

    referee: Referee
    adapted: Float[Tensor, "image class"]
    known: dict[float, Float[Tensor, "image class"]] = field(init=False)

    def __post_init__(self) -> None:
        pretrained = self.referee.logits / self.referee.pool.logit_scale
        self.known = {0.0: pretrained, 1.0: self.adapted}
        self._distribution = self.referee.logits.softmax(dim=1)

    def largest(self, budget_pct: float, good: float, bad: float) -> float:
        """The largest share whose estimate is foretold to keep the budget with its lower end.

        Args:
            budget_pct: the least retention, in percent.
            good: the largest share known to keep it, 0 at first.
            bad: the least share known not to, 1 at first.
        """
        first = self._reaching(budget_pct + _FIRST_MARGIN * (100 - budget_pct), good, bad)
        told = self.referee.judge(self._chosen(first, good, bad))
        margin = (told.retention_pct or 0.0) - (told.low_90_pct or 0.0)
        step = _LEAST_STEP * (bad - good)
        return min(bad - step, max(good + step, self._reaching(budget_pct + margin, good, bad)))

    def _reaching(self, least_pct: float, good: float, bad: float) -> float:
        """The largest share whose estimate is foretold to be at least this, by bisection."""
        low, high = good, bad
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            chosen = self._chosen(middle, good, bad)
            reaches = estimated_retention_pct(self._distribution, chosen) >= least_pct
            low, high = (middle, high) if reaches else (low, middle)
        return low

    def _chosen(self, share: float, good: float, bad: float) -> Int64[Tensor, " image"]:
        """What the model is foretold to choose there."""
        shares = sorted({0.0, good, bad, 1.0})
        weights = lagrange_weights(shares, share)
        parts = [weight * self.known[one] for weight, one in zip(weights, shares, strict=True)]
        return sum(parts[1:], parts[0]).argmax(dim=1)


def lagrange_weights(knots: Sequence[float], at: float) -> list[float]:
    """How much each knot's value counts in the polynomial through all of them, at one place."""
    return [
        prod((at - other) / (knot - other) for other in knots if other != knot) for knot in knots
    ]
