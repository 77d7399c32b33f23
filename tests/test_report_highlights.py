"""The sentences at the top of a report: each with its own n, its setting and its uncertainty."""

from collections.abc import Sequence

import pandas as pd
import pytest
from scipy import stats as scipy_stats
from test_analysis import study

from driftscope.analysis import Answer, StudyTables, answer, answer_all
from driftscope.report.highlights import Highlight, highlights


@pytest.fixture(scope="module")
def tables() -> StudyTables:
    return study()


def shown(answers: Sequence[Answer]) -> list[Highlight]:
    return highlights(answers)


def test_each_contrast_rests_on_its_own_pairs(tables: StudyTables) -> None:
    (contrast,) = [one for one in answer_all(tables) if one.question == "method_contrast"]
    at_rate, at_accuracy = shown([contrast])
    # two datasets, four rates, three seeds; at equal accuracy one pair a dataset and seed
    assert at_rate.basis.startswith("Rests on 24 pairs of runs")
    assert at_accuracy.basis.startswith("Rests on 6 pairs of seeds")
    assert "the mean over 3 levels that both reach" in at_accuracy.sentence


def test_a_contrast_leads_with_what_the_rates_say(tables: StudyTables) -> None:
    contrast = answer("method_contrast", tables)
    row = contrast.table.iloc[0]
    runs = tables.only(dataset=row["dataset"]).runs.pivot_table(
        index="learning_rate", columns="method", values="retention_pct"
    )
    reference = scipy_stats.ttest_rel(runs["lora_r8"], runs["full_ft"])
    interval = reference.confidence_interval()
    assert (row["metric"], row["matching"]) == ("retention_pct", "learning_rate")
    assert (row["low_over_rates"], row["high_over_rates"]) == pytest.approx(tuple(interval))
    assert row["p_over_rates"] == pytest.approx(reference.pvalue)
    sentence = shown([contrast])[0].sentence.replace("\u00a0", " ")
    assert "95 % interval over its 4 rates [" in sentence
    assert "; the 12 pairs taken as independent, Holm p = " in sentence


def test_a_contrast_that_is_unknown_is_no_sentence(tables: StudyTables) -> None:
    runs = tables.runs.assign(retention_pct=float("nan"))
    found = shown([answer("method_contrast", tables.with_runs(runs))])
    assert [one.basis for one in found] == [""]
    assert "No two methods could be compared at the same target accuracy" in found[0].sentence


def test_backbones_are_named_and_counted_apart(tables: StudyTables) -> None:
    runs = tables.only(dataset="stars").runs
    other = runs.assign(model="other", run_id=runs["run_id"] + "o")
    both = StudyTables(pd.concat([runs, other], ignore_index=True), tables.history, tables.layers)
    contrasts, *_, dose = shown(
        [answer(name, both) for name in ("method_contrast", "dose_response")]
    )
    for place in ("stars, mini", "stars, other"):
        assert f"on {place} (" in contrasts.sentence
    assert "other / leakfree" not in contrasts.sentence
    assert "(mini) retention falls in 2 of 2" in dose.sentence
    assert "(other) retention falls in 2 of 2" in dose.sentence


def test_tests_that_could_not_be_made_are_not_counted_as_failed(tables: StudyTables) -> None:
    one_seed = tables.only(seed=[7], learning_rate=[1e-6, 1e-5, 1e-4])
    (dose,) = shown([answer("dose_response", one_seed)])
    assert "too few rates and seeds for an exact test" in dose.sentence
    (many,) = shown([answer("dose_response", tables)])
    assert "Holm p ≤ 0.05 in 4 of 4 tests" in many.sentence


def test_pooled_datasets_are_said_to_be_pooled(tables: StudyTables) -> None:
    (pooled,) = shown([answer("predictors", tables)])
    assert "16 cells, pooled over stars and terrain" in pooled.sentence


def test_signals_that_cannot_be_told_apart_are_not_ranked(tables: StudyTables) -> None:
    runs = tables.runs.assign(cka_debiased=tables.runs["cka"])
    (found,) = shown([answer("predictors", tables.with_runs(runs))])
    assert "not to be told apart from" in found.sentence
    assert "debiased CKA" in found.sentence


def test_the_only_signal_is_said_to_be_the_only_one(tables: StudyTables) -> None:
    kept = tables.runs.drop(columns=["cka", "embedding_drift", "weight_drift", "train_loss"])
    bare = StudyTables(kept, tables.history.iloc[:0], tables.layers)
    (found,) = shown([answer("predictors", bare)])
    assert "with the only signal recorded, " in found.sentence


def test_one_datasets_signals_are_not_pooled(tables: StudyTables) -> None:
    (single,) = shown([answer("predictors", tables.only(dataset="terrain"))])
    assert "pooled" not in single.sentence


def test_what_is_left_out_is_not_added_up(tables: StudyTables) -> None:
    without_history = StudyTables(tables.runs, tables.history.iloc[:0], tables.layers)
    (found,) = shown([answer("predictors", without_history)])
    assert found.basis == "Rests on 16 cells; what was left out is listed under Statistics."


def test_cells_of_one_run_are_said_to_be_uncertain(tables: StudyTables) -> None:
    (found,) = shown([answer("frontier", tables.only(seed=[7], dataset="terrain"))])
    assert " in test accuracy (" in found.sentence
    assert "8 of them hold one run, so their place is uncertain" in found.sentence
    assert "Cells whose mean over seeds no other beats" in found.sentence
