"""How many unlabeled images can tell whether a retention budget is kept."""

from __future__ import annotations

import math

_ENOUGH_MAY_CHANGE = 10
"""So many of them may get another answer within the budget, where they are enough."""
_FEW_MAY_CHANGE = _ENOUGH_MAY_CHANGE / 2
"""With fewer a harmless change cannot be told from one that breaks the budget."""


def enough_images(keep_pct: float) -> int | None:
    """How many images of a pool must judge, for a budget in percent; None where none are enough.

    Of so many the budget lets 10 get another answer. The estimate's interval takes some of these.
    """
    if keep_pct >= 100:
        return None
    return math.ceil(round(_ENOUGH_MAY_CHANGE * 100 / (100 - keep_pct), 6))


def why_too_few(num_images: int, keep_pct: float) -> str:
    """Why so many judging images cannot tell whether a budget is kept; "" where they can."""
    may_change = num_images * (100 - keep_pct) / 100
    if keep_pct >= 100 or may_change >= _FEW_MAY_CHANGE:
        return ""
    most = math.floor(round(may_change, 6))
    told = f"At a budget of {keep_pct:g} % "
    if most == 0:
        return f"{told}hardly one of the {num_images:,} judging images may get another answer."
    return (
        f"{told}about {most} of the {num_images:,} judging images may get another answer, and the "
        "estimate's interval takes some of them."
    )
