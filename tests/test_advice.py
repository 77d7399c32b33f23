"""What to do: the verdict follows the interval, and the steps come in the order of their cost."""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from driftscope.analysis.advice import (
    Kept,
    Place,
    Setting,
    advice_on_comparison,
    advice_on_look,
    advise,
    damage_sentence,
    kept_of,
)
from driftscope.analysis.study_advice import advice_on_study, chosen_cell, setting_of
from driftscope.config import BudgetSpec, load_run_spec, parse_run_spec
from driftscope.gate.limits import GATED
from driftscope.protocols import WITHOUT_TEXTS
from driftscope.records import rescued_from

HERE = Place("comparison", "mini", "my clip", "photos")


def measured(pct: float, low: float, high: float, **more: Any) -> Kept:
    return Kept("retention_pct", pct, (low, high), on="birds", **more)


@pytest.mark.parametrize(
    ("kept", "outcome", "verdict"),
    [
        (
            measured(95.0, 91.0, 98.0),
            "kept",
            "Kept: retention is 95.0 % (95 % interval 91.0 to 98.0) on birds, "
            "at least the 90 % to keep.",
        ),
        (
            measured(92.0, 88.0, 95.5),
            "unsure",
            "Unsure: retention is 92.0 % (95 % interval 88.0 to 95.5) on birds; the 90 % to keep "
            "lies within.",
        ),
        (
            measured(60.0, 55.0, 65.0),
            "lost",
            "Lost: retention is 60.0 % (95 % interval 55.0 to 65.0) on birds, "
            "less than the 90 % to keep.",
        ),
        (
            Kept("estimated_retention_pct", 70.0, (66.0, 74.0), 90, "photos"),
            "lost",
            "Lost: estimated retention is 70.0 % (90 % interval 66.0 to 74.0) on photos, less "
            "than the 90 % to keep.",
        ),
        (
            measured(99.0, 98.0, 100.0, doubts=("2 classes have one prompt",)),
            "unsure",
            "Doubtful: retention is 99.0 % (95 % interval 98.0 to 100.0) on birds, but 2 classes "
            "have one prompt.",
        ),
        (
            measured(29.0, 21.0, 38.0, imprecise="it is wide"),
            "lost",
            "Lost: retention is 29.0 % (95 % interval 21.0 to 38.0) on birds, "
            "less than the 90 % to keep.",
        ),
        (
            measured(98.0, 91.0, 105.0, imprecise="it is wide"),
            "unsure",
            "Unsure: retention is 98.0 % (95 % interval 91.0 to 105.0) on birds; it is wide.",
        ),
    ],
)
def test_the_verdict_follows_the_interval(kept: Kept, outcome: str, verdict: str) -> None:
    advice = advise(kept, HERE)
    assert (advice.outcome, advice.verdict) == (outcome, verdict)
    assert 1 <= len(advice.steps) <= 3


def test_what_is_lost_is_rescued_first_then_trained_again_by_the_users_own_study() -> None:
    better = Setting("lora_r8", 3e-5, "test_accuracy_pct", 91.7, 94.5)
    rescue, again, _ = advise(measured(60.0, 55.0, 65.0), HERE, better=better).steps
    command = (
        "driftscope rescue mini 'my clip' --images photos --pool IMAGES --keep 90 --out rescued"
    )
    assert command in rescue
    assert "For --images give a labeled dataset of your task" in rescue
    assert "lora_r8 at 3e-5 (test accuracy 91.7 %, retention 94.5 %)" in again


def test_what_is_unknown_is_measured_before_anything_is_advised() -> None:
    for surface, way in (("comparison", "--pool"), ("monitor", "pool="), ("run", "`pool:`")):
        advice = advise(None, Place(surface))  # type: ignore[arg-type]
        assert advice.outcome == "unknown"
        assert way in advice.steps[0]
        assert "rescue" not in " ".join(advice.steps)


def test_a_set_at_chance_is_named_and_another_one_asked_for() -> None:
    comparison = {
        **{"pretrained": "mini", "adapted": "mine", "images": "photos"},
        **{"drift": {"weight_drift": 0.2}, "transfer": {"stars": {"retention_pct": None}}},
    }
    advice = advice_on_comparison(comparison)
    assert advice.verdict == (
        "Unknown: on stars the pretrained model is no better than chance, so it can lose nothing "
        "there."
    )
    assert "--pool" in advice.steps[0]
    assert "in place of that one" in advice.steps[1]


