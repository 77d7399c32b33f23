"""How many unlabeled images can tell whether a retention budget is kept."""

from __future__ import annotations

import math

_ENOUGH_TO_LOSE = 10
"""So many of them may be lost within the budget, where they are enough."""
_FEW_TO_LOSE = _ENOUGH_TO_LOSE / 2
"""With fewer a harmless change cannot be told from one that breaks the budget."""


def enough_images(keep_pct: float) -> int | None:
    """How many images of a pool must judge, for a budget in percent; None where none are enough.

    With so many the budget lets 10 be lost. The estimate's interval takes some of these.
    """
    if keep_pct >= 100:
        return None
    return math.ceil(round(_ENOUGH_TO_LOSE * 100 / (100 - keep_pct), 6))


def why_too_few(num_images: int, keep_pct: float) -> str:
    """Why so many judging images cannot tell whether a budget is kept; "" where they can."""
    may_be_lost = num_images * (100 - keep_pct) / 100
    if keep_pct >= 100 or may_be_lost >= _FEW_TO_LOSE:
        return ""
    lost = math.floor(round(may_be_lost, 6))
    told = f"At a budget of {keep_pct:g} % "
    if lost == 0:
        return f"{told}none of the {num_images:,} judging images may be lost."
    return (
        f"{told}no more than {lost} of the {num_images:,} judging images may be lost, and the "
        "estimate's interval takes some of them."
    )
