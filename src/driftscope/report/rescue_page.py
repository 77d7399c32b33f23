"""The page of a rescue: both models' frontier, the chosen point, and its strengths."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, points
from driftscope.analysis.table import Column, Table
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.report.page import Picture, legend, panel_pictures, whole_picture, write_page
from driftscope.report.style import method_styles

_CHOSEN = "chosen"


def write_rescue_page(told: Mapping[str, Any], out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        told: what `rescue.json` holds (`driftscope.rescuing`).
        out: the file, or a folder in which `report.html` is written.
    """
    ways = list(dict.fromkeys(one["way"] for one in told["points"]))
    styles = method_styles([*ways, _CHOSEN])
    return write_page(
        "rescue.html",
        out,
        title=f"What can be rescued at {told['keep_pct']:g} % retention",
        sentences=told["sentences"],
        notes=told["notes"],
        frontier=_frontier(told),
        legend=legend(styles, "ways"),
        reference=_reference(told),
        strengths=_strengths(told),
        table=_table(told),
        facts=_facts(told),
        version=version("driftscope"),
    )


def _frontier(told: Mapping[str, Any]) -> list[Picture]:
    """A panel a measure of what was kept of the adapted model."""
    if told["chosen"]["accuracy"] is None:
        panels = [_panel(told, "likeness", "likeness to the adapted model, cosine")]
    else:
        panels = [_panel(told, "refitted", "accuracy, classifier fitted anew, %")]
        if told["chosen"]["accuracy"]["kept_head"] is not None:
            panels.append(_panel(told, "kept_head", "accuracy, classifier as it was, %"))
    names = tuple(dict.fromkeys(one["way"] for one in told["points"]))
    chart = Chart("frontier", (tuple(panels),), legend=(*names, _CHOSEN))
    return panel_pictures(chart, "frontier", is_interactive=False)[0]


def _panel(told: Mapping[str, Any], measure: str, title: str) -> Panel:
    marks = [
        Marks(
            points(_retention(one) for one in along),
            points(_kept(one, measure) for one in along),
            name=way,
            hover=tuple(_hover(one, measure, title) for one in along),
        )
        for way, along in _by_way(told).items()
    ]
    chosen = told["chosen"]
    heights = [value for one in marks for value in one.y if isinstance(value, float)]
    budget = Marks((told["keep_pct"],) * 2, points((min(heights), max(heights))))
    ring = Marks(
        points((_retention(chosen),)),
        points((_kept(chosen, measure),)),
        kind="dots",
        name=_CHOSEN,
        ringed=(True,),
        hover=(_hover(chosen, measure, title),),
    )
    return Panel(
        measure,
        title,
        Axis(METRICS[ESTIMATED].heading, metric=ESTIMATED),
        Axis(title),
        (budget, *marks, ring),
        level=_kept(told["pretrained"], "refitted" if measure == "kept_head" else measure),
        words=f"{title} against estimated retention, a line a way between both models. The dashed "
        f"line is {_reference(told)}. The numbers are in the table below.",
    )


def _by_way(told: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in sorted(told["points"], key=lambda one: float(one["scale"])):
        found.setdefault(one["way"], []).append(one)
    return found


def _reference(told: Mapping[str, Any]) -> str:
    has_labels = told["chosen"]["accuracy"] is not None
    return "a linear probe on the untouched model" if has_labels else "the untouched model"


def _retention(point: Mapping[str, Any]) -> float | None:
    value: float | None = point["estimate"]["retention_pct"]
    return value


def _kept(point: Mapping[str, Any], measure: str) -> float | None:
    if measure == "likeness":
        likeness: float | None = point["likeness"]
        return likeness
    found = (point["accuracy"] or {}).get(measure)
    return None if found is None else float(found["accuracy_pct"])


def _hover(point: Mapping[str, Any], measure: str, title: str) -> str:
    kept, shown = _kept(point, measure), METRICS[ESTIMATED]
    value = "–" if kept is None else f"{kept:.3g}"
    retention = shown.text(point["estimate"]["retention_pct"])
    return f"{point['way']}, scale {point['scale']:.2f}\n{title}: {value}\nretention {retention} %"


def _strengths(told: Mapping[str, Any]) -> Picture:
    """The chosen strength of every group, the input below."""
    strengths = told["chosen"]["strengths"]
    groups = tuple(strengths)
    panel = Panel(
        "strengths",
        "strength of each group",
        Axis("strength, 0 pretrained, 1 adapted", limits=(0.0, 1.0)),
        Axis("", scale="names", names=groups),
        (Marks(points(strengths.values()), groups, kind="bars", name=_CHOSEN),),
        words="",
    )
    chart = Chart("strengths", ((panel,),), legend=(_CHOSEN,))
    words = "Strength of each group of weights, from the input upwards: " + ", ".join(
        f"{group} {strength:.2f}" for group, strength in strengths.items()
    )
    return whole_picture(chart, "strengths", words)


def _table(told: Mapping[str, Any]) -> Table:
    rows = [
        {
            "way": way,
            "scale": one["scale"],
            "retention": _retention(one),
            "low": one["estimate"]["low_90_pct"],
            "high": one["estimate"]["high_90_pct"],
            "likeness": one["likeness"],
            "refitted": _kept(one, "refitted"),
            "kept_head": _kept(one, "kept_head"),
        }
        for way, along in _by_way(told).items()
        for one in along
    ]
    columns = [
        Column("way", "Way", kind="text"),
        Column("scale", "Scale", decimals=2),
        Column("retention", METRICS[ESTIMATED].heading),
        Column("low", "90 %, low"),
        Column("high", "90 %, high"),
        Column("likeness", "Likeness", "mean cosine to the adapted embeddings", decimals=3),
        Column("refitted", "Accuracy, fitted anew, %"),
        Column("kept_head", "Accuracy, as it was, %"),
    ]
    frame = pd.DataFrame(rows)
    shown = tuple(one for one in columns if bool(frame[one.key].notna().any()))
    return Table("frontier", "Every point that was looked at", "", shown, frame)


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    chosen = told["chosen"]["estimate"]
    facts = {
        **told["models"],
        "budget": f"{told['keep_pct']:g} %",
        "pool": f"{chosen['pool']}, {chosen['num_images']} images that judge",
        "classes": chosen["classes"],
        "written as": told["written"],
    }
    for name, one in told["transfer"].items():
        facts[f"measured on {name}"] = (
            f"{one['rescued']['accuracy_pct']:.1f} %, pretrained "
            f"{one['pretrained']['accuracy_pct']:.1f} % ({one['rescued']['num_images']} images)"
        )
    return facts
