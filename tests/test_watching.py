"""What to watch and when to stop, on trajectories whose answers are known by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from driftscope.analysis import StudyTables, answer
from driftscope.analysis.answer_charts import answer_charts
from driftscope.analysis.answer_tables import answer_tables
from driftscope.analysis.onset import _ranked

STEPS = (1, 2, 4, 8, 16)
NO_TABLE = pd.DataFrame()
SCORE, IMAGES = 80.0, 400
LEAST = 100 * scipy_stats.binomtest(320, 400).proportion_ci(method="wilson").low / 0.8
"""Below this, in percent, retention has left the pretrained score's interval."""


def study(
    runs: dict[tuple[str, float, int], dict[str, list[float]]], **more: object
) -> StudyTables:
    """Runs by dataset, rate and seed, each with its values at `STEPS`."""
    rows, history, subsets = [], [], []
    for (dataset, rate, seed), values in runs.items():
        name = f"{dataset}-{rate}-{seed}"
        keys = {"run_id": name, "dataset": dataset, "method": "full_ft", "learning_rate": rate,
                "seed": seed}  # fmt: skip
        rows.append(
            {**keys, "model": "mini", "protocol": "leakfree", "transfer": "mosaic",
             "pretrained_zero_shot_pct": SCORE, "zero_shot_num_images": IMAGES, **more}
        )  # fmt: skip
        for at, step in enumerate(STEPS):
            kind = "epoch" if step in (4, 16) else "probe"
            read = {key: one[at] for key, one in values.items()}
            history.append({**keys, "kind": kind, "step": step, "num_images": 200, **read})
        subsets += _subsets(name)
    return StudyTables(
        pd.DataFrame(rows), pd.DataFrame(history), NO_TABLE, subsets=pd.DataFrame(subsets)
    )


PRETRAINED_ENTROPIES = (2.0, 2.02, 1.98, 2.01, 1.99)


def _subsets(run: str) -> list[dict[str, object]]:
    """Five fifths of the probe set, and its half, as a run records them of the adapted model."""
    found = []
    sizes = [40] * 5 + [100]
    for number, (size, level) in enumerate(zip(sizes, (*PRETRAINED_ENTROPIES, 2.0), strict=True)):
        change = 3.0 + number
        for signal, value in (
            ("entropy", level * (1 + change / 100)),
            ("delta_entropy_pct", change),
        ):
            found.append(
                {"run_id": run, "subset": number, "num_images": size, "signal": signal,
                 "value": value}
            )  # fmt: skip
    return found


QUIET = {
    "retention_pct": [100.0, 99.0, 99.5, 99.0, 98.0],
    "cka": [1.0, 0.99, 0.98, 0.97, 0.96],
    "embedding_drift": [0.0, 0.01, 0.02, 0.03, 0.05],
    "delta_entropy_pct": [0.0, -0.1, 0.2, 0.3, 0.4],
    "val_accuracy_pct": [10.0, 20.0, 30.0, 40.0, 50.0],
}
"""Loses nothing; CKA goes 0.04 from one, embedding drift to 0.05."""

LOSING = {
    "retention_pct": [100.0, 99.0, 85.0, 60.0, 40.0],
    "cka": [0.99, 0.95, 0.9, 0.8, 0.7],
    "embedding_drift": [0.01, 0.04, 0.05, 0.2, 0.4],
    "delta_entropy_pct": [0.0, 0.4, -0.5, -1.0, -3.0],
    "val_accuracy_pct": [15.0, 30.0, 60.0, 85.0, 80.0],
}
"""Retention leaves at step 4; CKA passes 0.04 at step 2, embedding drift 0.05 at step 8."""

RATES = (1e-4, 1e-3)


def both_datasets() -> StudyTables:
    """Three seeds of a quiet and of a losing cell on both datasets."""
    return study(
        {
            (dataset, rate, seed): QUIET if rate == RATES[0] else LOSING
            for dataset, rate, seed in itertools.product(("stars", "terrain"), RATES, (1, 2, 3))
        }
    )


@pytest.fixture(scope="module")
def warned() -> pd.DataFrame:
    return answer("onset", both_datasets()).table.set_index(["band", "scope", "signal"])


def test_a_signal_leaves_its_band_before_with_or_after_retention(warned: pd.DataFrame) -> None:
    assert 85.0 < LEAST < 98.0
    cka = warned.loc["quiet runs", "overall", "cka"]
    assert (cka["num_lost"], cka["num_before"], cka["num_false_alarms"]) == (6, 6, 0)
    assert cka["points_to_come"] == pytest.approx(99 - 40)
    assert cka["damage_points"] == 60
    drift = warned.loc["quiet runs", "overall", "embedding_drift"]
    assert (drift["num_before"], drift["num_same_probe"], drift["num_later"]) == (0, 0, 6)
    assert drift["points_to_come"] == pytest.approx(60 - 40)
    entropy = warned.loc["quiet runs", "overall", "delta_entropy_pct"]
    assert (entropy["num_same_probe"], entropy["num_lost"]) == (6, 6)
    assert warned.loc["quiet runs", "stars", "cka"]["band_width"] == pytest.approx(0.04)


