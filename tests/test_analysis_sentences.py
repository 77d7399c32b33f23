"""The sentences of answers: each with its own n, its setting and one honest uncertainty."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_analysis import study, with_runs

from driftscope.analysis import QUESTIONS, Answer, StudyTables, answer
from driftscope.analysis.grouping import is_followed_on_other_images
from driftscope.analysis.words import spread_text


@pytest.fixture(scope="module")
def tables() -> StudyTables:
    return study()


def with_many(tables: StudyTables) -> StudyTables:
    """Eight methods in place of two, which is what makes lists long."""
    copies = [
        tables.runs.assign(
            method=tables.runs["method"] + f"_{number}", run_id=tables.runs["run_id"] + str(number)
        )
        for number in range(4)
    ]
    return tables.with_runs(pd.concat(copies, ignore_index=True))


def test_a_contrast_says_how_much_is_kept_at_each_rate(tables: StudyTables) -> None:
    contrast = answer("method_contrast", tables.only(dataset="terrain"))
    kept = tables.only(dataset="terrain").runs.pivot_table(
        index=["learning_rate", "seed"], columns="method", values="retention_pct"
    )
    gaps = (kept["lora_r8"] - kept["full_ft"]).groupby("learning_rate")
    by_rate = contrast.details["by_rate"]
    assert by_rate["difference"].tolist() == pytest.approx(gaps.mean().tolist())
    assert by_rate["difference_sd"].tolist() == pytest.approx(gaps.std(ddof=1).tolist())
    ends = f"+{gaps.mean().min():.1f} to +{gaps.mean().max():.1f} points of retention"
    keeps = "At every rate lora_r8 keeps more than full_ft on terrain"
    assert f"{keeps}: {ends} (3 seeds each)." in contrast.sentence
    three = tables.only(dataset="terrain", learning_rate=[1e-5, 1e-4, 1e-3])
    listed = answer("method_contrast", three).sentence
    assert f"{keeps}, in points of retention: +{gaps.mean().iloc[1]:.1f}" in listed
    assert listed.count(" at 1e-") == 3
    assert " at 1e-3 (3 seeds each, mean ± sd)." in listed


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_sentence_is_endless(question: str, tables: StudyTables) -> None:
    words = answer(question, with_many(tables)).words
    longest = max(re.split(r"(?<=\.) (?=[A-ZΔ0-9])", words), key=len)
    assert len(longest) <= 260, longest
    assert all(part.count("; ") <= 1 for part in words.split(". ")), words


def test_a_contrast_says_what_is_left_where_each_rate_counts_once(tables: StudyTables) -> None:
    found = answer("method_contrast", tables)
    rows = found.table[found.table["matching"].eq("learning_rate")]
    rows = rows[rows["metric"].eq("retention_pct")].set_index("dataset")
    (told,) = (one for one in found.remarks if "each rate's mean counts once" in one)
    assert sum("At the same rate" in one for one in found.remarks) == 1  # and no other count of p
    for dataset, row in rows.iterrows():
        assert f"p = {row['p_over_rates']:.3f} for lora_r8 on {dataset} (4 rates)" in told
    assert f"{(rows['p_over_rates'] <= 0.05).sum()} of 2 contrasts have p ≤ 0.05" in told


def test_entropy_is_told_by_its_direction_and_by_its_size(tables: StudyTables) -> None:
    rng = np.random.default_rng(0)
    size = 100 - tables.runs["retention_pct"] + rng.normal(0, 12, len(tables.runs))
    signs = np.where(tables.runs["method"].eq("full_ft"), 1.0, -1.0)
    found = answer("predictors", with_runs(tables, delta_entropy_pct=size * signs))
    rho = found.table[found.table["scope"].eq("overall") & found.table["probe"].eq("final")]
    rho = rho[rho["signal"].eq("delta_entropy_pct")].set_index("form")["rho"]
    written = {form: f"{value:.3f}".replace("-", "−") for form, value in rho.items()}
    (told,) = (one for one in found.remarks if one.startswith("The direction of Δ entropy"))
    assert f"ρ = {written['signed']} [" in told
    assert f"its size has ρ = {written['absolute']} [" in told


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_first_sentence_gives_p_values_of_two_tests_or_impossible_points(
    question: str, tables: StudyTables
) -> None:
    sentence = answer(question, tables).sentence
    assert "p = " not in sentence.replace("Holm p = ", "")
    assert "95 %" not in sentence  # of points, it would end beyond 100


def test_a_method_that_keeps_more_at_some_rates_only_is_told_so(tables: StudyTables) -> None:
    runs = tables.only(dataset="terrain").runs
    is_best = runs["method"].eq("full_ft") & runs["learning_rate"].eq(1e-6)
    mixed = tables.with_runs(runs.assign(retention_pct=runs["retention_pct"].mask(is_best, 120.0)))
    assert "At 3 of 4 rates lora_r8 keeps more" in answer("method_contrast", mixed).sentence


def test_methods_that_keep_the_same_are_told_to_keep_as_much(tables: StudyTables) -> None:
    level = tables.with_runs(tables.only(dataset="terrain").runs.assign(retention_pct=100.0))
    sentence = answer("method_contrast", level).sentence
    assert "At every rate lora_r8 keeps as much as full_ft on terrain" in sentence
    assert "less than" not in sentence


def test_what_an_answer_rests_on_is_counted_in_english(tables: StudyTables) -> None:
    found = answer("method_contrast", tables)
    assert replace(found, num_units=1, unit="pairs of runs").units == "1 pair of runs"
    assert replace(found, num_units=16, unit="cells").units == "16 cells"


def test_a_contrast_at_equal_accuracy_counts_its_seeds(tables: StudyTables) -> None:
    contrast = answer("method_contrast", tables.only(dataset="terrain"))
    row = contrast.table[
        (contrast.table["matching"] == "accuracy") & (contrast.table["metric"] == "retention_pct")
    ].iloc[0]
    wanted = f"lora_r8 keeps {row['difference']:.1f}\u00a0±\u00a0{row['difference_sd']:.1f} points"
    assert f"{wanted} more than full_ft on terrain (3 seeds)" in contrast.sentence
    assert "the mean over 3 accuracies that both reach" in contrast.sentence


def test_a_contrast_that_is_unknown_is_said_to_be_unknown(tables: StudyTables) -> None:
    runs = tables.runs.assign(retention_pct=float("nan"))
    sentence = answer("method_contrast", tables.with_runs(runs)).sentence
    assert "there is no retention to compare" in sentence
    assert "No two methods could be compared at the same accuracy" in sentence


def with_accuracies(tables: StudyTables, by_method: dict[str, list[float]]) -> StudyTables:
    """Every run's accuracy by its method and the place of its rate."""
    rates = sorted(tables.runs["learning_rate"].unique())
    reached = [
        by_method[str(row.method)][rates.index(row.learning_rate)]
        for row in tables.runs.itertuples()
    ]
    return tables.with_runs(tables.runs.assign(test_accuracy_pct=reached))


