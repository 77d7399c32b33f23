"""Figures: right scales, legible cells, themed colours, hover texts; no text over text."""

import math
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fake_study import fake_images, fake_maps, write_fake_study
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from driftscope.analysis import grouping
from driftscope.analysis.chart import Chart
from driftscope.analysis.estimate_charts import estimate_chart
from driftscope.analysis.map_charts import (
    class_chart,
    head_maps_chart,
    layer_chart,
    shown_classes,
    symmetric_limit,
)
from driftscope.analysis.study_charts import (
    followed_metrics,
    outcome_metrics,
    rate_chart,
    trajectory_chart,
)
from driftscope.metrics import METRICS
from driftscope.records import Overlay, load_runs
from driftscope.report import tables
from driftscope.report.attention_figures import attention_figure
from driftscope.report.drawing import draw, ink_on
from driftscope.report.overlays import NamedOverlay, side_by_side
from driftscope.report.style import (
    DIVERGING,
    GRID,
    INK,
    look,
    method_styles,
    save_figure,
    themed_svg,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("study")
    records = load_runs(write_fake_study(folder, rates=(1e-4, 1e-3, 3e-3), maps=False))
    return grouping.with_series(tables.report_runs(records))


def _rate_figure(runs: pd.DataFrame) -> Figure:
    chart = rate_chart("r", grouping.cells_frame(runs), runs, outcome_metrics(has_transfer=True))
    return draw(chart)


def _heat_figure(num_layers: int, num_rates: int = 4) -> Figure:
    rng = np.random.default_rng(0)
    rows = [
        {"series": s, "learning_rate": 10.0**-r, "layer": n, "delta_entropy_pct": rng.normal(0, 20)}
        for s in ("full_ft", "lora_r8")
        for r in range(3, 3 + num_rates)
        for n in range(1, num_layers + 1)
    ]
    return draw(layer_chart("h", pd.DataFrame(rows), ["full_ft", "lora_r8"]))


def _overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of visible texts whose boxes share more than a hair."""
    with look():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        outside = _ticks_out_of_view(figure)
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        texts = [t for t in texts if t not in outside]
        boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    return [
        (one, other)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[i + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def _ticks_out_of_view(figure: Figure) -> set[Text]:
    """Labels that exist and are not drawn, since their tick lies beyond the axis' ends."""
    labels = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        room = 1e-6 * (high - low)
        ticks = axis.get_major_ticks()
        labels |= {t.label1 for t in ticks if not low - room <= t.get_loc() <= high + room}
    return labels


def _contrast(one: str, other: tuple[float, ...]) -> float:
    def luminance(rgb: tuple[float, ...]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(to_rgb(one)), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_no_texts_overlap_in_the_learning_rate_panels(runs: pd.DataFrame) -> None:
    assert _overlaps(_rate_figure(runs)) == []


def test_rates_too_close_to_label_are_thinned_not_overprinted() -> None:
    rates = [1e-4, 1.1e-4, 1.2e-4, 1e-3, 1.05e-3]
    frame = pd.DataFrame(
        {"series": "full_ft", "learning_rate": rates, "cka": 0.5, "cka_sd": 0.1, "num_runs": 3}
    )
    figure = draw(rate_chart("r", frame, frame.assign(seed=0), [METRICS["cka"]]))
    assert _overlaps(figure) == []


@pytest.mark.parametrize("num_layers", [1, 6, 12, 24])
@pytest.mark.parametrize("num_rates", [1, 4])
def test_no_texts_overlap_in_layer_heatmaps(num_layers: int, num_rates: int) -> None:
    assert _overlaps(_heat_figure(num_layers, num_rates)) == []


def test_learning_rates_are_on_a_log_axis_and_the_pretrained_level_is_drawn(
    runs: pd.DataFrame,
) -> None:
    accuracy, retention, cka = _rate_figure(runs).axes
    assert {axes.get_xscale() for axes in (accuracy, cka, retention)} == {"log"}
    assert any(list(line.get_ydata()) == [100, 100] for line in retention.lines)
    assert any(list(line.get_ydata()) == [1, 1] for line in cka.lines)


def test_heatmap_panels_share_one_scale_centred_at_zero() -> None:
    assert DIVERGING(0.5) == pytest.approx(DIVERGING(0.5))
    near_white = DIVERGING(0.5)
    assert min(near_white[:3]) > 0.9
    figure = _heat_figure(6)
    bar = figure.axes[-1]
    low, high = bar.get_ylim()
    assert low == -high


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_cell_values_are_legible_on_every_cell_colour(share: float) -> None:
    colour = DIVERGING(share)
    assert _contrast(ink_on(colour), colour) >= 4.5


def test_a_missing_cell_is_hatched_not_coloured() -> None:
    frame = pd.DataFrame(
        {
            "series": "full_ft",
            "learning_rate": [1e-3, 1e-3, 1e-4],
            "layer": [1, 2, 1],
            "delta_entropy_pct": [1.0, 2.0, 3.0],
        }
    )
    figure = draw(layer_chart("h", frame, ["full_ft"]))
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 1


def test_no_two_methods_look_alike() -> None:
    names = ["full_ft", "lora_r4", "lora_r8", "lora_r16", "last_block", "linear_probe", "a", "b"]
    styles = method_styles(names)
    assert len({(s.colour, str(s.line), s.marker) for s in styles.values()}) == len(names)
    assert len({s.marker for s in styles.values()}) == len(names)
    assert method_styles(["lora_r8"])["lora_r8"].colour == styles["lora_r4"].colour


def test_a_figure_for_a_page_follows_the_theme_and_has_unique_prefixed_ids(
    runs: pd.DataFrame,
) -> None:
    svg = themed_svg(_rate_figure(runs), "fig")
    ElementTree.fromstring(svg)
    bare = svg.replace(f"var(--ink, {INK})", "").replace(f"var(--grid, {GRID})", "")
    assert INK not in bare
    assert GRID not in bare
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("fig-") for name in ids)
    references = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]*)', svg))
    assert references <= set(ids)


