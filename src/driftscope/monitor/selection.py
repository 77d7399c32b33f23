"""The best checkpoint by two metrics: accurate enough, then the least drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Selection:
    """How the best checkpoint is chosen, and when training ends early.

    Among the observations whose validation accuracy is within `within_points` of the best so far,
    the best is the one with the least drift (the highest retention, or the highest CKA).

    Attributes:
        within_points: percentage points of validation accuracy that less drift may cost.
        by: `embedding_drift`, `retention_pct` (of the first transfer set) or `cka`.
        patience: observations without a new best after which training should stop; None never.
    """

    within_points: float = 1.0
    by: Literal["embedding_drift", "retention_pct", "cka"] = "embedding_drift"
    patience: int | None = None
