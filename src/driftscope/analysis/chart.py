"""What a figure shows, derived once: its panels, marks, axes and words, without a look.

A `Chart` is plain data. `report.drawing` draws it for files and print, and a page draws it from
its JSON. Neither derives anything but positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

from driftscope.metric import Metric
from driftscope.metrics import METRICS

MOST_NAMED = 8
"""Methods up to which a legend, or a sentence, names all."""
OTHERS = "other methods"
"""What a legend calls all that it does not name."""

Scale: TypeAlias = Literal["linear", "log", "names"]
Kind: TypeAlias = Literal["line", "dots", "bars"]
Colours: TypeAlias = Literal["series", "rates", "probes", "pair"]
Place: TypeAlias = float | str | None
"""A number, a name on a `names` axis, or None where there is no value."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what it shows, with its unit; by default the heading of its metric.
        metric: the key of the metric that it shows, if it shows one.
        scale: a log axis shows learning rates.
        ticks: where a log axis has its ticks.
        names: the places of a `names` axis, from the left or from below.
        limits: the ends, where they are fixed.
    """

    title: str = ""
    metric: str = ""
    scale: Scale = "linear"
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    @property
    def known(self) -> Metric | None:
        """The metric that it shows."""
        return METRICS.get(self.metric)

    @property
    def heading(self) -> str:
        """The title, or the metric's heading."""
        return self.title or (self.known.heading if self.known else self.metric)


@dataclass(frozen=True)
class Marks:
    """Marks of one look in a panel: a line with its points, dots, or bars.

    Attributes:
        x, y: where they stand. Horizontal bars have their lengths in `x` and names in `y`.
        kind: a line joins its points; dots and bars do not.
        name: the entry of the chart's legend that they belong to; "" is drawn muted.
        x_ends, y_ends: the low and high end of each point's interval; None where it has none.
        hover: a text a point; its first line says what the point is of. By default the renderers
            write the point's place and value.
        run_ids: the run that each point shows; none for means.
        is_single: whether they are single runs, which stand back behind the means.
        ringed: which points are emphasised.
        labels: what stands beside each point; "" is nothing.
        label_offsets: pixels from each point to its label's near edge, to the right and upwards, in
            a panel of each of `label_places.SIZES`; () where there is no label.
    """

    x: tuple[Place, ...]
    y: tuple[Place, ...]
    kind: Kind = "line"
    name: str = ""
    x_ends: tuple[tuple[float, float] | None, ...] = ()
    y_ends: tuple[tuple[float, float] | None, ...] = ()
    hover: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    is_single: bool = False
    ringed: tuple[bool, ...] = ()
    labels: tuple[str, ...] = ()
    label_offsets: tuple[tuple[tuple[float, float] | None, ...], ...] = ()


@dataclass(frozen=True)
class Heat:
    """A map of one metric over rows and columns.

    Attributes:
        metric: the key of what is shown.
        rows, columns: their names, from above and from the left; an empty row is a gap.
        values: by row and column; None where there is none.
        hover: a text a place, by row and column.
        limits: the ends of the colour scale; it is centred at 0 where they are opposite.
        groups: names over neighbouring columns, and of how many.
    """

    metric: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    hover: tuple[tuple[str, ...], ...]
    limits: tuple[float, float]
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes and what stands between them.

    Attributes:
        name: what tells it from the figure's other panels; an id is made of it.
        title: what stands above it where it is shown alone.
        x, y: the axes.
        marks: from the back to the front.
        heat: the map, in place of marks.
        level: the pretrained model's level on `y`, drawn as a dashed line.
        words: what it shows, for readers who do not see it.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    marks: tuple[Marks, ...] = ()
    heat: Heat | None = None
    level: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure: panels in rows, with one legend.

    Attributes:
        name: its file name without an ending.
        panels: rows of panels.
        legend: the names that marks have, in order.
        colours: what the names are: methods, learning rates, probes of a training, or two things
            of the chart's own.
        row_names, column_names: what stands beside the rows and above the columns, where there
            are several panels.
        shares_y: which panels share their vertical axis.
        legend_title: what the legend's names are, where they don't say it themselves.
    """

    name: str
    panels: tuple[tuple[Panel, ...], ...]
    legend: tuple[str, ...] = ()
    colours: Colours = "series"
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    shares_y: Literal["", "row", "column"] = ""
    legend_title: str = ""

    @property
    def flat(self) -> list[Panel]:
        """The panels, row by row."""
        return [panel for row in self.panels for panel in row]

    def to_dict(self) -> dict[str, Any]:
        """The chart as JSON holds it, without what has its default; numbers have twelve digits."""
        plain: dict[str, Any] = plain_json(self)
        return plain


def points(values: Iterable[Any]) -> tuple[float | None, ...]:
    """Numbers of a column as marks take them: None where one is missing or infinite."""
    return tuple(
        float(value) if value is not None and math.isfinite(value) else None for value in values
    )


def spans(low: Iterable[Any], high: Iterable[Any]) -> tuple[tuple[float, float] | None, ...]:
    """The ends of each point's interval; None where it has none."""
    both = zip(points(low), points(high), strict=True)
    return tuple(None if a is None or b is None else (a, b) for a, b in both)


def ends(values: Iterable[Any], spreads: Iterable[Any]) -> tuple[tuple[float, float] | None, ...]:
    """Each value ± its spread; None where either is missing."""
    pairs = zip(points(values), points(spreads), strict=True)
    return tuple(
        None if value is None or spread is None else (value - spread, value + spread)
        for value, spread in pairs
    )


def limits_around(values: Iterable[float]) -> tuple[float, float]:
    """The ends of an axis in percent, with room for the labels around the points."""
    known = list(values)
    room = max(0.15 * (max(known) - min(known)), 1.0)
    return float(min(known) - room), float(max(known) + room)


def plain_json(value: Any) -> Any:
    """Chart data as JSON takes it; a field that has its default is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: plain_json(getattr(value, one.name))
            for one in fields(value)
            if one.default is MISSING or getattr(value, one.name) != one.default
        }
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, tuple | list) else value