def test_hover_texts_name_the_run_and_are_escaped(runs: pd.DataFrame) -> None:
    svg = themed_svg(_rate_figure(runs), "fig")
    assert re.search(r"<title>full_ft, rate 3e-3, seed 1: [\d.]+ %</title>", svg)
    hostile = runs.assign(series="<b>&")
    cells = grouping.cells_frame(runs).assign(series="<b>&")
    svg = themed_svg(draw(rate_chart("r", cells, hostile, [METRICS["cka"]])), "x")
    ElementTree.fromstring(svg)
    assert "<b>" not in svg


def test_drawing_leaves_matplotlibs_settings_as_they_were(runs: pd.DataFrame) -> None:
    # the backend is left out: matplotlib itself settles it when it is first looked at
    before = {key: value for key, value in mpl.rcParams.items() if key != "backend"}
    themed_svg(_rate_figure(runs), "fig")
    assert before == {key: value for key, value in mpl.rcParams.items() if key != "backend"}


def test_figures_are_saved_in_every_format_and_the_same_each_time(tmp_path: Path) -> None:
    figure = _heat_figure(6)
    paths = save_figure(figure, tmp_path / "heat.v1")
    assert [path.name for path in paths] == ["heat.v1.svg", "heat.v1.pdf", "heat.v1.png"]
    first = paths[0].read_text()
    assert save_figure(_heat_figure(6), tmp_path / "again", ["svg"])[0].read_text() == first


def test_a_figure_with_control_characters_in_its_names_is_one_that_opens(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, "a\x0b\x1b[31m\ufffe <b>&")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does matplotlib tell of what its font lacks
        svg, _ = save_figure(figure, tmp_path / "names", ["svg", "png"])
    assert "a␋␛[31m� <b>&" in "".join(ElementTree.parse(svg).getroot().itertext())


def test_the_attention_figure_has_a_row_an_image_and_three_columns() -> None:
    rng = np.random.default_rng(0)
    overlay = Overlay(fake_images(3), fake_maps(rng, 3), fake_maps(rng, 3))
    figure = attention_figure({"adapted": overlay}, num_images=2)
    assert len(figure.axes) == 6


