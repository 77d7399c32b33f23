"""The page of one monitored training: what it did so far, how it came about, what was told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis.advice import kept_pct_of
from driftscope.analysis.columns import filled, metric_column
from driftscope.analysis.table import Column, Table
from driftscope.analysis.training_summaries import monitor_summary
from driftscope.analysis.zero_shot import unmeasured_sentences
from driftscope.metrics import ESTIMATED, drifts, first_layer, followed
from driftscope.protocols import ACCURACIES
from driftscope.records import Overlay
from driftscope.report.overlays import NamedOverlay, overlay_block
from driftscope.report.page import Picture, write_page
from driftscope.report.provenance import pool_facts
from driftscope.report.sections import comparison_profiles, first_picture, path_pictures


def write_monitor_page(
    report: Mapping[str, Any], overlays: Mapping[str, Overlay], out: Path
) -> Path:
    """Writes the page of a monitored training and returns its path.

    Args:
        report: what `report.json` holds (`driftscope.monitor.reporting`).
        overlays: attention maps, by what they are of, such as `latest (step 300)`.
        out: the file, or a folder in which `report.html` is written.
    """
    seen = [one for one in report["history"] if one.get("cka") is not None]
    points, layers = pd.DataFrame(seen), _layers(seen[-1])
    return write_page(
        "monitor.html",
        out,
        title="What training has changed",
        summary=monitor_summary(report),
        first=first_picture(seen[-1], layers, kept_pct_of(report["monitor"])),
        alerts=report["alerts"],
        unmeasured=list(unmeasured_sentences(report["unmeasured"])),
        trajectories=_trajectories(points),
        profiles=comparison_profiles(layers),
        latest_step=seen[-1]["step"],
        table=_table(points),
        overlays=overlay_block(
            [NamedOverlay(name, name, "", overlay) for name, overlay in overlays.items()]
        ),
        facts=_facts(report, seen[-1].get("estimate")),
        version=report["driftscope"],
    )


_FIRST = ("retention_pct", ESTIMATED, "cka")
"""The panels that stand first: what is left, and what goes with it most closely."""


def _trajectories(points: pd.DataFrame) -> list[Picture]:
    """A panel a metric over the steps, from the pretrained model's value at step 0 on."""
    shown = [one for one in followed() if not one.is_detail and one.key not in ACCURACIES.values()]
    ordered = sorted(shown, key=lambda one: [*_FIRST, one.key].index(one.key))
    return path_pictures(points, ordered, "step")


def _layers(one: Mapping[str, Any]) -> pd.DataFrame:
    num_layers = len(one["cka_per_block"])
    known = {
        metric.key: [None] * (first_layer(len(values), num_layers) - 1) + values
        for metric in drifts("layer")
        if isinstance(values := one.get(metric.layer_field), list)
    }
    return pd.DataFrame({"layer": range(1, num_layers + 1), **known})


def _table(points: pd.DataFrame) -> Table:
    columns = (
        Column("step", "Step", kind="count"),
        Column("epoch", "Epoch", kind="general"),
        *(metric_column(one.key) for one in followed()),
        Column("seconds", "Cost, s", "wall time of the observation"),
    )
    shown = filled(columns, points)
    frame = points[[one.key for one in shown]]
    return Table("observations", "Every observation", "", shown, frame)


def _facts(report: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    watched = report["monitor"]
    return {
        "pretrained": watched["pretrained"],
        "fingerprint of its encoder": watched["pretrained_fingerprint"],
        "probe images": watched["probe_images"],
        "images read": watched["num_images"],
        "fingerprint of the images": watched["images_fingerprint"],
        "vocabulary": watched["vocabulary"] or "none",
        **pool_facts(estimate),
        **{
            f"transfer set {one['name']}": f"{one['num_images']} images"
            for one in watched["transfer"]
        },
    }