def test_the_sentence_on_warnings_is_understood_by_itself() -> None:
    told = answer("onset", both_datasets()).sentence
    assert (
        "Say that a signal warns once it goes further than in any run of another dataset that lost "
        "nothing. The earliest is CKA: of the 60.0 points of retention lost on average, 59.0 were "
        "still to come when it warned. It warned before retention fell in 6 of 6 runs, at the same "
        "probe in 0, later in 0 and never in 0. Of "
    ) in told


def test_warnings_of_which_nothing_was_to_come_have_no_picture_but_a_sentence() -> None:
    tables = both_datasets()
    found = answer("onset", tables)
    assert [one.name for one in answer_charts(found, tables.runs)] == ["onset"]
    zero = replace(found, table=found.table.assign(points_to_come=0.0))
    assert answer_charts(zero, tables.runs) == []


def test_where_all_was_lost_at_the_warning_no_negative_points_are_to_come() -> None:
    row = {
        "signal": "cka", "scope": "overall", "points_to_come": -1.1, "damage_points": 82.5,
        "num_before": 0, "num_lost": 4, "num_same_probe": 1, "num_later": 3, "num_never": 0,
        "num_quiet": 2, "num_false_alarms": 0,
    }  # fmt: skip
    assert _ranked(pd.DataFrame([row])).startswith(
        "CKA: when it warned, nothing of the 82.5 points of retention lost on average was still to "
        "come. It warned before retention fell in 0 of 4 runs"
    )


def test_a_signal_that_never_warned_is_not_said_to_have_warned() -> None:
    still = {**LOSING, "cka": QUIET["cka"], "embedding_drift": QUIET["embedding_drift"]}
    cells = itertools.product(("stars", "terrain"), (1e-4, *np.arange(1, 9) * 1e-3), (1, 2))
    runs = {cell: QUIET if cell[1] == RATES[0] else still for cell in cells}
    found = answer("onset", study(runs))
    assert "The earliest is Δ entropy: of the" in found.sentence
    rows = found.table[found.table["band"].eq("quiet runs") & found.table["scope"].eq("overall")]
    silent = rows[rows["signal"] != "delta_entropy_pct"]
    assert (silent["num_never"] == 32).all()
    assert _ranked(silent) == "None of CKA and embedding drift warned in any of 32 runs"
    assert _ranked(silent[:1]) == "CKA warned in none of 32 runs"
    at_the_end = silent[:1].assign(num_never=31, num_later=1, signal="gini")
    told = _ranked(pd.concat([silent, at_the_end]))
    assert told.startswith("The earliest is Gini: when it warned, nothing of the 60.0 points")
    (late,) = (one for one in found.remarks if one.startswith("By Holm p ≤ 0.05 these leave"))
    assert "leave after retention or never: " in late
    assert "CKA (quiet runs) and embedding drift (quiet runs)" in late


def test_the_band_of_images_is_that_of_the_pretrained_readings_mean(warned: pd.DataFrame) -> None:
    low, high = scipy_stats.t.interval(
        0.95, 4, loc=0, scale=np.std(PRETRAINED_ENTROPIES, ddof=1) / np.sqrt(5)
    )
    half_pct = 100 * (high - low) / 2 / np.mean(PRETRAINED_ENTROPIES)
    row = warned.loc["images", "stars", "delta_entropy_pct"]
    assert row["band_width"] == pytest.approx(half_pct)
    assert 0.5 < half_pct < 1.0  # so that |-1.0| at step 8 is the first beyond it
    assert (row["num_later"], row["points_to_come"]) == (3, 60 - 40)
    assert ("images", "stars", "cka") not in warned.index