def test_a_measured_world_is_the_pool_that_a_rescue_is_advised_with() -> None:
    score = {"retention_pct": 50.0, "num_correct": 40, "flows": {"num_lost": 40, "num_gained": 0}}
    comparison = {
        **{"pretrained": "mini", "adapted": "mine", "images": "photos", "drift": {}},
        "transfer": {"birds": score},
    }
    step = advice_on_comparison(comparison).steps[0]
    assert "`driftscope rescue mini mine --images photos --pool birds --keep 90" in step


def test_a_withheld_estimate_is_answered_by_its_reason_and_not_by_what_was_given() -> None:
    comparison = {
        **{"pretrained": "mini", "adapted": "mine", "images": "photos", "pool": "birds"},
        "drift": {"weight_drift": 0.2},
        "estimate": {"retention_pct": None, "withheld": "the images show other things"},
    }
    advice = advice_on_comparison(comparison)
    assert advice.verdict == "Unknown: no estimate is given, because the images show other things."
    assert "--pool IMAGES" not in " ".join(advice.steps)


def test_more_than_all_is_asked_of_no_rescue_and_no_training() -> None:
    steps = advise(measured(60.0, 55.0, 65.0), HERE, budget_pct=900).steps
    assert steps[0].startswith("Ask for at most 100 %")
    assert "--keep" not in " ".join(steps)
    assert "retention_pct" not in " ".join(steps)
    assert "--keep 100" in advise(measured(60.0, 55.0, 65.0), HERE, budget_pct=100).steps[0]


def test_a_doubtful_number_sends_nobody_to_a_rescue() -> None:
    advice = advise(measured(40.0, 30.0, 50.0, doubts=("two classes have one prompt",)), HERE)
    assert len(advice.steps) == 1
    assert advice.steps[0].startswith("First clear up the doubt")


def test_the_gate_is_asked_for_what_the_report_holds() -> None:
    for key, option in (
        ("retention_pct", "--min-retention 90"),
        ("estimated_retention_pct", "--min-estimated-retention 90"),
        ("forecast_retention_pct", "--min-forecast-retention 90"),
    ):
        step = advise(Kept(key, 97.0, (95.0, 99.0)), HERE).steps[0]
        assert option in step
        assert option.split()[0] in [one.option for one in GATED]


def test_equal_models_are_called_equal() -> None:
    assert advise(measured(100.0, 100.0, 100.0), HERE, is_unchanged=True).outcome == "unchanged"


def test_the_surest_retention_speaks_and_of_several_sets_the_worst() -> None:
    estimate = {"retention_pct": 70.0, "low_90_pct": 66.0, "high_90_pct": 74.0, "pool": "photos"}
    found = {
        "transfer": {"birds": {"retention_pct": 95.0}, "cars": {"retention_pct": 80.0}},
        "estimate": estimate,
    }
    assert kept_of(found) == Kept("retention_pct", 80.0, None, 95, "cars")
    blind = {"transfer": {"birds": {"retention_pct": None}}, "estimate": estimate}
    estimated = Kept("estimated_retention_pct", 70.0, (66.0, 74.0), 90, "photos")
    assert kept_of(blind) == estimated
    assert kept_of({"transfer": {}, "estimate": {"retention_pct": None}}) is None
    forecast = {"retention_pct": 81.0, "low_pct": 70.0, "high_pct": 92.0}
    assert kept_of({"forecast": forecast}) == Kept("forecast_retention_pct", 81.0, (70.0, 92.0), 90)


ACCURACY = "test_accuracy_pct"
CELLS = pd.DataFrame(
    {  # EuroSAT in the follow-up's 66 runs
        "dataset": "eurosat",
        "method": ["full_ft", "lora_r8", "lora_r8", "last_block"],
        "learning_rate": [1e-5, 3e-5, 1e-4, 1e-5],
        "test_accuracy_pct": [97.2, 91.7, 95.2, 88.6],
        "retention_pct": [41.2, 94.5, 86.4, 97.1],
        "lowest_retention_pct": [21.7, 93.8, 84.0, 96.9],
        "num_runs": [3, 3, 3, 3],
    }
)


def test_a_study_names_the_most_accurate_setting_that_keeps_the_budget() -> None:
    rows = CELLS.to_dict("records")
    assert chosen_cell(rows, ACCURACY) == rows[1]
    assert chosen_cell(rows, ACCURACY, 80) == rows[2]
    assert chosen_cell(rows, ACCURACY, 99) is None
    [advice] = advice_on_study(CELLS, ACCURACY)
    assert advice.verdict == (
        "eurosat: take lora_r8 at 3e-5 (test accuracy 91.7 %, retention 94.5 %), the most accurate "
        "whose every run keeps 90 %."
    )
    price, probe, again = advice.steps
    assert price.startswith("To gain 5.5 points of accuracy: full_ft at 1e-5")
    assert "for 53.3 points of retention" in price
    assert "add `linear_probe`" in probe
    assert "budget: {retention_pct: 90}" in again
    [none] = advice_on_study(CELLS, ACCURACY, 99)
    assert none.outcome == "lost"
    assert none.verdict.startswith(
        "eurosat: no setting keeps 99 % in every run; last_block at 1e-5"
    )
    assert advice_on_study(CELLS.iloc[:0], ACCURACY) == []


