"""The page of an attribution: what each group does, beside what changed at the same layers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, ends, points
from driftscope.analysis.table import Column, Table
from driftscope.metrics import METRICS
from driftscope.report.page import Picture, legend, panel_pictures, whole_picture, write_page
from driftscope.report.style import method_styles

_LOOKS = {"shapley": "Shapley value", "regained": "regained when restored", "lost": "lost alone"}


def write_where_page(told: Mapping[str, Any], out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        told: what `where.json` holds (`driftscope.rescuing.attribution`).
        out: the file, or a folder in which `report.html` is written.
    """
    return write_page(
        "where.html",
        out,
        title="Where the damage sits",
        sentences=told["sentences"],
        notes=told["notes"],
        steps=_steps(told),
        legend=legend(method_styles(list(_LOOKS.values())), "looks", "bars"),
        groups=_groups(told["groups"]),
        profiles=_profiles(told),
        table=_table("groups", "Every group", told["groups"]),
        heads=_table("heads", "Every attention head", told["heads"]) if told["heads"] else None,
        facts={
            "pretrained": told["pretrained"],
            "adapted": told["adapted"],
            "retention": f"{told['retention_pct']:.1f} %, {told['measured_on']}",
            "orders of the Shapley values": f"{told['num_pairs']} and their reverses",
        },
        version=version("driftscope"),
    )


def _steps(told: Mapping[str, Any]) -> list[str]:
    """What to do about the damage; nothing where none was done."""
    if told["loss"] <= 0:
        return []
    models = shlex.join([told["pretrained"], told["adapted"]])
    return [
        f"Without training: `driftscope rescue {models} --images IMAGES --pool IMAGES --out "
        "rescued` searches a strength of its own for every row of these weights, so that damage "
        "goes back and what the task needs stays.",
        "If you can train again: leave the groups that do most damage as they were, such as by "
        "`freeze_first` or `last_block`, or ask for a budget. Damage in a group does not say that "
        "the task can do without it: a study of both tells.",
    ]


def _groups(groups: Sequence[Mapping[str, Any]]) -> Picture:
    """Three bars a group, the input at the top, as in the table."""
    groups = groups[::-1]  # the first name of an axis stands at its foot
    names = tuple(one["name"] for one in groups)
    marks = tuple(
        Marks(
            points(one[key] for one in groups),
            names,
            kind="bars",
            name=label,
            x_ends=ends(
                (one["shapley"] for one in groups), (one["shapley_error"] for one in groups)
            )
            if key == "shapley"
            else (),
        )
        for key, label in _LOOKS.items()
    )
    axis = Axis("points of retention")
    panel = Panel(
        "groups", "damage of each group", axis, Axis("", scale="names", names=names), marks
    )
    chart = Chart("groups", ((panel,),), legend=tuple(_LOOKS.values()))
    return whole_picture(
        chart,
        "groups",
        "Bars of each group: its Shapley value with one standard error, what the adapted model "
        "regains when it is restored, what the pretrained model loses when it alone is tuned. "
        "The numbers are in the table below.",
    )


def _profiles(told: Mapping[str, Any]) -> list[Picture]:
    """The damage of each block, and its drift."""
    profiles = {"damage, points": told["damage_per_block"]}
    for key, values in told["profile"].items():
        if values:
            profiles[METRICS[key].heading] = values
    pictures = []
    for number, (title, values) in enumerate(profiles.items()):
        layers = tuple(float(layer) for layer in range(1, len(values) + 1))
        panel = Panel(
            f"profile-{number}",
            title,
            Axis("layer"),
            Axis(title),
            (Marks(layers, points(values), name="layer"),),
            words=f"{title} at each layer, from the first to the last: "
            + ", ".join(f"{value:.3g}" for value in values),
        )
        chart = Chart(f"profile-{number}", ((panel,),), legend=("layer",))
        [[picture]] = panel_pictures(chart, f"profile-{number}", is_interactive=False)
        pictures.append(picture)
    return pictures


def _table(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    frame = pd.DataFrame(list(rows))
    columns = [
        Column("name", "Group" if name == "groups" else "Head", kind="text"),
        Column("shapley", "Shapley value", "its part of the whole loss, in points of retention"),
        Column("shapley_error", "± standard error"),
        Column("regained", "Regained", "when the group alone goes back to the pretrained weights"),
        Column("lost", "Lost alone", "when the group alone is tuned"),
    ]
    shown = tuple(one for one in columns if bool(frame[one.key].notna().any()))
    return Table(name, title, "", shown, frame)
