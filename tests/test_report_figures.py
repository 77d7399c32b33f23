"""Figures: right scales, legible cells, themed colours, hover texts; no text over text."""

import math
import re
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

from driftscope.records import Overlay, load_runs
from driftscope.report import figures, heatmaps, tables
from driftscope.report.figures import Measure
from driftscope.report.sections import study_measures
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
    return tables.with_series(tables.report_runs(records))


def _rate_figure(runs: pd.DataFrame) -> Figure:
    setting = {"dataset": "terrain", "transfer": "concepts100"}
    return figures.learning_rate_panels(tables.cells_frame(runs), runs, study_measures(setting))


def _heat_figure(num_layers: int, num_rates: int = 4) -> Figure:
    rng = np.random.default_rng(0)
    rows = [
        {"series": s, "learning_rate": 10.0**-r, "layer": n, "delta_entropy_pct": rng.normal(0, 20)}
        for s in ("full_ft", "lora_r8")
        for r in range(3, 3 + num_rates)
        for n in range(1, num_layers + 1)
    ]
    return heatmaps.layer_heatmap(pd.DataFrame(rows), ["full_ft", "lora_r8"])


def _overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of visible texts whose boxes share more than a hair."""
    with look():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    return [
        (one, other)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[i + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


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
    figure = figures.learning_rate_panels(
        frame, frame.assign(seed=0), [Measure("cka", "CKA", unit="")]
    )
    assert _overlaps(figure) == []


@pytest.mark.parametrize("num_layers", [1, 6, 12, 24])
@pytest.mark.parametrize("num_rates", [1, 4])
def test_no_texts_overlap_in_layer_heatmaps(num_layers: int, num_rates: int) -> None:
    assert _overlaps(_heat_figure(num_layers, num_rates)) == []


def test_learning_rates_are_on_a_log_axis_and_the_pretrained_level_is_drawn(
    runs: pd.DataFrame,
) -> None:
    accuracy, entropy, retention = _rate_figure(runs).axes
    assert {axes.get_xscale() for axes in (accuracy, entropy, retention)} == {"log"}
    assert any(list(line.get_ydata()) == [100, 100] for line in retention.lines)
    assert any(list(line.get_ydata()) == [0, 0] for line in entropy.lines)


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
    assert _contrast(heatmaps.ink_on(colour), colour) >= 4.5


def test_a_missing_cell_is_hatched_not_coloured() -> None:
    frame = pd.DataFrame(
        {
            "series": "full_ft",
            "learning_rate": [1e-3, 1e-3, 1e-4],
            "layer": [1, 2, 1],
            "delta_entropy_pct": [1.0, 2.0, 3.0],
        }
    )
    figure = heatmaps.layer_heatmap(frame, ["full_ft"])
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
    cells = tables.cells_frame(runs).assign(series="<b>&")
    svg = themed_svg(
        figures.learning_rate_panels(cells, hostile, [Measure("cka", "CKA", unit="")]), "x"
    )
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


def test_the_attention_figure_has_a_row_an_image_and_three_columns() -> None:
    rng = np.random.default_rng(0)
    overlay = Overlay(fake_images(3), fake_maps(rng, 3), fake_maps(rng, 3))
    figure = figures.attention_figure(overlay, num_images=2)
    assert len(figure.axes) == 6


def test_the_scale_of_nothing_is_one() -> None:
    assert heatmaps.symmetric_limit(pd.Series([math.nan])) == 1.0
    assert heatmaps.symmetric_limit(pd.Series([0.0])) == 1.0
    assert heatmaps.symmetric_limit(pd.Series([-3.0, 2.0])) == 3.0
