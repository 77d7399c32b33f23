"""What analysis answered, on the page and as files; the follow-up records as a report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import write_fake_study
from test_analysis import study as analysed_study
from test_report_figures import _overlaps

from driftscope.analysis import Answer, Exclusion, StudyTables, answer_all, grouping
from driftscope.analysis.answer_charts import answer_charts, frontier_chart, predictor_chart
from driftscope.analysis.answer_tables import answer_tables
from driftscope.analysis.columns import KNOWN
from driftscope.analysis.table import save_tables
from driftscope.analysis.words import general_text
from driftscope.records import all_tables, load_runs
from driftscope.report import tables
from driftscope.report.drawing import draw, number_axis
from driftscope.report.files import save_study_files
from driftscope.report.findings import findings
from driftscope.report.html import write_study_report
from driftscope.report.style import look

FOLLOWUP = Path(__file__).parents[2] / "shared" / "records" / "followup"


def _frontier_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": "d",
            "method": ["full_ft", "lora_r8", "lora_r8"],
            "learning_rate": [1e-3, 1e-3, 1e-4],
            "num_runs": 3,
            "test_accuracy_pct": [97.0, 90.0, 60.0],
            "test_accuracy_pct_sd": [0.5, 0.5, np.nan],
            "retention_pct": [40.0, 90.0, 80.0],
            "retention_pct_sd": [2.0, 1.0, np.nan],
            "lowest_retention_pct": [38.0, 90.0, 79.0],
            "is_on_frontier": [True, True, False],
        }
    )


def _predictor_table(num_signals: int = 4) -> pd.DataFrame:
    signals = ["cka", "delta_entropy_pct", "delta_entropy_pct", "weight_drift"][:num_signals]
    forms = ["signed", "signed", "absolute", "signed"][:num_signals]
    rho = np.array([0.9, 0.2, -0.8, -0.7])[:num_signals]
    rows = {"signal": signals, "form": forms, "rho": rho, "abs_rho": abs(rho)}
    frame = pd.DataFrame({**rows, "low": rho - 0.1, "high": rho + 0.1, "num_cells": 12})
    return pd.concat([frame.assign(probe=probe) for probe in ("final", "first")])


def _runs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run_id": ["a1", "a2"],
            "dataset": "d",
            "method": "full_ft",
            "series": "full_ft",
            "learning_rate": 1e-3,
            "seed": [7, 11],
        }
    )


def _predictors() -> pd.DataFrame:
    return _predictor_table().assign(scope="overall", dataset="")


def _answer(question: str, table: pd.DataFrame, *, is_answered: bool = True) -> Answer:
    found = Answer(
        question,
        f"The sentence of {question}.",
        table,
        "cells",
        3,
        excluded=(Exclusion("runs", 2, "diverged"),),
        is_answered=is_answered,
    )
    return replace(found, charts=tuple(answer_charts(found, _runs())))


def test_an_answer_brings_its_sentence_picture_table_and_what_was_left_out() -> None:
    (finding,) = findings([_answer("frontier", _frontier_table())], {})
    assert finding.sentence == "The sentence of frontier."
    assert len(finding.pictures) == 1
    assert "Rests on 3 cells. Left out: 2 runs: diverged." in finding.tables[0].note


def test_questions_that_cannot_be_answered_come_last_and_without_pictures() -> None:
    shown = findings(
        [
            _answer("predictors", pd.DataFrame(), is_answered=False),
            _answer("frontier", _frontier_table()),
        ],
        {},
    )
    assert [bool(finding.pictures) for finding in shown] == [True, False]
    assert shown[1].tables == []


def test_an_answers_columns_are_written_by_what_they_hold() -> None:
    (table,) = answer_tables(_answer("frontier", _frontier_table()))
    kinds = {column.key: column.kind for column in table.columns}
    assert kinds["learning_rate"] == "rate"
    assert kinds["num_runs"] == "count"
    assert kinds["is_on_frontier"] == "text"
    assert kinds["retention_pct"] == "number"
    headings = {column.key: column.heading for column in table.columns}
    assert headings["retention_pct"] == "Retention, %"
    assert "retention_pct_sd" not in headings  # it stands beside its mean
    assert "| 40.0\u00a0±\u00a02.0 |" in table.to_markdown()
    assert "| yes |" in table.to_markdown()


def test_every_column_of_every_answer_has_a_heading_and_every_measure_its_unit() -> None:
    study = analysed_study()
    shown = [(table, column) for one in answer_all(study) for table in answer_tables(one)
             for column in table.columns]  # fmt: skip
    assert len({column.key for _, column in shown}) > 60
    assert {column.key for _, column in shown} <= set(KNOWN)
    for table, column in shown:
        if column.key in ("outcome", "metric", "signal", "rule"):
            words = {column.text(row) for row in table.rows}
            assert not any("_pct" in word for word in words), words
            assert not words & {"retention", "Δ entropy"}, words


def test_a_question_of_ones_own_is_shown_by_its_columns_names() -> None:
    (table,) = answer_tables(_answer("mine", pd.DataFrame({"my_number": [0.5], "a_word": ["x"]})))
    assert [(c.heading, c.kind) for c in table.columns] == [
        ("my number", "general"),
        ("a word", "text"),
    ]


def test_an_accuracy_that_only_another_setting_has_is_not_drawn() -> None:
    frame = _frontier_table().rename(columns=lambda name: name.replace("test_", "val_"))
    frame["test_accuracy_pct"] = np.nan  # of a setting answered beside it
    chart = frontier_chart("f", frame, _runs())
    assert "validation accuracy" in json.dumps(chart.to_dict(), allow_nan=False)
    assert draw(chart).axes[0].get_xlabel() == "Validation accuracy, %"


def test_tables_are_saved_in_every_format_under_their_names(tmp_path: Path) -> None:
    paths = save_tables(answer_tables(_answer("frontier", _frontier_table())), tmp_path / "t")
    assert [path.name for path in paths] == ["frontier.csv", "frontier.md", "frontier.tex"]
    assert pd.read_csv(paths[0])["retention_pct"].tolist() == [40.0, 90.0, 80.0]


def test_the_frontier_figure_rings_the_cells_that_no_other_beats() -> None:
    figure = draw(frontier_chart("f", _frontier_table(), _runs()))
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    ringed = [line for line in marks if line.get_markeredgewidth() > 1]
    assert {float(line.get_xdata()[0]) for line in ringed} == {97.0, 90.0}


def test_predictor_bars_are_as_long_as_the_correlations() -> None:
    figure = draw(predictor_chart("p", _predictor_table()))
    lengths = sorted(round(bar.get_width(), 6) for bar in figure.axes[0].patches)
    assert lengths == sorted([0.9, 0.2, -0.8, -0.7] * 2)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "|Δ entropy|" in names
    assert "signed Δ entropy" in names


def test_no_texts_overlap_in_the_figures_of_answers() -> None:
    assert _overlaps(draw(predictor_chart("p", _predictor_table(), "a, b"))) == []
    assert _overlaps(draw(frontier_chart("f", _frontier_table(), _runs(), "d"))) == []


@pytest.mark.parametrize("top", [0.02, 0.37, 1.0, 3.7, 48.0, 100.0, 730.0])
def test_tick_labels_say_the_ticks_value_exactly(top: float) -> None:
    from matplotlib.figure import Figure

    with look():
        axes = Figure().subplots()
        axes.set_ylim(-top / 3, top)
        number_axis(axes.yaxis)
        for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
            assert float(label.get_text().replace("−", "-")) == pytest.approx(tick, abs=1e-12)


def test_epochs_of_a_cell_are_averaged_over_its_seeds() -> None:
    history = pd.DataFrame(
        {"run_id": ["a", "b"], "learning_rate": 1e-3, "epoch": 1, "cka": [0.5, 0.7]}
    )
    runs = pd.DataFrame(
        {"run_id": ["a", "b"], "dataset": "d", "method": "m", "learning_rate": 1e-3}
    )
    (row,) = grouping.history_cells_frame(history, runs).to_dict("records")
    assert row["cka"] == pytest.approx(0.6)
    assert row["num_runs"] == 2


def test_numbers_of_mixed_quantities_have_three_digits() -> None:
    assert [general_text(v) for v in (0.000145, -0.97163, 9548.5, 0.0, 12.0)] == [
        "1.45e-4",
        "−0.972",
        "9,550",
        "0",
        "12",
    ]


def test_a_saved_table_of_cells_shows_the_wilson_interval_that_its_note_explains(
    tmp_path: Path,
) -> None:
    records = load_runs(write_fake_study(tmp_path / "s", rates=(1e-3,), maps=False))
    read = all_tables(records)
    study = StudyTables(read.runs, read.history, read.layers, read.subsets)
    formats = {"table_formats": ["md"], "figure_formats": []}
    paths = save_study_files(study, tmp_path / "out", records=records, **formats)
    (text,) = [path.read_text() for path in paths if path.name.startswith("cells_")]
    assert "Wilson" in text
    low = tables.report_runs(records).groupby("method")["zero_shot_low_pct"].mean()
    for limit in low:
        assert f"[{limit:.1f}–" in text


def test_a_study_is_saved_as_tables_and_figures_named_by_what_they_show(tmp_path: Path) -> None:
    records = load_runs(write_fake_study(tmp_path / "s", rates=(1e-3, 3e-3)))
    read = all_tables(records)
    study = StudyTables(
        read.runs, read.history, read.layers, read.subsets, read.heads, read.classes
    )
    answers = [_answer("frontier", _frontier_table()), _answer("predictors", _predictors())]
    paths = save_study_files(
        study,
        tmp_path / "out",
        answers=answers,
        records=records,
        table_formats=["csv"],
        figure_formats=["svg"],
    )
    assert {path.relative_to(tmp_path / "out").as_posix() for path in paths} == {
        "tables/runs.csv",
        "tables/grid_means.csv",
        "tables/cells_terrain_mini_leakfree_concepts100.csv",
        "tables/layers_terrain_mini_leakfree_concepts100.csv",
        "tables/classes_terrain_mini_leakfree_concepts100.csv",
        "tables/frontier.csv",
        "tables/frontier_in_full.csv",
        "tables/predictors.csv",
        "tables/predictors_in_full.csv",
        "tables/missing_tables.csv",
        "figures/learning_rate_terrain_mini_leakfree_concepts100.svg",
        "figures/dose_response_terrain_mini_leakfree_concepts100.svg",
        "figures/layer_entropy_terrain_mini_leakfree_concepts100.svg",
        "figures/layer_cka_terrain_mini_leakfree_concepts100.svg",
        "figures/head_entropy_terrain_mini_leakfree_concepts100.svg",
        "figures/retention_by_class_terrain_mini_leakfree_concepts100.svg",
        "figures/trajectories_terrain_mini_leakfree_concepts100.svg",
        "figures/attention_terrain_mini_leakfree_concepts100.svg",
        "figures/frontier_d.svg",
        "figures/predictors.svg",
    }
    assert all(path.stat().st_size for path in paths)


@pytest.mark.skipif(not FOLLOWUP.exists(), reason="the follow-up records are not on this machine")
def test_the_follow_up_records_make_a_report(tmp_path: Path) -> None:
    from driftscope.analysis import answer
    from driftscope.paper.author_records import import_records

    study = import_records([FOLLOWUP]).tables.only(dataset="eurosat")
    answers = [answer(question, study) for question in ("predictors", "frontier")]
    page = write_study_report(
        study, [], tmp_path, title="Follow-up", command="", answers=answers
    ).read_text()
    # the published cell EuroSAT full_ft 3e-6: test 96.81 ± 0.07, retention 55.03 ± 4.33
    assert "96.8\u00a0±\u00a00.1" in page
    assert "55.0\u00a0±\u00a04.3" in page
    assert "What the statistics say" in page


@pytest.mark.skipif(not FOLLOWUP.exists(), reason="the follow-up records are not on this machine")
def test_an_imported_cell_mean_counts_as_its_runs() -> None:
    from driftscope.paper.author_records import import_records

    runs = import_records([FOLLOWUP.parent / "published" / "controlled_cells.csv"]).tables.runs
    _, part = grouping.split_settings(runs)[0]
    assert set(grouping.cells_frame(part)["num_runs"]) == {5}
