"""Self-contained pages: one HTML file with its styles, script, figures and data inside.

No page asks the network for anything (a content security policy forbids it). What comes from
data is escaped: jinja2 escapes text, `script_json` makes JSON safe inside `<script>`.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from driftscope.errors import RecordError
from driftscope.records import Overlay, RunRecord, load_overlay, write_whole
from driftscope.report import figures, tables
from driftscope.report.figures import Measure
from driftscope.report.overlays import NamedOverlay, overlay_payload
from driftscope.report.provenance import shared_and_varying
from driftscope.report.style import (
    SeriesStyle,
    look,
    method_styles,
    number_text,
    rate_text,
    themed_svg,
)
from driftscope.report.summary import Summary, comparison_summary, study_summary


@dataclass(frozen=True)
class Picture:
    """A figure on a page: its SVG, what it shows in words, and the numbers behind it."""

    svg: Markup
    alt: str


@dataclass(frozen=True)
class LegendEntry:
    """A series' name and a drawn stretch of its line."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class Section:
    """All that a page shows of one setting (dataset, model, protocol, transfer set)."""

    anchor: str
    heading: str
    summary: Summary
    legend: list[LegendEntry]
    panels: list[Picture]
    heatmaps: list[Picture]
    table: tables.Table
    layers: tables.Table


def write_study_report(
    records: Sequence[RunRecord], out: Path, *, title: str, command: str
) -> Path:
    """Writes a study's report as one HTML file and returns its path.

    Args:
        records: finished runs; several datasets, models or protocols get a section each.
        out: the file, or a folder in which `report.html` is written.
        title: the page's title.
        command: the command line that made the runs, shown under provenance.

    Raises:
        RecordError: there are no runs to report.
    """
    if not records:
        raise RecordError("there is nothing to report: the study has no finished run yet")
    runs = tables.report_runs(records)
    styles = method_styles(tables.series_order(tables.with_series(runs)["series"]))
    settings = tables.split_settings(runs)
    sections = [
        _section(number, setting, group, records, styles)
        for number, (setting, group) in enumerate(settings, start=1)
    ]
    overlays = _study_overlays(records, runs)
    page = (
        _environment()
        .get_template("study.html")
        .render(
            title=title,
            sections=sections,
            runs=tables.runs_list(runs),
            overlays=_overlay_block(overlays),
            spec_facts=shared_and_varying([record.result["spec"] for record in records]),
            environment_facts=shared_and_varying(
                [record.result["environment"] for record in records]
            ),
            command=command,
            written=_today(),
            version=_version(records),
        )
    )
    return _write_page(page, out)


def write_compare_report(comparison: Mapping[str, Any], overlay: Overlay | None, out: Path) -> Path:
    """Writes the report of two compared models as one HTML file and returns its path.

    Args:
        comparison: `Comparison.to_dict()`.
        overlay: attention maps of some of the images, or None.
        out: the file, or a folder in which `report.html` is written.
    """
    layers = tables.comparison_layers(comparison)
    heads = pd.DataFrame(
        tables.head_entropy_changes(
            comparison["reading_pretrained"]["entropy"], comparison["reading_adapted"]["entropy"]
        )
    )
    overlays = [NamedOverlay("adapted", "adapted", "", overlay)] if overlay is not None else []
    reading = comparison["reading_pretrained"]
    facts = {
        "pretrained": comparison["pretrained"],
        "adapted": comparison["adapted"],
        "images": comparison["images"],
        "images read": comparison["num_images"],
        "images skipped": len(comparison["skipped_images"]),
        "fingerprint of the images": reading["images_fingerprint"],
        "patches": reading["num_patches"],
    }
    page = (
        _environment()
        .get_template("compare.html")
        .render(
            title="What fine-tuning changed",
            summary=comparison_summary(comparison),
            profiles=_profiles(layers),
            heads=_picture(
                figures.head_heatmap(heads),
                "heads",
                "Heatmap of the percent change of attention entropy, layer by head. "
                "The numbers are in the table below it.",
            ),
            heads_table=tables.heads_table(heads),
            table=tables.comparison_table(layers),
            overlays=_overlay_block(overlays),
            facts=facts,
            written=_today(),
            version=_installed_version(),
        )
    )
    return _write_page(page, out)


# ---------------------------------------------------------------- sections


def _section(
    number: int,
    setting: Mapping[str, str],
    runs: pd.DataFrame,
    records: Sequence[RunRecord],
    styles: Mapping[str, SeriesStyle],
) -> Section:
    cells = tables.cells_frame(runs)
    series = list(dict.fromkeys(cells["series"]))
    own_styles = {name: styles.get(name, style) for name, style in method_styles(series).items()}
    chosen = set(runs["run_id"])
    layer_cells = tables.study_layers([r for r in records if r.id in chosen], runs)
    return Section(
        anchor=f"setting-{number}",
        heading=f"{setting['dataset']}, {setting['model']}",
        summary=study_summary(cells, runs, setting),
        legend=_legend(own_styles, f"s{number}"),
        panels=_rate_panels(cells, runs, setting, own_styles, f"s{number}"),
        heatmaps=_heatmaps(layer_cells, series, f"s{number}"),
        table=tables.study_table(cells, setting),
        layers=tables.layers_list(layer_cells, setting),
    )


def _rate_panels(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    setting: Mapping[str, str],
    styles: Mapping[str, SeriesStyle],
    prefix: str,
) -> list[Picture]:
    with_series = tables.with_series(runs)
    with_series = with_series[tables.is_done(with_series)]
    return [
        _picture(
            figures.learning_rate_panels(
                cells, with_series, [measure], legend=False, styles=styles
            ),
            f"{prefix}-rate-{measure.key}",
            _rate_panel_words(cells, measure),
        )
        for measure in study_measures(setting)
        if measure.key in cells and cells[measure.key].notna().any()
    ]


