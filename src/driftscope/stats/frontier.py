"""Trade-offs between two quantities that should both be large."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope.stats.known_values import finite_rows


def non_dominated(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats in one coordinate without losing in the other.

    Larger is better in both. Equal points do not dominate each other. A point with a coordinate
    that is not finite is never on the frontier.
    """
    first = np.asarray(x, dtype=np.float64).ravel()
    second = np.asarray(y, dtype=np.float64).ravel()
    (a, b), keep = finite_rows(first, second)
    on_frontier = np.zeros(first.size, dtype=np.bool_)
    order = np.lexsort((-b, -a))
    best = -np.inf
    kept = np.zeros(a.size, dtype=np.bool_)
    previous: tuple[float, float] | None = None
    for index in order:
        point = (float(a[index]), float(b[index]))
        if point[1] > best or point == previous:
            kept[index] = True
            best, previous = max(best, point[1]), point
    on_frontier[keep] = kept
    return on_frontier


def hypervolume(
    x: ArrayLike, y: ArrayLike, *, reference: tuple[float, float] = (0.0, 0.0)
) -> float:
    """The area that the points dominate above the reference point, in x's unit × y's unit.

    Larger is better in both; points not above the reference add nothing; 0 without any point.
    """
    (a, b), _ = finite_rows(x, y)
    a, b = a - reference[0], b - reference[1]
    above = (a > 0) & (b > 0)
    a, b = a[above], b[above]
    order = np.argsort(-a)
    area, reached = 0.0, 0.0
    for width, height in zip(a[order], b[order], strict=True):
        if height > reached:
            area += float(width) * (float(height) - reached)
            reached = float(height)
    return area