def test_what_cannot_be_matched_says_what_each_curve_covers(tables: StudyTables) -> None:
    """The ranges 93.0 to 97.2 and 44.9 to 95.5 overlap; up to each one's peak they do not."""
    study = with_accuracies(
        tables, {"full_ft": [96.8, 97.2, 96.0, 93.0], "lora_r8": [44.9, 78.8, 91.7, 95.5]}
    )
    whys = {one.why for one in answer("method_contrast", study).excluded}
    assert (
        "up to the highest test accuracy lora_r8 covers 44.9 to 95.5 and full_ft covers 96.8 to "
        "97.2: no level is common"
    ) in whys


def test_one_rate_up_to_the_peak_is_said_to_be_no_curve(tables: StudyTables) -> None:
    study = with_accuracies(
        tables, {"full_ft": [97.2, 96.8, 96.0, 93.0], "lora_r8": [44.9, 78.8, 91.7, 95.5]}
    )
    whys = {one.why for one in answer("method_contrast", study).excluded}
    why = "up to the highest test accuracy full_ft has runs of one rate only, which is no curve"
    assert why in whys


def test_a_spread_that_would_be_rounded_away_is_not_written_as_certainty() -> None:
    assert spread_text(5.02, 0.03, 1) == "5.0\u00a0±\u00a0<0.1"
    assert spread_text(5.02, 0.31, 1) == "5.0\u00a0±\u00a00.3"
    assert spread_text(5.0, 0.0, 1) == "5.0\u00a0±\u00a00.0"
    assert spread_text(5.0, math.nan, 1) == "5.0"


def test_the_frontier_says_how_many_seeds_its_cells_have(tables: StudyTables) -> None:
    assert re.search(r"retention [^)]*%, \d seeds\)", answer("frontier", tables).sentence)


def test_retention_followed_on_other_images_is_noticed(tables: StudyTables) -> None:
    runs = tables.runs
    ends = runs[["run_id", "retention_pct"]].assign(epoch=2)
    starts = ends.assign(epoch=1, retention_pct=99.0)
    history = pd.concat([starts, ends])
    assert not is_followed_on_other_images(history, runs)
    others = history.assign(retention_pct=history["retention_pct"] - 1.3)
    assert is_followed_on_other_images(others, runs)
    assert not is_followed_on_other_images(history.drop(columns="retention_pct"), runs)