def study_measures(setting: Mapping[str, str]) -> list[Measure]:
    """The panels against the learning rate: accuracy, entropy drift, and what was kept."""
    kept = (
        Measure("retention_pct", f"Retention on {setting['transfer']}", reference=100, floor=0)
        if setting.get("transfer")
        else Measure("cka", "CKA with the pretrained model", unit="", reference=1, decimals=3)
    )
    return [
        Measure("test_accuracy_pct", f"Accuracy on {setting['dataset']}", floor=0, ceiling=100),
        Measure("delta_entropy_pct", "Δ attention entropy", reference=0, signed=True),
        kept,
    ]


def _rate_panel_words(cells: pd.DataFrame, measure: Measure) -> str:
    """The panel in words: each series' means from the lowest to the highest rate."""
    parts = []
    for series, mine in cells.dropna(subset=[measure.key]).groupby("series", sort=False):
        values = ", ".join(
            f"{number_text(row[measure.key], measure.decimals, signed=measure.signed)} "
            f"at {rate_text(row['learning_rate'])}"
            for row in mine.sort_values("learning_rate").to_dict("records")
        )
        parts.append(f"{series}: {values}")
    return f"{measure.title} ({measure.unit}) against the learning rate. {'; '.join(parts)}."


def _heatmaps(layer_cells: pd.DataFrame, series: Sequence[str], prefix: str) -> list[Picture]:
    if layer_cells.empty:
        return []
    limit = figures.symmetric_limit(layer_cells["delta_entropy_pct"])
    return [
        _picture(
            figures.layer_heatmap(layer_cells, [name], limit=limit),
            f"{prefix}-layers-{number}",
            f"Heatmap for {name}: percent change of attention entropy, learning rate by layer. "
            "The numbers are in the table of layers below.",
        )
        for number, name in enumerate(series)
        if (layer_cells["series"] == name).any()
    ]


def _profiles(layers: pd.DataFrame) -> list[Picture]:
    measures = [
        Measure("delta_entropy_pct", "Δ attention entropy", reference=0, signed=True),
        Measure("cka", "CKA with the pretrained model", unit="", reference=1, decimals=3),
    ]
    return [
        _picture(
            figures.layer_profile(layers, [measure]),
            f"profile-{measure.key}",
            f"{measure.title} at each layer. The numbers are in the table below.",
        )
        for measure in measures
        if measure.key in layers and layers[measure.key].notna().any()
    ]


def _legend(styles: Mapping[str, SeriesStyle], prefix: str) -> list[LegendEntry]:
    return [
        LegendEntry(
            name, Markup(themed_svg(figures.series_swatch(style), f"{prefix}-swatch-{number}"))
        )
        for number, (name, style) in enumerate(styles.items())
    ]


def _picture(figure: Figure, name: str, alt: str) -> Picture:
    # matplotlib escaped the texts within; the name is ours
    return Picture(Markup(themed_svg(figure, name)), alt)


# ---------------------------------------------------------------- overlays


def _study_overlays(records: Sequence[RunRecord], runs: pd.DataFrame) -> list[NamedOverlay]:
    """One run a cell that stored its maps, the lowest retention first."""
    by_id = {record.id: record for record in records}
    with_series = tables.with_series(runs)
    ordered = with_series.sort_values(["retention_pct", "seed"], na_position="last")
    named, seen = [], set()
    for row in ordered.to_dict("records"):
        cell = (*(row[key] for key in tables.SETTING_KEYS), row["series"], row["learning_rate"])
        if cell in seen:
            continue
        overlay = load_overlay(by_id[row["run_id"]].folder)
        if overlay is None:
            continue
        seen.add(cell)
        rate = rate_text(row["learning_rate"])
        kept = number_text(row["retention_pct"], 0)
        where = f"{row['dataset']}: " if runs["dataset"].nunique() > 1 else ""
        label = f"{where}{row['series']}, rate {rate}, seed {row['seed']} (retention {kept} %)"
        setting = " ".join(str(row[key]) for key in tables.SETTING_KEYS)
        column = f"{row['series']}, {rate}"
        named.append(NamedOverlay(label, column, f"{setting} {rate}", overlay))
    return named


def _overlay_block(named: Sequence[NamedOverlay]) -> dict[str, Any] | None:
    """What the template needs to show overlays: the viewer's data and a picture without script."""
    if not named:
        return None
    payload = overlay_payload(named)
    shape = next(iter(payload["maps"].values()))["shape"]
    picture = figures.attention_figure(named[0].overlay, adapted_label="adapted")
    return {
        "json": script_json(payload),
        "num_layers": shape[1],
        "num_heads": shape[2],
        "runs": payload["runs"],
        "num_left_out": payload["num_left_out"],
        "picture": _png_uri(picture),
        "picture_of": named[0].label,
    }


def _png_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---------------------------------------------------------------- the page


def script_json(value: object) -> Markup:
    """JSON that can stand inside `<script>`: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("driftscope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters["script_json"] = script_json
    return environment


def _asset(name: str) -> Markup:
    """A stylesheet or script of ours, to stand in the page as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _write_page(page: str, out: Path) -> Path:
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())
    return path


def _today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime("%-d %B %Y, %H:%M UTC")


def _version(records: Iterable[RunRecord]) -> str:
    environments = [record.result["environment"] for record in records]
    versions = {str(e.get("versions", {}).get("driftscope", "")) for e in environments} - {""}
    return ", ".join(sorted(versions)) or _installed_version()


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("driftscope")
    except PackageNotFoundError:
        return "(not installed)"
