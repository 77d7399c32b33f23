"""Where the labels of points stand, so that none lies on another, on a point or on a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spot = tuple[float, float]
"""A place in a panel, or an offset: pixels to the right and upwards."""
Places = tuple[Spot | None, ...]
"""Where a label stands in a panel of each of `SIZES`; None where it has no room."""

STILL = 0
SIZES = ((370.0, 215.0), (290.0, 275.0), (390.0, 275.0), (580.0, 275.0))
"""Pixels between the axes of a panel: in a still figure, and on pages 400, 1280 and 1920 wide."""
_LETTER, _LINE, _POINT = 6.1, 13.0, 7.0
"""Pixels of a letter's width, of a line of text, and of a point's half."""
_APART = 8.0
"""Pixels between a label and the next below it: closer, the two read as one of two lines."""
_RINGS = (11.0, 16.0, 22.0, 28.0, 36.0, 44.0, 52.0, 60.0, 70.0, 80.0, 90.0, 115.0, 145.0)
_TURNS = 32
"""How far from its point a label may stand, and in how many directions."""
_ELSEWHERE = 22.0
"""Pixels to the points of others that are enough, where a label stands as far from its own."""
_STEP = 4.0
"""Pixels between the places of a line that are looked at."""
_ON_A_POINT, _ON_A_LINE = 6.0, 0.4
"""What it costs to cover a point, or a place of a line; a pixel of distance costs 0.1."""
LEADS = 16.0
"""Pixels from which on a line leads from a point to its label."""
_NEAR, _FAR = 36.0, 90.0
"""How far off a label may stand that is not to stand far off, and one that may; one that is needed
stands on any ring."""


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
        """Whether they lie on each other, or one so close below the other as its next line."""
        across = self.left < other.right and other.left < self.right
        return across and self.low < other.high + _APART and other.low < self.high + _APART

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
    num_needed: int = 0,
) -> list[Places]:
    """How far from its point each label's near edge stands, in a panel of each of `SIZES`.

    A label lies inside the axes, on no other label nor close below one, on no point and no line;
    the line that leads to one lies on no label. It is nearer to its own point than to any other,
    where these are near at all. Where there is no room for it, it has no place.

    Args:
        points: in the units of the axes; the first are placed first.
        texts: what is written beside each, "" for nothing; a line break makes two lines.
        x, y: what the axes show.
        lines: the ends of each line that labels leave free.
        num_far: how many of the first may stand far off; by default all.
        num_needed: how many of the first stand on points or lines rather than not at all.
    """
    farthest = [
        _FAR if num_far is None or number < num_far else _NEAR for number in range(len(texts))
    ]
    farthest[:num_needed] = [math.inf] * num_needed
    by_size = [
        _placed(_Canvas.of(size, points, x, y, lines), texts, farthest, num_needed)
        for size in SIZES
    ]
    return list(zip(*by_size, strict=True))


def _placed(
    panel: _Canvas, texts: Sequence[str], farthest: Sequence[float], num_needed: int
) -> list[Spot | None]:
    """The places in one panel, each as near as it finds one free."""
    found: list[Spot | None] = []
    for number, text in enumerate(texts):
        near = (at for at in _OFFSETS if math.hypot(*at) <= farthest[number])
        offset = next((at for at in near if panel.is_free(number, at, text)), None)
        offset = offset if text else None
        if offset is None and number < num_needed:
            offset = _cheapest(panel, number, text)
        found.append(offset)
        if offset is not None:
            panel.take(number, offset, text)
    return found


def _cheapest(panel: _Canvas, number: int, text: str) -> Spot | None:
    """Where a label covers least; None where it would lie on another or outside the axes."""
    costs = {at: panel.cost(number, at, text) for at in _OFFSETS}
    best = min(costs, key=costs.__getitem__)
    return best if math.isfinite(costs[best]) else None


@dataclass
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

    def is_free(self, number: int, offset: Spot, text: str) -> bool:
        """Whether the place holds nothing yet, and the line that leads to it crosses no label.

        Nor may another point be nearer than its own: the label would be read as that point's.
        """
        box = self.box(number, offset, text)
        return not (
            self._is_taken(box)
            or box.holds(self.dots, _POINT - 2)
            or box.holds(np.delete(self.dots, number, axis=0), min(math.hypot(*offset), _ELSEWHERE))
            or box.holds(self.drawn)
            or any(other.holds(self._lead(number, offset)) for other in self.taken)
        )

    def cost(self, number: int, offset: Spot, text: str) -> float:
        """How bad the place is; infinite outside the axes or on another label."""
        box = self.box(number, offset, text)
        if self._is_taken(box):
            return math.inf
        return (
            0.1 * math.hypot(*offset)
            + _ON_A_POINT * box.holds(self.dots, _POINT - 2)
            + _ON_A_POINT * box.holds(np.delete(self.dots, number, axis=0), _ELSEWHERE)
            + _ON_A_LINE * box.holds(self.drawn)
        )

    def take(self, number: int, offset: Spot, text: str) -> None:
        """Keeps the place of a label, and of the line that leads to it, from others."""
        self.taken.append(self.box(number, offset, text))
        self.drawn = np.concatenate([self.drawn, self._lead(number, offset)])

    def _is_taken(self, box: _Box) -> bool:
        is_inside = box.left >= 0 and box.right <= self.size[0]
        is_inside = is_inside and box.low >= 0 and box.high <= self.size[1]
        return not is_inside or any(box.meets(other) for other in self.taken)

    def _lead(self, number: int, offset: Spot) -> NDArray[np.float64]:
        """The line from a point to its label; none where it is near."""
        if math.hypot(*offset) <= LEADS:
            return np.empty((0, 2))
        x, y = (float(at) for at in self.dots[number])
        return _along((x, y), (x + 0.95 * offset[0], y + 0.95 * offset[1]))

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
        for turn in range(_TURNS):
            angle = math.tau * (turn / _TURNS + 1 / 8)  # first to the right above
            yield round(far * math.cos(angle), 1), round(far * math.sin(angle), 1)


_OFFSETS = tuple(_offsets())
