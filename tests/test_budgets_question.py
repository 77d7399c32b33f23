"""The question `budgets`: which way learns most at a budget, on numbers worked out by hand."""

import math
from typing import Any

import pandas as pd
import pytest

from driftscope.analysis import Answer, StudyTables, answer
from driftscope.analysis.answer_tables import answer_tables
from driftscope.analysis.budget_words import Gap
from driftscope.config import parse_run_spec

NO_TABLE = pd.DataFrame()
ACCURACY, RETENTION = "test_accuracy_pct", "retention_pct"

Pair = tuple[float, float]
"""Accuracy and retention in percent."""


class Made:
    """A study under way: runs of seeds 1, 2, … with their looks and rescues."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.rescues: list[dict[str, Any]] = []

    def cell(
        self,
        *read: Pair,
        method: str = "full_ft",
        rate: float = 1e-3,
        budget: float | None = None,
        penalty: str = "none",
        dataset: str = "terrain",
        **more: object,
    ) -> list[str]:
        """One run a pair, with the seeds 1, 2, …; returns their ids."""
        names = []
        label = penalty if budget is None else f"budget_{budget:g}"
        for seed, (accuracy, retention) in enumerate(read, start=1):
            names.append(f"{dataset}-{method}-{rate}-{label}-{seed}")
            self.runs.append(
                {"run_id": names[-1], "dataset": dataset, "method": method, "learning_rate": rate,
                 "seed": seed, "regularizer": label, "budget_pct": budget, "model": "mini",
                 "protocol": "leakfree", "transfer": "mosaic", ACCURACY: accuracy,
                 "val_accuracy_pct": accuracy, RETENTION: retention, "test_num_images": 1000,
                 **more}
            )  # fmt: skip
        return names

    def looks(self, run: str, *seen: tuple[float, float, float | None]) -> None:
        """Validation accuracy, measured retention and lower end of the estimate at each epoch."""
        for epoch, (accuracy, retention, low) in enumerate(seen, start=1):
            self.history.append(
                {"run_id": run, "kind": "epoch", "epoch": epoch, "step": 10 * epoch,
                 "val_accuracy_pct": accuracy, RETENTION: retention, "low_90_pct": low,
                 "estimated_retention_pct": None if low is None else low + 4}
            )  # fmt: skip

    def rescue(self, run: str, way: str, budget: float | None, read: Pair) -> None:
        """What a way of a rescue keeps of a run at a budget; of an end, without one."""
        self.rescues.append(
            {"run_id": run, "way": way, "budget_pct": budget, "refitted_accuracy_pct": read[0],
             RETENTION: read[1], "test_num_images": 400}
        )  # fmt: skip

    @property
    def tables(self) -> StudyTables:
        return StudyTables(
            pd.DataFrame(self.runs), pd.DataFrame(self.history), NO_TABLE,
            rescues=pd.DataFrame(self.rescues),
        )  # fmt: skip

    @property
    def answer(self) -> Answer:
        return answer("budgets", self.tables)


def row_of(found: Answer, way: str, budget: float = 90, **columns: object) -> dict[str, Any]:
    """The one row of a way at a budget."""
    table = found.table[found.table["way"].eq(way) & found.table["budget_pct"].eq(budget)]
    for name, value in columns.items():
        table = table[table[name].eq(value)]
    (row,) = table.to_dict("records")
    return row


def a_small_study() -> Made:
    """One dataset, two seeds: a budget of 90, two plain rates, two weights, a probe, a rescue."""
    made = Made()
    made.cell((95, 93), (97, 95), budget=90)
    made.cell((94, 99), (94, 97), budget=90, rate=3e-4)
    plain = made.cell((96, 40), (98, 50))
    slow = made.cell((60, 91), (62, 95), rate=1e-4)
    made.cell((90, 95), (92, 97), penalty="l2_sp_1")
    made.cell((95, 85), (95, 95), penalty="l2_sp_0.1")  # keeps it in the mean, one run does not
    made.cell((80, 100), (80, 100), method="linear_probe")
    made.looks(plain[0], (50, 96, 92), (70, 88, 80), (96, 40, 91))  # never looked at after the fall
    made.looks(plain[1], (54, 94, 91), (74, 92, 90), (98, 50, 30))  # 90 keeps 90
    made.looks(slow[0], (30, 99, 95), (60, 91, 90))
    made.looks(slow[1], (32, 99, 95), (62, 95, 92))
    for run, accuracy in zip(plain, (93, 96), strict=True):
        made.rescue(run, "search", 90, (accuracy, 94))
        made.rescue(run, "wise", 90, (accuracy - 2, 89.9))
        made.rescue(run, "pretrained", None, (81, 100))
        made.rescue(run, "adapted", None, (97, 45))
    return made


@pytest.fixture(scope="module")
def found() -> Answer:
    return a_small_study().answer


def test_every_training_under_the_budget_has_a_row(found: Answer) -> None:
    fast = row_of(found, "training under the budget", learning_rate=1e-3)
    assert (fast[ACCURACY], fast[RETENTION]) == (96, 94)
    assert fast[f"{ACCURACY}_sd"] == fast[f"{RETENTION}_sd"] == pytest.approx(math.sqrt(2))
    assert (fast["lowest_retention_pct"], fast["num_kept"], fast["num_runs"]) == (93, 2, 2)
    slow = row_of(found, "training under the budget", learning_rate=3e-4)
    assert (slow[ACCURACY], slow[RETENTION], slow["is_kept"]) == (94, 98, True)


def test_of_each_kind_without_a_budget_the_best_that_keeps_it_in_the_mean_is_taken(
    found: Answer,
) -> None:
    way = "training without a budget"
    plain = row_of(found, way, method="full_ft")
    assert (plain["learning_rate"], plain[ACCURACY], plain[RETENTION]) == (1e-4, 61, 93)
    penalty = row_of(found, way, method="full_ft, l2_sp_0.1")  # not l2_sp_1, which is less accurate
    assert (penalty[ACCURACY], penalty[RETENTION]) == (95, 90)
    assert (penalty["num_kept"], penalty["num_runs"], penalty["is_kept"]) == (1, 2, True)
    assert penalty["lowest_retention_pct"] == 85
    assert len(found.table[found.table["way"].eq(way)]) == 2


def test_a_rescue_has_the_accuracy_of_its_new_classifier_and_the_measured_retention(
    found: Answer,
) -> None:
    search = row_of(found, "rescue by search")
    assert (search[ACCURACY], search[RETENTION]) == (94.5, 94)
    assert (search["method"], search["learning_rate"]) == ("full_ft", 1e-3)
    assert search["accuracy_on"] == "test images, classifier fitted anew"
    wise = row_of(found, "rescue by wise")  # 89.9 % is under the budget
    assert not wise["is_kept"]
    assert math.isnan(wise[ACCURACY])
    assert math.isnan(wise[f"{ACCURACY}_sd"])
    assert (wise[RETENTION], wise["num_kept"]) == (pytest.approx(89.9), 0)
    assert any("read on 400 test images, that of runs on 1,000" in one for one in found.remarks)


def test_a_rescues_linear_probe_stands_beside_the_one_that_was_trained(found: Answer) -> None:
    fitted = row_of(found, "linear probe", method="untouched model")
    assert (fitted[ACCURACY], fitted[RETENTION], fitted["num_runs"]) == (81, 100, 2)
    assert math.isnan(fitted["learning_rate"])
    trained = row_of(found, "linear probe", method="linear_probe")
    assert (trained[ACCURACY], trained["learning_rate"]) == (80, 1e-3)


def test_a_stop_takes_the_last_look_before_the_first_under_the_budget(found: Answer) -> None:
    stop = row_of(found, "stop by the estimate")
    # at 1e-3 after the first look and the second, at 1e-4 after the last: 62 and 61 % are learned
    assert (stop["learning_rate"], stop[ACCURACY], stop[RETENTION]) == (1e-3, (50 + 74) / 2, 94)
    assert (stop["num_kept"], stop["num_untrained"]) == (2, 0)
    assert stop["accuracy_on"] == "validation images"
    assert any("validation images" in one for one in found.remarks)


def test_the_sentence_names_the_best_way_the_next_and_the_probe(found: Answer) -> None:
    # over the seeds: 95 − 93 and 97 − 96 from the rescue, 95 − 95 and 97 − 95 from the penalty
    assert (
        "On terrain at 90 % it is training under the budget (full_ft, budget_90 at 1e-3): "
        "96.0\u00a0±\u00a01.4 %, retention 94.0\u00a0±\u00a01.4 %, kept in 2 of 2 runs. The best "
        "other way, training without a budget (full_ft, l2_sp_0.1 at 1e-3), is 1.0\u00a0±\u00a01.0 "
        "points behind, no more than noise tells apart. The linear probe is 15.0\u00a0±\u00a01.0 "
        "points behind."
    ) in found.sentence
    assert found.is_answered
    assert found.units == "7 cells"


def test_there_is_a_picture_with_a_mark_a_way_that_has_an_accuracy(found: Answer) -> None:
    (chart,) = found.charts
    assert chart.name == "budgets_terrain_90"
    (panel,) = chart.flat
    assert panel.title == "terrain, 90 %"
    line, *marks = panel.marks
    assert line.x == (90, 90)
    shown = {(one.name, *at) for one in marks for at in zip(one.x, one.y, strict=True)}
    assert ("rescue by search", 94, 94.5) in shown
    assert ("training under the budget", 98, 94) in shown
    assert len(shown) == found.table[ACCURACY].notna().sum() == 8
    assert "rescue by wise" in chart.legend  # so that colours agree with those of other charts
    assert {"Way", "Kept in the mean"} <= {one.heading for one in answer_tables(found)[0].columns}


def test_where_nothing_keeps_the_budget_that_is_said_and_no_accuracy_stands() -> None:
    made = Made()
    made.cell((95, 80), (96, 85), budget=90)
    made.cell((97, 30), (97, 40))
    found = made.answer
    assert "On terrain at 90 % no way keeps the budget in the mean." in found.sentence
    plain = row_of(found, "training without a budget")
    assert math.isnan(plain[ACCURACY])
    trained = row_of(found, "training under the budget")
    assert (trained[ACCURACY], trained["is_kept"], trained["num_kept"]) == (95.5, False, 0)
    assert any("by the cell that keeps most" in one for one in found.remarks)


def test_a_training_that_misses_its_budget_does_not_count_as_one_that_keeps_it() -> None:
    made = Made()
    made.cell((99, 80), (99, 85), budget=90)
    made.cell((70, 95), (72, 95), method="lora_r8")
    told = made.answer.sentence
    assert "it is training without a budget (lora_r8 at 1e-3): 71.0" in told
    assert "No training under the budget keeps it in the mean." in told


def test_a_run_whose_first_look_is_under_the_budget_learns_nothing() -> None:
    made = Made()
    made.cell((95, 93), (95, 93), budget=90)
    one, other = made.cell((96, 40), (96, 40))
    made.looks(one, (50, 85, 80), (96, 40, 30))
    made.looks(other, (52, 95, 92), (96, 40, 30))
    found = made.answer
    stop = row_of(found, "stop by the estimate")
    assert math.isnan(stop[ACCURACY])  # not 52, which is of the run that stopped later
    assert (stop["num_untrained"], stop["num_runs"], stop["num_kept"]) == (1, 2, 1)
    assert not stop["is_kept"]
    assert (
        "On terrain, of 2 plain runs the first look is under the budget in 1 at 90 %; there a stop "
        "keeps the pretrained model."
    ) in found.remarks


def test_a_cell_of_which_a_run_diverged_does_not_keep_the_budget() -> None:
    made = Made()
    made.cell((95, 93), (97, 95), budget=90)
    made.cell((94, 99), (94, 97), budget=90, rate=3e-4)
    plain = made.cell((96, 92), (96, 92), (96, 92), rate=1e-4)
    slow = made.cell((60, 97), (62, 97), rate=1e-5)
    for run in (*plain, *slow):
        made.looks(run, (50, 96, 92))
        made.rescue(run, "search", 90, (80, 94) if run in plain else (70, 98))
        made.rescue(run, "pretrained", None, (50, 100))
    for at in (1, 4 + 2):  # a run under the budget, and the last of the plain ones
        made.runs[at]["status"] = "diverged"
    found = made.answer
    trained = row_of(found, "training under the budget", learning_rate=1e-3)
    assert (trained["num_kept"], trained["num_runs"], trained["num_diverged"]) == (1, 1, 1)
    assert not trained["is_kept"]
    assert math.isnan(trained[ACCURACY])
    whole = row_of(found, "training under the budget", learning_rate=3e-4)
    assert (whole["is_kept"], whole["num_diverged"]) == (True, 0)
    reached = {"training without a budget": 61, "rescue by search": 70, "stop by the estimate": 50}
    for way, accuracy in reached.items():
        row = row_of(found, way)
        assert (row["learning_rate"], row[ACCURACY]) == (1e-5, accuracy)  # where no run diverged
    assert row_of(found, "linear probe", method="untouched model")["num_diverged"] == 0
    assert any("a diverged run keeps nothing" in one for one in found.remarks)


def test_a_history_without_the_intervals_end_is_stopped_by_the_estimate() -> None:
    made = Made()
    made.cell((95, 93), (95, 93), budget=90)
    for run in made.cell((96, 40), (96, 40)):
        made.looks(run, (50, 95, 88), (96, 40, 30))  # the estimates are 92 and 34
    tables = made.tables
    older = tables.with_runs(tables.runs)
    older = StudyTables(
        older.runs, older.history.drop(columns="low_90_pct"), NO_TABLE, rescues=NO_TABLE
    )
    stop = row_of(answer("budgets", older), "stop by the estimate")
    assert (stop[ACCURACY], stop[RETENTION]) == (50, 95)
    assert any("before the estimate itself" in one for one in answer("budgets", older).remarks)
    assert row_of(answer("budgets", tables), "stop by the estimate")["num_untrained"] == 2


def test_runs_without_a_pool_are_left_out_of_the_stop_alone() -> None:
    made = Made()
    made.cell((95, 93), (95, 93), budget=90)
    made.cell((61, 95), (61, 95))
    found = made.answer
    assert "stop by the estimate" not in set(found.table["way"])
    assert row_of(found, "training without a budget")[ACCURACY] == 61
    (left_out,) = found.excluded
    assert (left_out.what, left_out.count) == ("runs, in the stop by the estimate", 2)


def test_of_equally_accurate_ways_the_one_that_keeps_more_comes_first() -> None:
    made = Made()
    made.cell((90, 91), (92, 91), budget=90)
    made.cell((92, 97), (90, 97), method="lora_r8")
    found = made.answer
    assert found.table["method"].tolist() == ["lora_r8", "full_ft"]
    assert "is 0.0\u00a0±\u00a02.0 points behind, no more than noise tells apart." in found.sentence


def test_budgets_of_rescues_alone_stand_in_the_table_and_the_remarks() -> None:
    made = a_small_study()
    run = made.runs[4]["run_id"]
    made.rescue(run, "search", 99, (85, 99.5))
    found = made.answer
    assert "99 %" not in found.sentence
    assert row_of(found, "rescue by search", 99)[ACCURACY] == 85
    told = found.remarks[0]
    assert told.startswith("On terrain at 99 % it is rescue by search (full_ft at 1e-3): 85")
    assert [one.name for one in found.charts] == ["budgets_terrain_90", "budgets_terrain_99"]


def test_a_study_of_rescues_alone_is_answered_at_their_budgets() -> None:
    made = Made()
    for run in made.cell((96, 40), (96, 50)):
        made.rescue(run, "lines", 95, (88, 97))
    found = made.answer
    assert "On terrain at 95 % it is rescue by lines (full_ft at 1e-3): 88.0" in found.sentence
    assert set(found.table["budget_pct"]) == {95}


def test_datasets_are_answered_apart() -> None:
    made = Made()
    made.cell((95, 93), (95, 93), budget=90)
    made.cell((70, 92), (70, 92), dataset="stars", budget=90)
    made.cell((90, 95), (90, 95), dataset="stars", method="lora_r8")
    found = made.answer
    assert found.table["dataset"].tolist() == ["stars", "stars", "terrain"]
    assert "On stars at 90 % it is training without a budget (lora_r8 at 1e-3)" in found.sentence
    assert "On terrain at 90 % it is training under the budget (full_ft at 1e-3)" in found.sentence
    assert "Nothing else in the study keeps it in the mean." in found.sentence
    assert [one.name for one in found.charts] == ["budgets_stars_90", "budgets_terrain_90"]


def test_a_study_without_a_budget_is_not_answered_and_says_what_to_give() -> None:
    made = Made()
    made.cell((96, 40), (96, 50))
    found = made.answer
    assert not found.is_answered
    assert found.sentence == (
        "These data can't answer this: no run was trained under a budget or rescued at one; give "
        "budget: {retention_pct: 90}, or post: [search] and a pool, in the spec."
    )
    assert found.table.empty


def test_budgets_without_a_measured_retention_are_not_answered() -> None:
    made = Made()
    made.cell((96, math.nan), (96, math.nan), budget=90)
    told = "no run with a budget or a rescue has both retention and accuracy"
    assert told in made.answer.sentence
    made.cell((96, 92), (96, 92))
    made.rescue(made.runs[-1]["run_id"], "wise", 95, (90, math.nan))
    assert told in made.answer.sentence
    made.cell((95, 93), (95, 93), budget=80)
    assert set(made.answer.table["budget_pct"]) == {80}


def test_transfer_sets_are_answered_apart() -> None:
    made = a_small_study()
    other = Made()
    other.cell((50, 99), (50, 99), budget=90, transfer="other")
    runs = [{**one, "run_id": f"other {one['run_id']}"} for one in other.runs]
    made.runs += runs
    found = made.answer
    assert found.remarks[0].startswith("2 settings are answered apart")
    assert set(found.table["transfer"]) == {"mosaic", "other"}


def test_a_gap_is_paired_over_common_seeds_and_else_between_means() -> None:
    first = pd.Series({1: 90.0, 2: 92.0, 3: 95.0})
    paired = Gap.of(first, pd.Series({1: 89.0, 2: 90.0, 9: 10.0}))  # differences 1 and 2
    assert (paired.points, paired.num_pairs) == (1.5, 2)
    assert paired.standard_error == pytest.approx(math.sqrt(0.5 / 2))
    assert not paired.is_noise
    apart = Gap.of(pd.Series({1: 90.0, 2: 92.0}), pd.Series({3: 80.0, 4: 86.0}))
    assert (apart.points, apart.num_pairs) == (8, 0)
    assert apart.standard_error == pytest.approx(math.sqrt(2 / 2 + 18 / 2))
    single = Gap.of(pd.Series({1: 90.0}), pd.Series({1: 91.0}))
    assert single.words == "1.0 points ahead, of single runs"
    assert Gap(1.0, 0.6, 3).is_noise
    assert Gap(0.0, 0.0, 2).words == "as accurate"


def test_what_is_measured_after_a_training_does_not_make_it_another() -> None:
    plain = {"method": "full_ft", "learning_rate": 1e-3, "pool": "concepts100"}
    assert parse_run_spec(plain).options_label == (
        parse_run_spec({**plain, "post": ["search", "wise"]}).options_label
    )


def test_of_several_transfer_sets_the_one_that_decides_is_named() -> None:
    made = Made()
    made.cell((95, 93), (95, 93), budget=90, retention_pct_cars=12.0)
    told = "Kept is what is kept on mosaic alone. Retention on cars is not asked."
    assert told in made.answer.remarks
    one = Made()
    one.cell((95, 93), (95, 93), budget=90)
    assert not any("alone" in remark for remark in one.answer.remarks)
