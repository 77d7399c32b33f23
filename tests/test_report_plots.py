"""What a page's interactive figures are drawn from: chart data with the words of every point."""

import json
from pathlib import Path

import pandas as pd
import pytest
from fake_study import HOSTILE, write_fake_report, write_fake_study
from plotly.offline import get_plotlyjs
from test_report_findings import _frontier_table, _runs

from driftscope.analysis import grouping
from driftscope.analysis.answer_charts import frontier_chart
from driftscope.analysis.chart import Marks
from driftscope.analysis.study_charts import rate_chart, runs_of_cells, trajectory_chart
from driftscope.metrics import METRICS
from driftscope.records import history_table, load_runs
from driftscope.report import tables
from driftscope.report.page import panel_pictures, plotly_look
from driftscope.report.style import SeriesStyle

RETENTION = METRICS["retention_pct"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = write_fake_study(tmp_path_factory.mktemp("study"), rates=(3e-4, 3e-3), maps=False)
    records = load_runs(folder)
    return grouping.with_series(tables.report_runs(records)), history_table(records)


def _rate_marks(runs: pd.DataFrame) -> tuple[Marks, ...]:
    chart = rate_chart("r", grouping.cells_frame(runs), runs, [RETENTION])
    return chart.panels[0][0].marks


def test_a_point_of_the_mean_names_its_spread_seeds_and_runs(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs, _ = study
    mine = runs[(runs["series"] == "full_ft") & (runs["learning_rate"] == 3e-4)]
    (mean,) = (one for one in _rate_marks(runs) if one.name == "full_ft" and not one.is_single)
    assert mean.y[0] == pytest.approx(mine["retention_pct"].mean())
    low, high = mean.y_ends[0] or (0, 0)
    assert (high - low) / 2 == pytest.approx(mine["retention_pct"].std(ddof=1))
    assert f"{mine['retention_pct'].mean():.1f}" in mean.hover[0]
    for row in mine.to_dict("records"):
        assert f"seed {row['seed']} (run {row['run_id']})" in mean.hover[0]


def test_a_line_over_training_starts_at_the_pretrained_level(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs, history = study
    chart = trajectory_chart(
        "t",
        grouping.history_cells_frame(history, runs),
        grouping.run_history_frame(history, runs),
        ["lora_r8"],
        [RETENTION],
    )
    panel = chart.panels[0][0]
    assert panel.level == 100
    assert panel.x.heading == "step"
    assert all((one.x[0], one.y[0]) == (0, 100) for one in panel.marks)
    assert all(len(one.x) == len(one.hover) for one in panel.marks)
    assert len([one for one in panel.marks if one.is_single]) == 4  # two rates, two seeds
    assert all(len(one.run_ids) == len(one.x) for one in panel.marks if one.is_single)


def test_a_cell_on_the_frontier_is_ringed_and_names_its_runs() -> None:
    marks = frontier_chart("f", _frontier_table(), _runs()).panels[0][0].marks
    full_ft = next(one for one in marks if one.name == "full_ft")
    assert full_ft.ringed == (True,)
    assert "seed 7 (run a1)\nseed 11 (run a2)" in full_ft.hover[0]
    limit, joined = (one for one in marks if not one.name)
    axis = frontier_chart("f", _frontier_table(), _runs()).panels[0][0].x
    assert (limit.x, limit.y) == (axis.limits, (90.0, 90.0))
    assert joined.x == (90.0, 97.0)


def test_a_name_that_looks_like_markup_cannot_end_its_script(
    study: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    runs = study[0].assign(series=HOSTILE)
    cells = grouping.cells_frame(runs).assign(series=HOSTILE)
    [[picture]] = panel_pictures(rate_chart("r", cells, runs, [RETENTION]), "r")
    assert "<" not in str(picture.plot)
    assert HOSTILE in json.loads(str(picture.plot))["styles"]


def test_dashes_and_marks_are_told_in_plotlys_words() -> None:
    assert plotly_look(SeriesStyle("#000000", "s", "-")) == ("#000000", "square", "solid")
    assert plotly_look(SeriesStyle("#000000", "^", (0, (5, 1.5))))[1:] == (
        "triangle-up",
        "10px,3px",
    )


def test_the_library_can_stand_inside_a_script_element() -> None:
    source = get_plotlyjs()
    assert "</script" not in source.lower()
    assert "<!--" not in source


def test_many_runs_of_a_cell_are_counted_not_listed() -> None:
    runs = pd.concat([_runs().assign(run_id=f"r{at}") for at in range(8)])
    (text,) = runs_of_cells(runs).values()
    assert text.endswith("and 10 more")


def test_the_page_of_a_study_stays_far_below_a_mails_limit(tmp_path: Path) -> None:
    folder = write_fake_study(tmp_path / "s", rates=(3e-4, 3e-3), datasets=("terrain", "stars"))
    page = write_fake_report(folder, tmp_path / "r.html")
    assert page.stat().st_size - len(get_plotlyjs()) < 3_000_000