def test_backbones_are_named_and_counted_apart(tables: StudyTables) -> None:
    runs = tables.only(dataset="stars").runs
    other = runs.assign(model="other", run_id=runs["run_id"] + "o")
    both = StudyTables(pd.concat([runs, other], ignore_index=True), tables.history, tables.layers)
    dose = answer("dose_response", both)
    assert dose.sentence.startswith("mini: As the learning rate rises, retention falls in 2")
    assert " other: As the learning rate rises, retention falls in 2" in dose.sentence
    assert "leakfree" not in dose.sentence
    assert dose.remarks[0] == "2 settings are answered apart; they differ in model."


def test_tests_that_could_not_be_made_are_not_counted_as_failed(tables: StudyTables) -> None:
    one_seed = tables.only(seed=[7], learning_rate=[1e-6, 1e-5, 1e-4])
    dose = answer("dose_response", one_seed)
    assert not any("tests have" in remark for remark in dose.remarks)
    assert any("too few rates and seeds could never reach" in remark for remark in dose.remarks)
    assert "4 of 4 tests have Holm p ≤ 0.05." in answer("dose_response", tables).words


def test_a_correlation_says_how_many_runs_and_cells_it_is_over(tables: StudyTables) -> None:
    pooled = answer("predictors", tables).sentence
    assert "over 48 runs in 16 cells" in pooled
    assert "pooled over stars and terrain" in pooled
    assert "pooled" not in answer("predictors", tables.only(dataset="terrain")).sentence


def test_signals_that_tie_are_named_together(tables: StudyTables) -> None:
    runs = tables.runs.assign(cka_debiased=tables.runs["cka"])
    found = answer("predictors", tables.with_runs(runs), num_resamples=50).sentence
    assert "with CKA, debiased CKA" in found
    assert " alike (|ρ| = " in found


def test_signals_that_cannot_be_told_apart_are_not_ranked(tables: StudyTables) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, len(tables.runs))
    runs = tables.runs.assign(cka_debiased=tables.runs["cka"] + noise)
    kept = runs[["run_id", "dataset", "method", "learning_rate", "seed", "status", "model",
                 "protocol", "transfer", "retention_pct", "cka", "cka_debiased"]]  # fmt: skip
    bare = StudyTables(
        kept.assign(retention_pct=kept["retention_pct"] + 20 * np.roll(noise, 1) / 0.05),
        tables.history.iloc[:0],
        tables.layers,
    )
    found = answer("predictors", bare, num_resamples=200).sentence
    assert " Not to be told apart from it: debiased CKA." in found


def test_the_only_signal_is_said_to_be_the_only_one(tables: StudyTables) -> None:
    kept = tables.runs.drop(columns=["cka", "embedding_drift", "weight_drift", "train_loss"])
    bare = StudyTables(kept, tables.history.iloc[:0], tables.layers)
    assert "with the only signal recorded, " in answer("predictors", bare).sentence


def test_under_six_cells_no_signal_is_named(tables: StudyTables) -> None:
    few = tables.only(dataset="terrain", learning_rate=[1e-6, 1e-5])
    found = answer("predictors", few)
    assert found.sentence.startswith("4 cells are too few to say which signal")
    assert "CKA" not in found.sentence
    assert found.table["rho"].notna().any()


def test_a_rate_that_does_not_vary_is_no_common_cause(tables: StudyTables) -> None:
    varied = answer("predictors", tables, num_resamples=2)
    assert varied.remarks[-1] == (
        "These are associations, the learning rate among their common causes."
    )
    fixed = answer("predictors", with_runs(tables, learning_rate=1e-4, epochs=tables.runs.index))
    assert fixed.remarks[-1] == "These are associations."


def test_the_frontier_names_the_most_accurate_cell_that_keeps_its_ability(
    tables: StudyTables,
) -> None:
    found = answer("frontier", tables.only(dataset="terrain"))
    table = found.table
    kept = table[table["retention_pct"] >= 90].sort_values("test_accuracy_pct").iloc[-1]
    assert (
        f"Of those whose every run keeps at least 90 % it is {kept['method']} at 1e-5"
        in found.sentence
    )
    assert f"{kept['retention_pct']:.1f}\u00a0±\u00a0" in found.sentence
    single = answer("frontier", tables.only(seed=[7], dataset="terrain"))
    assert "8 cells of them hold one run, so their place is uncertain" in single.words


def test_what_is_left_out_is_not_added_up(tables: StudyTables) -> None:
    without_history = StudyTables(tables.runs, tables.history.iloc[:0], tables.layers)
    found = answer("predictors", without_history)
    assert found.rests_on == "Rests on 16 cells; what was left out is listed under Statistics."


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_columns_that_answer_come_first(question: str, tables: StudyTables) -> None:
    found: Answer = answer(question, tables)
    wanted = {"predictors": "rho", "dose_response": "rho", "method_contrast": "difference"}
    if question in wanted:
        assert list(found.table.columns).index(wanted[question]) < 5
