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
from driftscope.records import STRENGTHS_FILE
from driftscope.report.frontier import (
    CHOSEN,
    by_way,
    frontier,
    kept_of,
    reference,
    retention_of,
)
from driftscope.report.page import Picture, legend, whole_picture, write_page
from driftscope.report.style import method_styles

_ENDS = {
    "search": "That of `search` ends at 1½ times the strengths that were found.",
    "lines": "That of `lines` ends at strengths that rise from 0 at the input to 1 at the output.",
    "wise": "That of `wise` ends at the adapted model.",
    "layers": "That of `layers` ends at the adapted model.",
}
"""Where each way's line ends."""


def write_rescue_page(told: Mapping[str, Any], out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        told: what `rescue.json` holds (`driftscope.rescuing`).
        out: the file, or a folder in which `report.html` is written.
    """
    ways = list(dict.fromkeys(one["way"] for one in told["points"]))
    styles = method_styles([*ways, CHOSEN])
    return write_page(
        "rescue.html",
        out,
        title=f"The best blend that keeps {told['keep_pct']:g} % of the zero-shot ability",
        sentences=told["sentences"],
        steps=told["steps"],
        notes=told["notes"],
        frontier=frontier(told["points"], told["chosen"], told["pretrained"], told["keep_pct"]),
        legend=legend(styles, "ways"),
        reference=reference(told["chosen"]),
        fitted=_fitted(told),
        ends=" ".join(_ENDS[way] for way in ways if way in _ENDS),
        strengths=_strengths(told),
        one_strength=_one_strength(told),
        by_row=STRENGTHS_FILE if told["chosen"]["is_by_row"] else None,
        table=_table(told),
        facts=_facts(told),
        version=version("driftscope"),
    )


def _one_strength(told: Mapping[str, Any]) -> float | None:
    """The strength that all groups have; None where they differ."""
    strengths = set(told["chosen"]["strengths"].values())
    is_one = len(strengths) == 1 and not told["chosen"]["is_by_row"]
    return strengths.pop() if is_one else None


def _strengths(told: Mapping[str, Any]) -> Picture | None:
    """The chosen strength of every group, the input at the top; None where all are one.

    Where rows have their own, it is their mean.
    """
    if _one_strength(told) is not None:
        return None
    what = "mean strength of the rows" if told["chosen"]["is_by_row"] else "strength"
    strengths = told["chosen"]["strengths"]
    groups = tuple(reversed(strengths))  # the first name of an axis stands at its foot
    panel = Panel(
        "strengths",
        f"{what} of each group",
        Axis(f"{what}\n(0 pretrained, 1 adapted)", limits=(0.0, max(1.0, *strengths.values()))),
        Axis("", scale="names", names=groups),
        (Marks(points(strengths[one] for one in groups), groups, "bars", CHOSEN),),
        words="",
    )
    chart = Chart("strengths", ((panel,),), legend=(CHOSEN,))
    words = f"{what.capitalize()} of each group of weights, from the input on: " + ", ".join(
        f"{group} {strength:.2f}" for group, strength in strengths.items()
    )
    return whole_picture(chart, "strengths", words)


def _table(told: Mapping[str, Any]) -> Table:
    rows = [
        {
            "way": way,
            "scale": one["scale"],
            "chosen": "chosen" if _is_chosen(one, told) else "",
            "retention": retention_of(one),
            "low": one["estimate"]["low_90_pct"],
            "high": one["estimate"]["high_90_pct"],
            "likeness": one["likeness"],
            "choosing": (one["accuracy"] or {}).get("choosing_pct"),
            "refitted": kept_of(one, "refitted"),
            "kept_head": kept_of(one, "kept_head"),
        }
        for way, along in by_way(told["points"]).items()
        for one in along
    ]
    what = (told["chosen"]["accuracy"] or {}).get("measures", "accuracy").capitalize()
    columns = [
        Column("way", "Way", kind="text"),
        Column("scale", "Scale", decimals=2),
        Column("chosen", "Chosen", kind="text"),
        Column("retention", METRICS[ESTIMATED].heading),
        Column("low", "90 %, low"),
        Column("high", "90 %, high"),
        Column("likeness", "Likeness", "mean cosine to the adapted embeddings", decimals=3),
        Column(
            "choosing",
            f"{what} that chose, %",
            "by a classifier fitted anew, on one half of the test images; the highest that keeps "
            "the budget is chosen, and of equal ones the one of the most retention",
        ),
        Column("refitted", f"{what}, new classifier, %", "by the same, on the other half"),
        Column(
            "kept_head", f"{what}, trained classifier, %", "by the one beside the adapted model"
        ),
    ]
    frame = pd.DataFrame(rows)
    shown = tuple(one for one in columns if bool(frame[one.key].notna().any()))
    return Table("frontier", "Every point that was looked at", _counts(told), shown, frame)


def _is_chosen(one: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    chosen = told["chosen"]
    return (one["way"], one["scale"]) == (chosen["way"], chosen["scale"])


def _counts(told: Mapping[str, Any]) -> str:
    """On how many images the table's numbers were found."""
    chosen = told["chosen"]
    said = f"Retention is estimated from {chosen['estimate']['num_images']} images of the pool."
    if chosen["accuracy"] is None:
        return said
    num_images = chosen["accuracy"]["refitted"]["num_images"]
    what = chosen["accuracy"]["measures"]
    return f"{said} Each {what} is of {num_images} test images. {_fitted(told)}"


def _fitted(told: Mapping[str, Any]) -> str:
    """To how many images the classifiers of chart and table are fitted; "" without labels."""
    if told["final"] is None:
        return ""
    few, most = told["num_fitted"], told["final"]["num_fitted"]
    said = f"Each classifier here is fitted to {few:,} images"
    if few == most:
        return f"{said}, as in the sentences of this page."
    return f"{said}; the sentences of this page use {most:,}, so their numbers differ."


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    chosen = told["chosen"]["estimate"]
    facts = {
        **told["models"],
        "budget": f"{told['keep_pct']:g} %",
        "pool": f"{chosen['pool']}: {chosen['num_images']} of {told['num_pool']} images judge",
        "classes": chosen["classes"],
        "written as": told["written"],
    }
    for name, one in told["transfer"].items():
        facts[f"measured on {name}"] = (
            f"{one['rescued']['accuracy_pct']:.1f} %, pretrained "
            f"{one['pretrained']['accuracy_pct']:.1f} % ({one['rescued']['num_images']} images)"
        )
    return facts