def test_the_setting_to_take_has_its_spread_where_there_is_one() -> None:
    spread = CELLS.assign(test_accuracy_pct_sd=0.24, retention_pct_sd=[2.0, 0.4, math.nan, 1.0])
    [advice] = advice_on_study(spread, ACCURACY)
    told = "lora_r8 at 3e-5 (test accuracy 91.7 ± 0.2 %, retention 94.5 ± 0.4 %)"
    assert told in advice.verdict.replace("\N{NO-BREAK SPACE}", " ")
    rows = spread.to_dict("records")
    assert setting_of(rows[2], ACCURACY) == setting_of(dict(rows[2]), ACCURACY)


def test_two_seeds_are_said_to_be_few() -> None:
    [advice] = advice_on_study(CELLS.assign(num_runs=2), ACCURACY)
    assert "Before you rely on it: it was run with 2 seeds; run at least 3." in advice.steps


def test_a_mean_above_the_budget_is_not_enough_where_a_run_lies_below() -> None:
    cells = CELLS.assign(lowest_retention_pct=[21.7, 89.2, 84.0, 96.9])
    assert chosen_cell(cells.to_dict("records"), ACCURACY) == cells.to_dict("records")[3]
    [advice] = advice_on_study(cells, ACCURACY)
    assert advice.verdict.startswith("eurosat: take last_block at 1e-5")
    assert advice.steps[0] == (
        "Not surely: lora_r8 at 3e-5 (test accuracy 91.7 %, retention 94.5 %) keeps 90 % on "
        "average, but its lowest run keeps 89.2 %."
    )


def test_a_setting_of_which_a_run_diverged_is_not_advised_and_that_is_said() -> None:
    cells = CELLS.assign(num_runs=[3, 2, 3, 3], num_diverged=[0, 1, 0, 0])
    assert chosen_cell(cells.to_dict("records"), ACCURACY) == cells.to_dict("records")[3]
    [advice] = advice_on_study(cells, ACCURACY)
    assert advice.verdict.startswith("eurosat: take last_block at 1e-5")
    assert advice.steps[0] == (
        "Not surely: lora_r8 at 3e-5 (test accuracy 91.7 %, retention 94.5 %) keeps 90 % on "
        "average, but 1 of its 3 runs diverged."
    )
    [none] = advice_on_study(cells[1:2], ACCURACY)
    assert none.outcome == "lost"
    assert none.verdict.endswith("keeps most, but 1 of its 3 runs diverged.")
    [priced] = advice_on_study(CELLS.assign(num_diverged=[1, 0, 0, 0]), ACCURACY)
    assert "for 53.3 points of retention, but 1 of its 4 runs diverged." in priced.steps[0]


def test_an_imported_mean_keeps_the_budget_on_average_and_says_so() -> None:
    [advice] = advice_on_study(CELLS.assign(lowest_retention_pct=np.nan), ACCURACY)
    assert "lora_r8 at 3e-5" in advice.verdict
    assert advice.verdict.endswith("the most accurate that keeps, on average, 90 %.")


def test_more_accuracy_that_costs_nothing_on_average_has_no_price() -> None:
    cells = CELLS.assign(retention_pct=[96.0, 94.5, 86.4, 97.1])
    [advice] = advice_on_study(cells, ACCURACY)
    assert "full_ft at 1e-5" in advice.steps[0]
    assert "keeps 90 % on average, but its lowest run keeps 21.7 %" in advice.steps[0]
    assert not any("points of retention" in step for step in advice.steps)


