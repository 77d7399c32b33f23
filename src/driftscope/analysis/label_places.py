"""Where the labels of points stand, so that none lies on another, on a point or on a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spot = tuple[float, float]
"""A place in a panel, or an offset: pixels to the right and upwards."""

SIZES = ((310.0, 225.0), (400.0, 290.0))
"""Pixels between the axes of the narrowest panel and of a wide one; labels must fit in both."""
_LETTER, _LINE, _POINT = 6.1, 13.0, 7.0
"""Pixels of a letter's width, of a line of text, and of a point's half."""
_RINGS = (11.0, 22.0, 36.0, 52.0, 70.0, 90.0)
"""How far from its point a label may stand."""
_STEP = 4.0
"""Pixels between the places of a line that are looked at."""
_ON_A_POINT, _ON_A_LINE, _DEAR = 6.0, 0.4, 4.0
"""What it costs to cover a point, or a place of a line, and what is too dear for a label that need
not be; a pixel of distance costs 0.1."""


@dataclass(frozen=True)
class Ends:
    """What an axis shows: from `low` to `high`."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """How far along the axis a value is, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    low: float
    high: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.low < other.high and other.low < self.high

    def holds(self, spots: NDArray[np.float64], room: float = 0.0) -> int:
        """How many of the spots lie in it, or within `room` pixels of it."""
        if not len(spots):
            return 0
        x, y = spots[:, 0], spots[:, 1]
        across = (x > self.left - room) & (x < self.right + room)
        return int((across & (y > self.low - room) & (y < self.high + room)).sum())


def label_offsets(
    points: Sequence[Spot],
    texts: Sequence[str],
    x: Ends,
    y: Ends,
    *,
    lines: Sequence[tuple[Spot, Spot]] = (),
    num_far: int | None = None,
) -> list[Spot | None]:
    """How far from its point each label's near edge stands; None where there is no room.

    A label lies inside the axes, on no other label, and where it can on no point and no line.

    Args:
        points: in the units of the axes; the first are placed first.
        texts: what is written beside each, "" for nothing; a line break makes two lines.
        x, y: what the axes show.
        lines: the ends of each line that labels should leave free.
        num_far: how many of the first may stand far off, or on what is drawn; by default all.
    """

    panels = [_Canvas.of(size, points, x, y, lines) for size in SIZES]
    found: list[Spot | None] = []
    for number, text in enumerate(texts):
        ranked = sorted(
            (sum(panel.cost(number, offset, text) for panel in panels), place)
            for place, offset in enumerate(_OFFSETS if text else ())
        )
        dearest = _DEAR * len(SIZES) if num_far is not None and number >= num_far else math.inf
        offset = _OFFSETS[ranked[0][1]] if ranked and ranked[0][0] < dearest else None
        found.append(offset)
        for panel in panels if offset else ():
            panel.taken.append(panel.box(number, offset or (0.0, 0.0), text))
    return found


@dataclass(frozen=True)
class _Canvas:
    """A panel of one size: its points, what is drawn between them, and where labels stand."""

    size: Spot
    dots: NDArray[np.float64]
    drawn: NDArray[np.float64]
    taken: list[_Box]

    @classmethod
    def of(
        cls,
        size: Spot,
        points: Sequence[Spot],
        x: Ends,
        y: Ends,
        lines: Sequence[tuple[Spot, Spot]],
    ) -> _Canvas:
        def spot(at: Spot) -> Spot:
            return size[0] * x.share(at[0]), size[1] * y.share(at[1])

        dots = np.array([spot(at) for at in points], dtype=np.float64).reshape(-1, 2)
        along = [_along(spot(start), spot(end)) for start, end in lines]
        return cls(size, dots, np.concatenate([np.empty((0, 2)), *along]), [])

    def cost(self, number: int, offset: Spot, text: str) -> float:
        """How bad the place is; infinite outside the axes or on another label."""
        box = self.box(number, offset, text)
        is_inside = box.left >= 0 and box.right <= self.size[0]
        is_inside = is_inside and box.low >= 0 and box.high <= self.size[1]
        if not is_inside or any(box.meets(other) for other in self.taken):
            return math.inf
        return (
            0.1 * math.hypot(*offset)
            + _ON_A_POINT * box.holds(self.dots, _POINT - 2)
            + _ON_A_LINE * box.holds(self.drawn)
        )

    def box(self, number: int, offset: Spot, text: str) -> _Box:
        """The room of a text whose near edge stands `offset` from a point."""
        rows = text.split("\n")
        width, height = _LETTER * max(map(len, rows)), _LINE * len(rows)
        x, y = self.dots[number] + offset
        left = float(x) - (0.0 if offset[0] > 1 else width if offset[0] < -1 else width / 2)
        return _Box(left, left + width, float(y) - height / 2, float(y) + height / 2)


def _along(start: Spot, end: Spot) -> NDArray[np.float64]:
    return np.linspace(start, end, 2 + int(math.dist(start, end) / _STEP))


def _offsets() -> Iterator[Spot]:
    for far in _RINGS:
        for turn in range(16):
            angle = math.tau * (turn + 2) / 16  # first to the right above
            yield round(far * math.cos(angle), 1), round(far * math.sin(angle), 1)


_OFFSETS = tuple(_offsets())
