"""The page of one monitored training: what it did so far, how it came about, what was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis.table import Column, Table
from driftscope.metrics import number_text
from driftscope.records import Overlay
from driftscope.report import figures
from driftscope.report.figures import Measure
from driftscope.report.overlays import NamedOverlay, overlay_block
from driftscope.report.page import Picture, picture, write_page
from driftscope.report.sections import CKA, ENTROPY, comparison_profiles
from driftscope.report.summary import ENTROPY_CAVEAT, Summary

_FOLLOWED = (
    Measure("val_accuracy_pct", "Validation accuracy", floor=0, ceiling=100),
    Measure("retention_pct", "Retention", reference=100, floor=0),
    Measure("embedding_drift", "Embedding drift", unit="", reference=0, decimals=3),
    CKA,
    ENTROPY,
    Measure("weight_drift", "Weight drift", unit="", reference=0, decimals=4),
)
_COLUMNS = (
    Column("step", "Step", kind="count"),
    Column("epoch", "Epoch", kind="general"),
    Column("val_accuracy_pct", "Accuracy, %", "validation accuracy on the target task"),
    Column("zero_shot_pct", "Zero-shot, %", "on the first transfer set"),
    Column("retention_pct", "Retention, %", "100 × zero-shot accuracy now / before"),
    Column("embedding_drift", "Embedding drift", "1 − mean cosine, 0 is unchanged", decimals=3),
    Column("cka", "CKA", "mean over blocks, 1 is unchanged", decimals=3),
    Column("cka_debiased", "CKA, debiased", decimals=3),
    Column("weight_drift", "Weight drift", "‖ΔW‖/‖W₀‖ of the image encoder", decimals=4),
    Column("text_kl_nats", "Text KL, nats", decimals=3),
    Column("delta_entropy_pct", "Δ entropy, %", "change of mean attention entropy", signed=True),
    Column("delta_late_entropy_pct", "Δ late entropy, %", "last third of layers", signed=True),
    Column("seconds", "Cost, s", "wall time of the observation"),
)
_PER_LAYER = {
    "delta_entropy_pct": "delta_entropy_pct_per_layer",
    "cka": "cka_per_block",
    "weight_drift": "weight_drift_per_layer",
}


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
            Markup("Validation accuracy is {} %.").format(
                number_text(scalars["val_accuracy_pct"], 1)
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
        return Markup(
            "At step {} <strong>{} %</strong> of the zero-shot ability on {} is left."
        ).format(step, number_text(scalars["retention_pct"], 0), transfer[0]["name"])
    return Markup(
        "At step {} the image embeddings have moved by <strong>{}</strong> (1 − cosine) and CKA is "
        "<strong>{}</strong>; how much zero-shot ability is left was not measured."
    ).format(step, number_text(scalars.get("embedding_drift"), 3), number_text(scalars["cka"], 2))


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
    before = {one["name"]: one["pretrained_zero_shot_pct"] for one in report["monitor"]["transfer"]}
    return [
        Markup("Zero-shot accuracy on {}: {} % before, {} % now ({} images, {}–{} %).").format(
            name,
            number_text(before.get(name), 1),
            number_text(score["accuracy_pct"], 1),
            score["num_images"],
            number_text(score["wilson_low_pct"], 1),
            number_text(score["wilson_high_pct"], 1),
        )
        for name, score in latest["transfer"].items()
    ]


def _best_sentence(report: Mapping[str, Any]) -> Markup:
    best, rule = report["best"], report["monitor"]["selection"]
    named = {"embedding_drift": "the least embedding drift", "cka": "the highest CKA"}
    return Markup(
        "The best so far is <strong>step {}</strong>: of the observations within {} points of the "
        "highest accuracy it has {} (accuracy {} %, embedding drift {})."
    ).format(
        best["step"],
        number_text(rule["within_points"], 1),
        named.get(rule["by"], "the highest retention"),
        number_text(best["scalars"].get("val_accuracy_pct"), 1),
        number_text(best["scalars"].get("embedding_drift"), 3),
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
    """A panel a measure over the steps, from the pretrained model's value at step 0 on."""
    panels = []
    for measure in _FOLLOWED:
        if measure.key not in points:
            continue
        known = points.dropna(subset=[measure.key])[["step", measure.key]]
        if measure.reference is not None and (known["step"] > 0).all():
            start = pd.DataFrame({"step": [0], measure.key: [measure.reference]})
            known = pd.concat([start, known], ignore_index=True)
        if len(known) < 2:
            continue
        values = ", ".join(
            f"{number_text(value, measure.decimals, signed=measure.signed)} at step {step}"
            for step, value in zip(known["step"], known[measure.key], strict=True)
        )
        panels.append(
            picture(
                figures.layer_profile(known, [measure], along="step"),
                f"path-{measure.key}",
                f"{measure.heading} over the steps: {values}.",
            )
        )
    return panels


def _layers(one: Mapping[str, Any]) -> pd.DataFrame:
    known = {
        name: one[source]
        for name, source in _PER_LAYER.items()
        if isinstance(one.get(source), list)
    }
    return pd.DataFrame({"layer": range(1, len(one["cka_per_block"]) + 1), **known})


def _table(points: pd.DataFrame) -> Table:
    shown = tuple(one for one in _COLUMNS if one.key in points and points[one.key].notna().any())
    return Table(
        "observations",
        "Every observation",
        "",
        shown,
        points[[one.key for one in shown]],
    )


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
