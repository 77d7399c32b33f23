"""How far a number has moved, as a share of what it was."""

from __future__ import annotations

from math import inf


def percent_drift(adapted: float, pretrained: float) -> float:
    """Change from pretrained to adapted, percent of the pretrained value.

    0 where both are 0; infinite, with the sign of the adapted value, where only the pretrained one
    is (a change from nothing has no percentage).
    """
    if adapted == pretrained:
        return 0.0
    if pretrained == 0.0:
        return inf if adapted > 0.0 else -inf
    return 100.0 * (adapted - pretrained) / pretrained
