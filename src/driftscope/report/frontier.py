"""What models between two keep of both: accuracy, or likeness, against estimated retention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from driftscope.analysis.chart import Axis, Chart, Kind, Marks, Panel, points
from driftscope.analysis.label_places import Ends, label_offsets
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.report.page import Picture, panel_pictures

CHOSEN = "chosen"

Interval = tuple[float, float]
Model = Mapping[str, Any]
"""A judged model, as JSON: its `way`, `estimate`, `accuracy`; of a rescue `scale`, `likeness`; of a
merge its `name`."""


def frontier(
    models: Sequence[Model],
    chosen: Model,
    pretrained: Model,
    keep_pct: float | None = None,
    kind: Kind = "line",
    called: str = CHOSEN,
) -> list[Picture]:
    """A panel a measure of what was kept of the adapted model.

    Args:
        models: all that were judged; those of a way belong together.
        chosen: the one that came out, which is ringed.
        pretrained: whose height is the dashed line.
        keep_pct: the budget; None for none.
        kind: whether a line joins the models of a way.
        called: what the legend calls the chosen one.
    """
    measures = {"likeness": "likeness to the adapted model, cosine"}
    if chosen["accuracy"] is not None:
        what = chosen["accuracy"]["measures"]
        measures = {"refitted": f"{what}, new classifier, %"}
        if chosen["accuracy"]["kept_head"] is not None:
            measures["kept_head"] = f"{what}, trained classifier, %"
    panels = []
    for measure, title in measures.items():
        marks = [_marks(way, along, measure, title, kind) for way, along in by_way(models).items()]
        heights = [value for one in marks for value in one.y if isinstance(value, float)]
        ring = _marks(called, [chosen], measure, title, "dots", ringed=(True,))
        heights += _reach(ring.y_ends)
        ends = points((min(heights), max(heights)))
        budget = [] if keep_pct is None else [Marks((keep_pct,) * 2, ends)]
        level = kept_of(pretrained, "refitted" if measure == "kept_head" else measure)
        x, y = Axis(METRICS[ESTIMATED].heading, metric=ESTIMATED), Axis(title)
        if kind == "dots":
            named = [*marks, ring]
            x = replace(x, limits=_limits(end for one in named for end in _reach(one.x_ends)))
            tops = [end for one in named for end in _reach(one.y_ends)]
            y = replace(y, limits=_limits([level, *tops]))
            *marks, ring = _labelled(
                [*marks, ring], [*by_way(models).values(), [chosen]], x, y, level
            )
        panels.append(
            Panel(
                measure,
                title,
                x,
                y,
                (*budget, *marks, ring),
                level=level,
                words=f"{title} against estimated retention, {_looks(kind)}. The dashed "
                f"line is {reference(chosen)}. The numbers are in the table below.",
            )
        )
    chart = Chart("frontier", (tuple(panels),), legend=(*by_way(models), called))
    return panel_pictures(chart, "frontier", is_interactive=False)[0]


def _looks(kind: Kind) -> str:
    return "a line a way between both models" if kind == "line" else "a point a model"


def _reach(ends: Sequence[Interval | None]) -> list[float]:
    """Both ends of every interval."""
    return [end for interval in ends if interval for end in interval]


def _limits(values: Iterable[float | None]) -> tuple[float, float]:
    """The ends of an axis, with room for the names of the points."""
    known = [value for value in values if value is not None]
    room = max(0.15 * (max(known) - min(known)), 1.0)
    return min(known) - room, max(known) + room


def _labelled(
    marks: Sequence[Marks],
    models: Sequence[Sequence[Model]],
    x: Axis,
    y: Axis,
    level: float | None,
) -> list[Marks]:
    """The marks with the name of each model beside its point."""
    places = [at for one in marks for at in zip(one.x, one.y, strict=True)]
    names = [short_name(one["name"]) for group in models for one in group]
    known = [(float(a), float(b)) for a, b in places if a is not None and b is not None]
    if len(known) < len(places) or x.limits is None or y.limits is None:
        return list(marks)
    dashed = [] if level is None else [((x.limits[0], level), (x.limits[1], level))]
    across = [end for one in marks for end in one.x_ends]
    upright = [end for one in marks for end in one.y_ends]
    bars = [
        ((end[0], at[1]), (end[1], at[1])) for at, end in zip(known, across, strict=True) if end
    ]
    bars += [
        ((at[0], end[0]), (at[0], end[1])) for at, end in zip(known, upright, strict=True) if end
    ]
    lines = [*dashed, *bars]
    offsets = label_offsets(known, names, Ends(*x.limits), Ends(*y.limits), lines=lines)
    labelled, at = [], 0
    for one in marks:
        mine = slice(at, at := at + len(one.x))
        labelled.append(replace(one, labels=tuple(names[mine]), label_offsets=tuple(offsets[mine])))
    return labelled


def short_name(model: str) -> str:
    """The part of a model's name or folder that tells it from others, in at most 30 letters."""
    parts = [part for part in model.split("/") if part not in ("", "adapted")] or [model]
    return parts[-1] if len(parts[-1]) <= _LONGEST else f"{parts[-1][: _LONGEST - 1]}…"