def test_a_study_with_a_linear_probe_is_not_told_to_add_one() -> None:
    probe = CELLS.iloc[[3]].assign(method="linear_probe", test_accuracy_pct=80.0)
    [advice] = advice_on_study(pd.concat([CELLS, probe]), ACCURACY)
    assert not any("linear_probe" in step for step in advice.steps)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "--images photos --pool IMAGES --keep 90 --out rescued` blends it with the "
             "pretrained one."),
        ({"pool": "concepts100", "classes": None},
         "--images photos --pool concepts100 --keep 90 --out rescued` blends it with the "
         "pretrained one."),
        ({"pool": "my pool", "classes": "names.txt"},
         "--images photos --pool 'my pool' --classes names.txt --keep 90 --out rescued`"),
    ],
)  # fmt: skip
def test_the_rescue_command_names_the_pool_and_classes_that_were_given(
    given: dict[str, Any], words: str
) -> None:
    comparison = {"pretrained": "mini", "adapted": "my clip", "images": "photos", "drift": {}}
    lost = {"retention_pct": 50.0, "low_90_pct": 45.0, "high_90_pct": 55.0}
    advice = advice_on_comparison({**comparison, **given, "transfer": {}, "estimate": lost})
    assert advice.outcome == "lost"
    assert f"`driftscope rescue mini 'my clip' {words}" in advice.steps[0]


def test_a_monitor_names_the_pool_that_it_was_given() -> None:
    watched = {"pretrained": "mini", "probe_images": "photos", "pool_as_given": "my pool"}
    lost = {"retention_pct": 50.0, "low_90_pct": 45.0, "high_90_pct": 55.0}
    advice = advice_on_look({"estimate": lost}, {**watched, "classes_as_given": None})
    assert "--images photos --pool 'my pool' --keep 90 --out rescued` blends" in advice.steps[0]


def test_a_model_without_texts_gets_no_advice_that_needs_them() -> None:
    dino = Place("comparison", "dino", "tuned", "photos", has_texts=False)
    unknown, lost = advise(None, dino), advise(measured(60.0, 55.0, 65.0), dino)
    words = " ".join((unknown.verdict, *unknown.steps, lost.verdict, *lost.steps))
    for refused in ("zero-shot", "--pool", "--classes", "pool", "driftscope rescue"):
        assert refused not in words
    assert "`--transfer DATASET` measures it, by k-NN" in unknown.steps[0]
    assert "LoRA" in lost.steps[0]


@pytest.mark.parametrize(("pct", "outcome"), [(100.0, "unchanged"), (40.0, "lost")])
def test_equal_image_encoders_are_not_nothing_where_texts_have_moved(
    pct: float, outcome: str
) -> None:
    found = {"pretrained": "a", "adapted": "b", "images": "c", "drift": {"weight_drift": 0}}
    score = {"retention_pct": pct, "flows": None}
    assert advice_on_comparison({**found, "transfer": {"d": score}}).outcome == outcome


LOST = {"retention_pct": 50.0, "low_90_pct": 45.0, "high_90_pct": 55.0}
UNSURE = {"retention_pct": 91.0, "low_90_pct": 87.0, "high_90_pct": 95.0}
COMPARED = {
    **{"pretrained": "mini", "adapted": "rescued", "images": "photos", "drift": {}, "transfer": {}},
    "pool": "world",
}
MADE = {
    **{"pretrained": "mini", "adapted": "my clip", "keep_pct": 90.0},
    **{"images": "photos", "pool": "my pool", "classes": "names.txt"},
}


def test_a_rescued_model_is_asked_for_more_from_what_it_was_made_of() -> None:
    for estimate in (LOST, UNSURE):
        advice = advice_on_comparison({**COMPARED, "estimate": estimate, "rescued_from": MADE})
        (again,) = [step for step in advice.steps if "driftscope rescue" in step]
        assert (
            "`driftscope rescue mini 'my clip' --images photos --pool 'my pool' --classes "
            "names.txt --keep 95 --out rescued`" in again
        )
        assert "came out of a rescue at --keep 90" in again
        assert len(advice.steps) <= 3
    most = {**COMPARED, "estimate": LOST, "rescued_from": {**MADE, "keep_pct": 99.0}}
    assert "driftscope rescue" not in " ".join(advice_on_comparison(most).steps)


def test_a_note_beside_a_model_tells_that_it_was_rescued(tmp_path: Path) -> None:
    told = {"models": {"pretrained": "mini", "adapted": "my clip"}, "keep_pct": 90}
    folder = tmp_path / "rescued"
    (folder / "adapted").mkdir(parents=True)
    note = folder / "rescue.json"
    note.write_text(json.dumps({**told, "asked": {"images": "photos", "pool": "world"}}))
    (folder / "model.pt").write_text("weights")
    for model in (folder, folder / "adapted", folder / "model.pt"):
        made = rescued_from(str(model))
        assert made is not None
        assert (made.adapted, made.keep_pct, made.pool) == ("my clip", 90, "world")
    assert rescued_from(f"open_clip:ViT-B-32:{folder / 'model.pt'}") == made
    assert rescued_from(str(tmp_path)) is None
    note.write_text("{")
    assert rescued_from(str(folder)) is None