def test_the_attention_figure_has_a_column_a_model() -> None:
    rng = np.random.default_rng(0)
    images, before = fake_images(3), fake_maps(rng, 3)
    overlays = {name: Overlay(images, before, fake_maps(rng, 3)) for name in ("full_ft", "lora $")}
    figure = attention_figure(overlays)
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "image",
        "pretrained",
        "full_ft",
        "lora $",
    ]
    assert _overlaps(figure) == []


def test_only_overlays_of_the_same_images_and_rate_stand_side_by_side() -> None:
    rng = np.random.default_rng(0)
    images, maps = fake_images(2), fake_maps(rng, 2)
    same = Overlay(images, maps, maps)
    other = Overlay(255 - images, maps, maps)
    named = [
        NamedOverlay("", "full_ft, 1e-3", "d 1e-3", same),
        NamedOverlay("", "lora, 3e-3", "d 3e-3", same),
        NamedOverlay("", "full_ft, 3e-3", "d 3e-3", same),
        NamedOverlay("", "bitfit, 3e-3", "d 3e-3", other),
    ]
    assert list(side_by_side(named)) == ["full_ft, 3e-3", "lora, 3e-3"]
    assert side_by_side([]) == {}


def _probes(num_series: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"series": name, "learning_rate": rate, "epoch": epoch, "step": 25 * epoch,
             "cka": 1 - rate * 100 * epoch, "retention_pct": 100 - 1e4 * rate * epoch,
             "delta_entropy_pct": 3.0 * epoch, "num_runs": 3}
            for name in ("full_ft", "lora_r8", "last_block")[:num_series]
            for rate in (1e-4, 1e-3)
            for epoch in (1, 2, 3)
        ]
    )  # fmt: skip


def _trajectories(probes: pd.DataFrame, series: list[str]) -> Chart:
    runs = probes.assign(run_id=probes["series"] + probes["learning_rate"].astype(str), seed=0)
    return trajectory_chart("t", probes, runs, series, followed_metrics(has_transfer=True))


def test_trajectories_start_at_the_pretrained_level_and_follow_the_step() -> None:
    figure = draw(_trajectories(_probes(), ["full_ft", "lora_r8"]))
    assert len(figure.axes) == 6
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert [list(line.get_xdata()) for line in lines] == [[0, 25, 50, 75]] * 2
    assert all(line.get_ydata()[0] == 100 for line in lines)
    assert figure.axes[-1].get_xlabel() == "step"


def test_trajectories_of_a_metric_share_their_axis() -> None:
    """LoRA's fall from 100 to 95 does not look as steep as full fine-tuning's to 0."""
    probes = _probes()
    lora = probes["series"] == "lora_r8"
    probes.loc[lora, "retention_pct"] = 100 - (100 - probes.loc[lora, "retention_pct"]) / 20
    full, little = _trajectories(probes, ["full_ft", "lora_r8"]).panels
    assert full[0].y.limits == little[0].y.limits == (68.5, 101.5)


def test_where_steps_are_unknown_trajectories_follow_the_epoch() -> None:
    probes = _probes().assign(step=np.nan)
    figure = draw(_trajectories(probes, ["full_ft"]))
    assert figure.axes[0].get_xlabel() == "epoch"


@pytest.mark.parametrize("num_series", [1, 3])
def test_no_texts_overlap_in_trajectories(num_series: int) -> None:
    probes = _probes(num_series)
    names = list(dict.fromkeys(probes["series"]))
    assert _overlaps(draw(_trajectories(probes, names))) == []


def _heads(num_layers: int, num_heads: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"series": name, "learning_rate": rate, "layer": layer, "head": head,
             "delta_entropy_pct": rng.normal(0, 20), "num_runs": 3}
            for name in ("full_ft", "lora_r8")
            for rate in (1e-4, 1e-3, 3e-3)
            for layer in range(1, num_layers + 1)
            for head in range(1, num_heads + 1)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("num_layers", "num_heads"), [(6, 4), (12, 12), (24, 16)])
def test_head_maps_have_a_panel_a_cell_and_no_text_over_text(
    num_layers: int, num_heads: int
) -> None:
    figure = draw(head_maps_chart("h", _heads(num_layers, num_heads), ["full_ft", "lora_r8"]))
    assert len(figure.axes) == 7
    assert len(figure.axes[0].patches) == num_layers * num_heads
    low, high = figure.axes[-1].get_ylim()
    assert low == -high
    assert _overlaps(figure) == []


