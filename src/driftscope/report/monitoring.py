"""The page of one monitored training: what it did so far, how it came about, what was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis.columns import filled, metric_column
from driftscope.analysis.study_charts import known_metrics, profile_chart
from driftscope.analysis.table import Column, Table
from driftscope.metrics import drifts, first_layer, followed, number_text
from driftscope.protocols import ACCURACIES, ability_on
from driftscope.records import Overlay
from driftscope.report.overlays import NamedOverlay, overlay_block
from driftscope.report.page import Picture, panel_pictures, write_page
from driftscope.report.sections import comparison_profiles
from driftscope.report.summary import ENTROPY_CAVEAT, Summary, retrieval_sentence, transfer_sentence
from driftscope.report.zero_shot import unmeasured_sentences, written


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
    points = pd.DataFrame(seen)
    return write_page(
        "monitor.html",
        out,
        title="What training has done so far" if not report["stopped"] else "What training did",
        summary=_summary(report),
        alerts=report["alerts"],
        unmeasured=list(unmeasured_sentences(report["unmeasured"])),
        trajectories=_trajectories(points),
        profiles=comparison_profiles(_layers(seen[-1])),
        latest_step=seen[-1]["step"],
        table=_table(points),
        overlays=overlay_block(
            [NamedOverlay(name, name, "", overlay) for name, overlay in overlays.items()]
        ),
        facts=_facts(report),
        version=report["driftscope"],
    )


def _summary(report: Mapping[str, Any]) -> Summary:
    scalars, latest = report["scalars"], report["latest"]
    sentences = _kept_sentences(report)
    if "val_accuracy_pct" in scalars:
        sentences.append(
            Markup("Validation accuracy is {}.").format(
                written("val_accuracy_pct", scalars["val_accuracy_pct"])
            )
        )
    if report["best"] is not None:
        sentences.append(_best_sentence(report))
    if report["stopped"]:
        sentences.append(Markup("<b>Training was to stop:</b> {}").format(report["stopped"]))
    return Summary(
        _where(report),
        _headline(report["monitor"]["transfer"], scalars, latest["step"]),
        sentences,
        _caveats(report),
    ).without_breaks()


def _headline(
    transfer: Sequence[Mapping[str, Any]], scalars: Mapping[str, float], step: int
) -> Markup:
    if transfer and "retention_pct" in scalars:
        return Markup("At step {} <strong>{}</strong> of the {} is left.").format(
            step,
            written("retention_pct", scalars["retention_pct"]),
            ability_on(transfer[0]["name"]),
        )
    return Markup(
        "At step {} the image embeddings have moved by <strong>{}</strong> (1 − cosine) and CKA is "
        "<strong>{}</strong>; how much zero-shot ability is left was not measured."
    ).format(
        step,
        written("embedding_drift", scalars.get("embedding_drift")),
        written("cka", scalars["cka"]),
    )


def _where(report: Mapping[str, Any]) -> Markup:
    watched, count, share = report["monitor"], len(report["history"]), report["cost_share_pct"]
    return Markup(
        "A training of {}, read {} on {} probe images ({}) without labels; that took {} s{}."
    ).format(
        watched["pretrained"],
        "once" if count == 1 else f"{count} times",
        watched["num_images"],
        watched["probe_images"],
        number_text(report["cost_seconds"], 1),
        "" if share is None else Markup(", {} % of its time").format(number_text(share, 1)),
    )


def _kept_sentences(report: Mapping[str, Any]) -> list[Markup]:
    latest = next(one for one in reversed(report["history"]) if one.get("cka") is not None)
    retrieval = latest.get("retrieval") or {}
    return [
        *(transfer_sentence(name, score) for name, score in latest["transfer"].items()),
        *(retrieval_sentence(name, score) for name, score in retrieval.items()),
    ]


def _best_sentence(report: Mapping[str, Any]) -> Markup:
    best, rule = report["best"], report["monitor"]["selection"]
    named = {"embedding_drift": "the least embedding drift", "cka": "the highest CKA"}
    return Markup(
        "The best so far is <strong>step {}</strong>: of the observations within {} points of the "
        "highest accuracy it has {} (accuracy {}, embedding drift {})."
    ).format(
        best["step"],
        number_text(rule["within_points"], 1),
        named.get(rule["by"], "the highest retention"),
        written("val_accuracy_pct", best["scalars"].get("val_accuracy_pct")),
        written("embedding_drift", best["scalars"].get("embedding_drift")),
    )


def _caveats(report: Mapping[str, Any]) -> list[Markup]:
    caveats = [ENTROPY_CAVEAT]
    if not report["monitor"]["transfer"]:
        caveats.append(
            Markup(
                "<b>Zero-shot ability was not measured.</b> CKA and embedding drift tend to track "
                "its loss, but no value of theirs means “safe” on every model: give the monitor a "
                "<code>transfer</code> set to know."
            )
        )
    caveats.append(
        Markup(
            "<b>One training.</b> What another seed or learning rate would do is not in here; a "
            "study of several runs tells."
        )
    )
    return caveats


def _trajectories(points: pd.DataFrame) -> list[Picture]:
    """A panel a metric over the steps, from the pretrained model's value at step 0 on."""
    pictures = []
    shown = [one for one in followed() if not one.is_detail and one.key not in ACCURACIES.values()]
    for metric in known_metrics(shown, points):
        chart = profile_chart("path", points, [metric], along="step")
        if len(chart.flat[0].marks[0].x) > 1:
            [[one]] = panel_pictures(chart, f"path-{metric.key}", is_interactive=False)
            pictures.append(one)
    return pictures


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


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    watched = report["monitor"]
    return {
        "pretrained": watched["pretrained"],
        "fingerprint of its encoder": watched["pretrained_fingerprint"],
        "probe images": watched["probe_images"],
        "images read": watched["num_images"],
        "fingerprint of the images": watched["images_fingerprint"],
        "vocabulary": watched["vocabulary"] or "none",
        **{
            f"transfer set {one['name']}": f"{one['num_images']} images"
            for one in watched["transfer"]
        },
    }