_LONGEST = 30


def _marks(
    name: str,
    models: Sequence[Model],
    measure: str,
    title: str,
    kind: Kind,
    ringed: tuple[bool, ...] = (),
) -> Marks:
    has_intervals = kind == "dots"
    return Marks(
        points(retention_of(one) for one in models),
        points(kept_of(one, measure) for one in models),
        kind=kind,
        name=name,
        x_ends=tuple(map(_retention_ends, models)) if has_intervals else (),
        y_ends=tuple(_kept_ends(one, measure) for one in models) if has_intervals else (),
        ringed=ringed,
        hover=tuple(_hover(one, measure, title) for one in models),
    )


def by_way(models: Sequence[Model]) -> dict[str, list[Model]]:
    """The models of each way, from the pretrained one on."""
    found: dict[str, list[Model]] = {}
    for one in sorted(models, key=lambda one: float(one.get("scale", 0))):
        found.setdefault(one["way"], []).append(one)
    return found


def reference(chosen: Model) -> str:
    """What the dashed line is, in words."""
    has_labels = chosen["accuracy"] is not None
    return "a linear probe on the untouched model" if has_labels else "the untouched model"


def retention_of(model: Model) -> float | None:
    """Its estimated retention, in percent."""
    value: float | None = model["estimate"]["retention_pct"]
    return value


def kept_of(model: Model, measure: str) -> float | None:
    """Its likeness, or its accuracy by a classifier fitted anew or by the old one, in percent."""
    if measure == "likeness":
        likeness: float | None = model["likeness"]
        return likeness
    found = (model["accuracy"] or {}).get(measure)
    return None if found is None else float(found["accuracy_pct"])


def _retention_ends(model: Model) -> Interval | None:
    """The 90 % interval of its retention."""
    low, high = (model["estimate"].get(end) for end in ("low_90_pct", "high_90_pct"))
    return None if low is None or high is None else (float(low), float(high))


def _kept_ends(model: Model, measure: str) -> Interval | None:
    """The 95 % interval of an accuracy; None of a likeness."""
    found = None if measure == "likeness" else (model["accuracy"] or {}).get(measure)
    return found and (float(found["wilson_low_pct"]), float(found["wilson_high_pct"]))


def _hover(model: Model, measure: str, title: str) -> str:
    kept, shown = kept_of(model, measure), METRICS[ESTIMATED]
    value = "–" if kept is None else f"{kept:.3g}"
    retention = shown.text(model["estimate"]["retention_pct"])
    called = model.get("name") or f"{model['way']}, scale {model['scale']:.2f}"
    return f"{called}\n{title}: {value}\nretention {retention} %"
