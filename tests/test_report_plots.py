"""Interactive figures: what plotly accepts, says when pointed at, and takes from data unharmed."""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from fake_study import HOSTILE, write_fake_report, write_fake_study
from plotly.offline import get_plotlyjs
from test_report_findings import _frontier_table, _predictor_table, _runs

from driftscope.analysis import grouping
from driftscope.records import history_table, load_runs
from driftscope.report import plots, tables
from driftscope.report.sections import ENTROPY, study_measures
from driftscope.report.style import method_styles, rate_styles

RETENTION = study_measures({"dataset": "d", "transfer": "t"})[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = write_fake_study(tmp_path_factory.mktemp("study"), rates=(3e-4, 3e-3), maps=False)
    records = load_runs(folder)
    return grouping.with_series(tables.report_runs(records)), history_table(records)


def _rate_plot(runs: pd.DataFrame) -> plots.Plot:
    return plots.rate_plot(
        grouping.cells_frame(runs), runs, RETENTION, method_styles(runs["series"].unique())
    )


def _accepted(plot: plots.Plot) -> go.Figure:
    """Plotly's own check of every property; it knows colours, and no variable of ours."""
    text = json.dumps(plot, allow_nan=False)
    for name in ("ink", "paper", "muted", "grid"):
        text = text.replace(f"var(--{name})", "#000000")
    known = json.loads(text)
    return go.Figure(known["data"], known["layout"])


def test_plotly_accepts_every_kind_of_figure(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs, history = study
    points = grouping.run_history_frame(history, runs)
    styles = rate_styles(runs["learning_rate"])
    for plot in (
        _rate_plot(runs),
        plots.trajectory_plot(points, "full_ft", ENTROPY, styles),
        plots.predictor_plot(_predictor_table()),
        plots.frontier_plot(_frontier_table(), _runs()),
    ):
        assert len(_accepted(plot).data) >= 2


def test_a_point_of_the_mean_names_its_spread_seeds_and_runs(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs, _ = study
    mine = runs[(runs["series"] == "full_ft") & (runs["learning_rate"] == 3e-4)]
    (mean,) = (
        trace
        for trace in _rate_plot(runs)["data"]
        if trace.get("name") == "full_ft" and trace["mode"] == "lines+markers"
    )
    text = mean["hovertext"][0]
    assert f"{mine['retention_pct'].mean():.1f}" in text
    for row in mine.to_dict("records"):
        assert f"seed {row['seed']} (run {row['run_id']})" in text


def test_a_line_over_training_starts_at_the_pretrained_level(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs, history = study
    points = grouping.run_history_frame(history, runs)
    plot = plots.trajectory_plot(points, "lora_r8", RETENTION, rate_styles(runs["learning_rate"]))
    lines = [trace for trace in plot["data"] if trace.get("name")]
    assert all((trace["x"][0], trace["y"][0]) == (0, 100) for trace in lines)
    assert all(len(trace["x"]) == len(trace["hovertext"]) for trace in lines)
    assert plot["layout"]["xaxis"]["title"]["text"] == "step"


def test_a_cell_on_the_frontier_is_ringed_and_names_its_runs() -> None:
    plot = plots.frontier_plot(_frontier_table(), _runs())
    full_ft = next(trace for trace in plot["data"] if trace.get("name") == "full_ft")
    assert full_ft["marker"]["line"]["color"] == ["var(--ink)"]
    assert "seed 7 (run a1)<br>seed 11 (run a2)" in full_ft["hovertext"][0]


def test_a_name_that_looks_like_markup_is_shown_as_it_is(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs = study[0].assign(series=HOSTILE)
    for trace in _rate_plot(runs)["data"]:
        assert all("<script" not in text for text in trace.get("hovertext", []))
        assert "<" not in trace.get("name", "")


def test_the_library_can_stand_inside_a_script_element() -> None:
    source = get_plotlyjs()
    assert "</script" not in source.lower()
    assert "<!--" not in source


def test_many_runs_of_a_cell_are_counted_not_listed() -> None:
    runs = pd.concat([_runs().assign(run_id=f"r{at}") for at in range(8)])
    (text,) = plots.runs_of_cells(runs).values()
    assert text.endswith("and 10 more")


def test_the_page_of_a_study_stays_far_below_a_mails_limit(tmp_path: Path) -> None:
    folder = write_fake_study(tmp_path / "s", rates=(3e-4, 3e-3), datasets=("terrain", "stars"))
    page = write_fake_report(folder, tmp_path / "r.html")
    assert page.stat().st_size - len(get_plotlyjs()) < 3_000_000