def test_a_cell_is_the_unit_of_the_sign_flips_and_a_silent_signal_counts_as_late() -> None:
    silent = {**LOSING, "cka": QUIET["cka"]}
    runs = {("stars", 1e-4, seed): QUIET for seed in (1, 2)}
    runs |= {("terrain", 1e-4, seed): QUIET for seed in (1, 2)}
    runs |= {("terrain", rate, 1): LOSING for rate in (1e-3, 2e-3, 3e-3)}
    runs |= {("terrain", 4e-3, seed): one for seed, one in ((1, silent), (2, LOSING))}
    found = answer("onset", study(runs))
    test = found.details["tests"].set_index(["band", "signal"]).loc["quiet runs", "cka"]
    assert test["score"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    exact = scipy_stats.permutation_test(
        ([1.0, 1.0, 1.0, 0.0],), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert (test["num_cells"], test["p_value"]) == (4, pytest.approx(exact.pvalue))
    row = found.table.set_index(["band", "scope", "signal"]).loc["quiet runs", "overall", "cka"]
    assert (row["num_before"], row["num_never"], row["num_lost"]) == (4, 1, 5)
    cells = [59.0, 59.0, 59.0, 59.0 / 2]
    assert row["points_to_come"] == pytest.approx(np.mean(cells))
    low, high = scipy_stats.t.interval(0.95, 3, loc=np.mean(cells), scale=scipy_stats.sem(cells))
    assert (row["to_come_low"], row["to_come_high"]) == pytest.approx((low, high))


def test_cells_of_unlike_numbers_of_lost_seeds_weigh_alike_in_mean_and_interval() -> None:
    less = {**LOSING, "retention_pct": [100.0, 99.0, 85.0, 80.0, 70.0]}
    runs = {("stars", 1e-4, seed): QUIET for seed in (1, 2)}
    runs |= {("terrain", 1e-3, seed): LOSING for seed in (1, 2, 3)}
    runs |= {("terrain", 2e-3, 1): less}
    table = answer("onset", study(runs)).table.set_index(["band", "scope", "signal"])
    row = table.loc["quiet runs", "terrain", "cka"]
    to_come = [99.0 - 40, 99.0 - 70]
    low, high = scipy_stats.t.interval(
        0.95, 1, loc=np.mean(to_come), scale=scipy_stats.sem(to_come)
    )
    told = (row["points_to_come"], row["to_come_low"], row["to_come_high"])
    assert told == pytest.approx((np.mean(to_come), low, high))
    assert row["damage_points"] == pytest.approx(np.mean([60, 30]))


def test_onset_says_what_is_missing_and_a_loss_in_every_run_leaves_no_quiet_band() -> None:
    tables = both_datasets()
    unknown = answer("onset", tables.with_runs(tables.runs.assign(zero_shot_num_images=np.nan)))
    assert not unknown.is_answered
    assert "is unknown" in str(unknown.excluded[0])
    losing = answer("onset", tables.with_runs(tables.runs[tables.runs["learning_rate"] > 5e-4]))
    assert set(losing.table["band"]) == {"images"}
    alone = tables.with_runs(tables.runs[tables.runs["dataset"] == "stars"])
    bare = StudyTables(alone.runs, alone.history, alone.layers)
    assert "no signal has a band" in answer("onset", bare).sentence


def test_a_threshold_is_chosen_on_the_other_dataset_and_applied_here() -> None:
    runs = {("terrain", rate, 1): LOSING for rate in RATES} | {("stars", 1e-4, 1): QUIET}
    shifted = {**LOSING, "cka": [0.99, 0.96, 0.9, 0.8, 0.7]}
    runs |= {("stars", rate, 2): shifted for rate in (1e-3, 2e-3)}
    table = answer("stopping", study(runs)).table.set_index(["dataset", "rule"])
    # on stars a threshold from 0.01 to below 0.04 stops the losing runs at step 2, the last that
    # keeps 90 %; the quiet run goes on the longest by 0.03, which it crosses at the last step
    oracle, best = table.loc["terrain", "oracle"], table.loc["terrain", "best validation accuracy"]
    assert (oracle["val_accuracy_pct"], oracle["retention_pct"]) == (30.0, 99.0)
    assert (best["val_accuracy_pct"], best["retention_pct"]) == (80.0, 40.0)  # of the epochs' ends
    assert (table.loc["terrain", "last"]["num_kept"], oracle["num_kept"]) == (0, 2)
    cka = table.loc["terrain", "cka"]
    assert cka["threshold"] == pytest.approx(0.03)
    assert (cka["val_accuracy_pct"], cka["num_kept"], cka["num_triggered"]) == (30.0, 2, 2)
    assert cka["short_points"] == 0
    # on terrain the last that stops at step 2 is 0.01, by which the quiet run stops at step 4
    quiet = table.loc["stars", "cka"]
    assert quiet["threshold"] == pytest.approx(0.01)
    assert quiet["val_accuracy_pct"] == pytest.approx((30 + 30 + 30) / 3)
    assert quiet["short_points"] == pytest.approx(20 / 3)


def test_a_threshold_that_is_never_crossed_keeps_the_last_probe_and_is_told() -> None:
    far = {**LOSING, "embedding_drift": [0.5, 0.6, 0.7, 0.8, 0.9]}
    runs = {("stars", 1e-4, 1): QUIET, ("stars", 1e-4, 2): QUIET}
    runs |= {("terrain", rate, 1): far for rate in RATES}
    found = answer("stopping", study(runs))
    row = found.table.set_index(["dataset", "rule"]).loc["stars", "embedding_drift"]
    assert (row["num_triggered"], row["val_accuracy_pct"]) == (0, 50.0)
    assert "On stars the threshold of embedding drift is never crossed." in found.remarks
    assert len(found.charts) == 2
    assert answer_tables(found)[0].title == "Had training stopped at a warning"
    alone = study({("stars", 1e-4, 1): QUIET, ("stars", 1e-3, 1): LOSING})
    assert "there is only one" in answer("stopping", alone).sentence


def test_rules_that_keep_the_same_are_named_together() -> None:
    found = answer("stopping", both_datasets())
    alike = (
        "by CKA, embedding drift and Δ entropy the budget is kept in 6 of 6 runs (accuracy 40.0 %, "
        "retention 98.5 %)."
    )
    assert found.sentence.count(alike) == 2