def _classes(num_classes: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"series": name, "learning_rate": rate, "class": f"class $ {at:03d}",
             "num_images": 6, "pretrained_pct": 100.0 if at else 0.0, "adapted_pct": 1.0 * at,
             "retention_pct": 100.0 * at / num_classes if at else np.nan, "num_runs": 3}
            for name in ("full_ft", "lora_r8, weight decay 0.1")
            for rate in (1e-4, 1e-3)
            for at in range(num_classes)
        ]
    )  # fmt: skip


LONG = [
    "full_ft, entropy_shift_10_target_pct-10",
    "full_ft, entropy_shift_10_target_pct10",
    "full_ft, reset_attention_epoch2",
    "lora_r8, none",
]


def test_long_names_of_series_overlap_in_no_map_and_no_text_is_under_nine_pixels() -> None:
    one_rate = _classes(12)[lambda rows: rows["learning_rate"] == 1e-4].drop(columns="series")
    classes = pd.concat([one_rate.assign(series=name) for name in LONG])
    heads = pd.DataFrame(
        [
            {"series": name, "learning_rate": 1e-4, "layer": layer, "head": head,
             "delta_entropy_pct": 1.0 * layer}
            for name in LONG
            for layer in range(1, 7)
            for head in range(1, 5)
        ]
    )  # fmt: skip
    for chart in (class_chart("c", classes, LONG), head_maps_chart("h", heads, LONG)):
        figure = draw(chart)
        assert _overlaps(figure) == []
        sizes = [one.get_fontsize() for one in figure.findobj(Text) if one.get_text().strip()]
        assert min(sizes) * 96 / 72 >= 9  # points, of which 72 are 96 pixels


@pytest.mark.parametrize("num_classes", [2, 24, 100])
def test_no_texts_overlap_in_retention_by_class(num_classes: int) -> None:
    frame = _classes(num_classes)
    chart = class_chart("c", frame, list(dict.fromkeys(frame["series"])))
    assert _overlaps(draw(chart)) == []


def test_of_many_classes_the_least_and_the_best_kept_are_shown() -> None:
    shown = shown_classes(_classes(100), 4)
    assert shown == ["class $ 001", "class $ 002", None, "class $ 098", "class $ 099"]


def test_the_scale_of_nothing_is_one() -> None:
    assert symmetric_limit(pd.Series([math.nan])) == 1.0
    assert symmetric_limit(pd.Series([0.0])) == 1.0
    assert symmetric_limit(pd.Series([-3.0, 2.0])) == 3.0
    assert symmetric_limit(pd.Series([-3.0, math.inf])) == 3.0


def test_estimates_stand_against_measured_retention_with_intervals_that_are_not_symmetric(
    runs: pd.DataFrame,
) -> None:
    finished = runs[runs["status"] == "done"]
    assert estimate_chart("e", finished.drop(columns="estimated_retention_pct")) is None
    low = finished["retention_pct"] - 1
    known = finished.assign(
        estimated_retention_pct=finished["retention_pct"] + 2, low_90_pct=low, high_90_pct=low + 9
    )
    known.loc[known.index[0], "low_90_pct"] += 2  # one that does not hold the measured
    chart = estimate_chart("e", known)
    (panel,) = chart.flat
    count = len(known)
    assert f"of {count} runs are 2.0 points off on average, 2.0 at most" in panel.words
    assert f"{count - 1} of {count} 90 % intervals hold the measured retention" in panel.words
    line, *dots = panel.marks
    assert line.x == line.y
    assert sorted(id for one in dots for id in one.run_ids) == sorted(known["run_id"])
    axes = draw(chart).axes[0]
    # of each run one bar, from the low to the high end
    bars = [one.get_segments()[0] for one in axes.collections if len(one.get_segments()[0])]
    spans = {(round(bar[0][1], 3), round(bar[1][1], 3)) for bar in bars if bar[0][0] == bar[1][0]}
    expected = {(round(row.low_90_pct, 3), round(row.high_90_pct, 3)) for row in known.itertuples()}
    assert expected <= spans
