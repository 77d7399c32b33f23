"""The question `interventions`: tests against scipy and statsmodels, words against the data."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from driftscope.analysis import Answer, StudyTables, answer
from driftscope.stats.groups import equivalence

SEEDS = (7, 11, 19, 42, 123)
# What each does to Δ entropy, accuracy, weight drift (as a factor) and retention.
DONE = {
    "none": (0.0, 0.0, 1.0, 0.0),
    "harmless": (8.0, 0.0, 1.0, 0.0),
    "harmful": (-8.0, 0.0, 1.0, -9.0),
    "confounded": (8.0, 0.0, 0.5, 12.0),
    "idle": (0.0, 0.0, 1.0, 0.0),
}


def tables(datasets: tuple[str, ...] = ("terrain", "stars")) -> StudyTables:
    rng = np.random.default_rng(4)
    rows = []
    for dataset, seed in product(datasets, SEEDS):
        level = rng.normal(0, 3, 4)
        for name, (entropy, accuracy, factor, retention) in DONE.items():
            noise = rng.normal(0, 0.3, 4)
            rows.append(
                {
                    "run_id": f"{dataset}-{seed}-{name}",
                    "status": "done",
                    "model": "mini",
                    "protocol": "leakfree",
                    "transfer": "mosaic",
                    "dataset": dataset,
                    "method": "full_ft",
                    "learning_rate": 1e-3,
                    "seed": seed,
                    "regularizer": name,
                    "delta_entropy_pct": level[0] + entropy + noise[0],
                    "test_accuracy_pct": 90 + level[1] + accuracy + noise[1],
                    "weight_drift": factor * 0.05 * np.exp(0.1 * level[2] + 0.01 * noise[2]),
                    "retention_pct": 50 + level[3] + retention + noise[3],
                }
            )
    return StudyTables(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame())


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer("interventions", tables())


def sides(found: StudyTables, dataset: str, name: str, column: str) -> tuple[np.ndarray, ...]:
    runs = found.runs[found.runs["dataset"] == dataset].set_index("seed")
    return tuple(
        runs.loc[runs["regularizer"] == one, column].loc[list(SEEDS)].to_numpy()
        for one in (name, "none")
    )


def test_every_row_is_the_paired_test_of_scipy_and_the_equivalence_of_statsmodels(
    found: Answer,
) -> None:
    rows = found.table.set_index(["dataset", "regularizer"])
    assert len(rows) == 2 * 4
    for (dataset, name), row in rows.iterrows():
        kept = sides(tables(), dataset, name, "retention_pct")
        reference = scipy_stats.ttest_rel(*kept)
        interval = reference.confidence_interval(0.95)
        told = (row["t"], row["p_value"], row["low"], row["high"])
        assert told == pytest.approx((*reference, interval.low, interval.high))
        assert row["p_equivalence"] == pytest.approx(ttost_paired(*kept, -2, 2)[0])
        flips = np.array(list(product((1, -1), repeat=5))) @ (kept[0] - kept[1])
        extreme = np.abs(flips) >= abs((kept[0] - kept[1]).sum()) - 1e-9
        assert row["p_sign_flip"] == pytest.approx(extreme.mean())
        assert row["p_sign_flip_floor"] == pytest.approx(2 / 2**5)
        drifts = sides(tables(), dataset, name, "weight_drift")
        assert row["weight_drift_change_pct"] == pytest.approx(
            100 * (drifts[0] / drifts[1] - 1).mean()
        )
    holm = multipletests(rows["p_value"], method="holm")[1]
    assert rows["p_holm"].tolist() == pytest.approx(holm.tolist())


def test_each_intervention_is_told_by_what_it_does_and_what_it_is_confounded_with(
    found: Answer,
) -> None:
    said = found.table.groupby("regularizer")["answer"].unique().map(list).to_dict()
    assert said == {
        "harmless": ["retention stays"],
        "harmful": ["retention falls"],
        "confounded": ["retention rises; weight drift moved too"],
        "idle": ["retention stays; attention did not move"],
    }
    assert found.sentence.startswith("6 of 8 comparisons move attention entropy by more than 2 ")
    assert "Retention falls in 2 of these: harmful on stars" in found.sentence
    assert "Retention stays within 2 points in 2 of these: harmless on stars" in found.sentence
    assert found.sentence.endswith(" The other 2 move accuracy or weight drift too.")
    assert "cannot go below 0.0625" in found.words
    pooled = found.details["pooled"].set_index("regularizer")
    assert pooled.loc["harmful", "num_pairs"] == 10
    assert pooled.loc["harmful", "p_sign_flip_floor"] == pytest.approx(2 / 2**10)


def test_the_chart_tells_what_moved_attention_alone_from_the_rest(found: Answer) -> None:
    names = [chart.name for chart in found.charts]
    assert names == ["interventions_stars", "interventions_terrain"]
    for chart in found.charts:
        shown = {
            str(name).split(" ")[1]: (one.name, length)
            for one in chart.flat[0].marks
            for name, length in zip(one.y, one.x, strict=True)
        }
        assert {name: kind for name, (kind, _) in shown.items()} == {
            "harmless": "attention alone moved",
            "harmful": "attention alone moved",
            "confounded": "more than attention moved",
            "idle": "attention did not move",
        }
        assert shown["harmful"][1] == pytest.approx(-9, abs=1)


def test_what_has_no_twin_or_one_seed_is_left_out_and_said() -> None:
    whole = tables(("terrain",))
    lonely = whole.with_runs(whole.runs[whole.runs["regularizer"] != "none"])
    assert "two seeds" in answer("interventions", lonely).sentence
    plain = whole.with_runs(whole.runs[whole.runs["regularizer"] == "none"])
    assert "no run names an intervention" in answer("interventions", plain).sentence
    short = whole.runs[(whole.runs["regularizer"] != "harmful") | whole.runs["seed"].ne(7)]
    found = answer("interventions", whole.with_runs(short)).table.set_index("regularizer")
    assert found["num_pairs"].to_dict() == {
        "harmless": 5, "harmful": 4, "confounded": 5, "idle": 5,
    }  # fmt: skip
    assert "pooled" not in answer("interventions", whole).details


@pytest.mark.parametrize(
    ("gap", "said"),
    [(0.0, "retention stays"), (1.5, "retention stays"), (3.0, "retention rises"),
     (-3.0, "retention falls")],
)  # fmt: skip
def test_retention_that_differs_by_the_same_in_every_pair_is_told(gap: float, said: str) -> None:
    whole = tables(("terrain",))
    kept = 90.0 + gap * (whole.runs["regularizer"] != "none")
    found = answer("interventions", whole.with_runs(whole.runs.assign(retention_pct=kept)))
    assert found.is_answered
    answers = found.table.set_index("regularizer")["answer"]
    assert answers["harmless"] == said
    assert answers["confounded"] == f"{said}; weight drift moved too"
    within = " within 2 points" if said.endswith("stays") else ""
    assert f"{said.capitalize()}{within} in 2 of these: harmful on terrain" in found.sentence
    assert "cannot say" not in found.sentence
    shown = {0.0: "0.0", 1.5: "+1.5", 3.0: "+3.0", -3.0: "−3.0"}[gap]
    assert f"at 1e-3: {shown} points in every pair" in found.sentence


def test_an_intervention_at_other_epochs_is_another_row() -> None:
    """What falls at 3 epochs and rises at 12 would be no effect in one row of both."""
    whole = tables(("terrain",))
    few = whole.runs[whole.runs["regularizer"].isin(["none", "harmful"])].assign(epochs=3)
    rise = 18 * few["regularizer"].eq("harmful")
    many = few.assign(
        epochs=12, run_id="long_" + few["run_id"], retention_pct=few["retention_pct"] + rise
    )
    both = answer("interventions", whole.with_runs(pd.concat([few, many])))
    assert both.table["method"].tolist() == ["full_ft, epochs 3", "full_ft, epochs 12"]
    assert both.table["answer"].tolist() == ["retention falls", "retention rises"]
    for part, row in zip((few, many), both.table.to_dict("records"), strict=True):
        (alone,) = answer("interventions", whole.with_runs(part)).table.to_dict("records")
        for name in ("num_pairs", "difference", "low", "high", "p_value"):
            assert row[name] == pytest.approx(alone[name]), name
    assert len(both.family[0]["members"]) == 2
    assert "for full_ft, epochs 3 at 1e-3: −" in both.sentence


def test_all_targets_are_pooled_only_where_all_have_the_comparison() -> None:
    whole = tables()
    lacks = whole.runs["dataset"].eq("stars") & whole.runs["regularizer"].eq("harmful")
    pooled = answer("interventions", whole.with_runs(whole.runs[~lacks])).details["pooled"]
    assert sorted(pooled["regularizer"]) == ["confounded", "harmless", "idle"]


def test_targets_are_pooled_by_equal_options_and_not_by_equal_names() -> None:
    """One target at 3 epochs, the other at 3 and 12: what is at 3 epochs is pooled."""
    runs = tables().runs.assign(epochs=3)
    long = runs[runs["dataset"] == "stars"]
    long = long.assign(epochs=12, run_id="long_" + long["run_id"])
    pooled = answer("interventions", tables().with_runs(pd.concat([runs, long]))).details["pooled"]
    short = answer("interventions", tables()).details["pooled"]
    assert pooled["method"].unique().tolist() == ["full_ft"]
    pd.testing.assert_frame_equal(pooled, short)
    # another method's epochs do not say which of this one's are equal
    both = pd.concat([runs, long, long.assign(dataset="terrain", run_id="t_" + long["run_id"])])
    found = answer("interventions", tables().with_runs(both)).details["pooled"]
    methods = ["full_ft, epochs 3", "full_ft, epochs 12"]
    assert list(dict.fromkeys(found["method"])) == methods


def test_what_each_target_holds_at_a_value_of_its_own_is_told_where_targets_are_pooled() -> None:
    whole = tables()
    epochs = whole.runs["dataset"].map({"terrain": 20, "stars": 30})
    found = answer("interventions", whole.with_runs(whole.runs.assign(epochs=epochs)))
    assert found.details["pooled"]["num_pairs"].eq(10).all()
    said = "pooled although they differ in full_ft: epochs 30 on stars and 20 on terrain."
    assert said in found.words


@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_equivalence_is_that_of_statsmodels_also_about_a_mean_of_zero(margin: float) -> None:
    a, b = np.array([1.0, -1.0, 0.4, -0.4, 2.0]), np.zeros(5)
    for shift in (0.0, -a.mean()):
        ours = equivalence(a + shift, b, margin=margin)
        assert ours.p_value == pytest.approx(ttost_paired(a + shift, b, -margin, margin)[0])
    assert np.isnan(equivalence(b, b, margin=margin).p_value)