def test_an_advised_folder_is_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for taken, free in ((None, "rescued"), ("rescued", "rescued-2"), ("rescued-2", "rescued-3")):
        if taken:
            (tmp_path / taken).mkdir()
        step = advice_on_comparison({**COMPARED, "estimate": LOST}).steps[0]
        assert f"--out {free}`" in step


def test_labels_are_asked_for_where_there_may_be_none() -> None:
    labeled = {**COMPARED, "estimate": LOST, "images_are_labeled": True}
    step = advice_on_comparison(labeled).steps[0]
    assert "As photos has labels, it fits a new classifier" in step
    split = {**labeled, "images": "photos/test", "split_of": "photos"}
    step = advice_on_comparison(split).steps[0]
    assert " --images photos --pool " in step
    assert "As photos has labels and splits, it fits a new classifier to the training split" in step
    assert "trained on these very images" not in step
    unknown = {**COMPARED, "estimate": LOST}
    assert "give a labeled dataset of your task" in advice_on_comparison(unknown).steps[0]


def test_a_budget_is_advised_in_lines_to_paste() -> None:
    lost = Kept("estimated_retention_pct", 50.0, (45.0, 55.0), 90)
    place = Place("comparison", "mini", "tuned", "photos", "my pool", "names.txt")
    lines = ['pool: "my pool"', 'classes: "names.txt"', "budget: {retention_pct: 90}"]
    call = "budget = driftscope.Budget('mini', model, pool='my pool', classes='names.txt', "
    for surface, has_lines, has_call in (
        ("comparison", False, True),
        ("run", True, False),
        ("monitor", False, True),
    ):
        again = advise(lost, replace(place, surface=surface)).steps[1]
        assert all((f"`{line}`" in again) is has_lines for line in lines)
        assert (call in again) is has_call
        assert ("give it as `classifier=`" in again) is has_call
    values = yaml.safe_load("\n".join(["method: full_ft", "learning_rate: 1.0e-3", *lines]))
    assert parse_run_spec(values).budget == BudgetSpec(retention_pct=90)
    ast.parse(f"{call}retention_pct=90)")


def test_after_a_comparison_a_whole_run_under_a_budget_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "budgeted.yaml").touch()
    place = Place("comparison", "my 'clip' 😀", "tuned", "photos/test", "my pool", "names.txt",
                  measured_on="birds: all", images_are_labeled=True, split_of="photos")  # fmt: skip
    step = advise(measured(50.0, 45.0, 55.0), place).steps[1]
    (text,) = re.findall(r"save `(\{.*?\})` as `budgeted-2.yaml`", step)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    spec = load_run_spec(tmp_path / "run.yaml")
    assert (spec.model, spec.dataset) == ("my 'clip' 😀", "photos")
    assert (spec.pool, spec.classes, spec.transfer) == ("my pool", "names.txt", ("birds: all",))
    assert spec.budget == BudgetSpec(retention_pct=90)
    assert (spec.method.kind, spec.learning_rate) == ("full_ft", 1e-5)
    assert "Method and learning rate are examples: put your own." in step
    assert "So does LoRA; if you train a LoRA already, give it a lower rank." in step
    assert "`driftscope run budgeted-2.yaml --out budgeted`" in step
    unlabeled = advise(measured(50.0, 45.0, 55.0), replace(place, images_are_labeled=False))
    assert 'dataset: "DATASET"' in unlabeled.steps[1]
    assert "DATASET is a labeled dataset of your task." in unlabeled.steps[1]


def test_a_comparison_names_the_command_that_finds_the_layers_that_do_the_damage() -> None:
    compared = {"pretrained": "base", "adapted": "my tuned", "images": "photos", "pool": "world"}
    said = damage_sentence({**compared, "classes": "names.txt"})
    assert "`driftscope where base 'my tuned' --pool world --classes names.txt`" in said
    without_texts = {"estimated_retention_pct": f"base {WITHOUT_TEXTS}"}
    assert damage_sentence({**compared, "unmeasured": without_texts}) == ""


def test_a_model_trained_under_a_budget_is_not_told_to_ask_for_the_same() -> None:
    unsure = Kept("retention_pct", 90.7, (85.0, 96.9))
    run = Place("run", "mini", "tuned", "terrain", "world", trained_under_pct=90.0)
    again = advise(unsure, run).steps[-1]
    assert "the budget of 90 % was judged on other images" in again
    (line,) = re.findall("`(budget: .*?)`", again)
    assert BudgetSpec(**yaml.safe_load(line)["budget"]).retention_pct == 95
