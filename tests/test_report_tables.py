"""Tables: cells are means over seeds of finished runs; each format says the same."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import fake_comparison, wilson_pct, write_fake_study

from driftscope.analysis.grouping import (
    cells_frame,
    class_cells_frame,
    head_cells_frame,
    layer_cells_frame,
    series_order,
    split_settings,
)
from driftscope.analysis.table import Column, Table, latex_text
from driftscope.analysis.words import rate_text, spread_text
from driftscope.metric import number_text
from driftscope.records import layers_table, load_runs
from driftscope.report.provenance import flattened, shared_and_varying
from driftscope.report.run_pages import run_pages
from driftscope.report.tables import (
    comparison_layers,
    head_entropy_changes,
    report_runs,
    runs_list,
    study_table,
)
from driftscope.stats.proportions import wilson_interval_pct


def _runs(**changes: object) -> pd.DataFrame:
    values: dict[str, object] = {
        "run_id": ["a", "b", "c"],
        "dataset": "d",
        "model": "m",
        "protocol": "leakfree",
        "transfer": "t",
        "method": ["lora_r8", "lora_r8", "full_ft"],
        "learning_rate": [1e-3, 1e-3, 1e-3],
        "seed": [0, 1, 0],
        "status": "done",
        "retention_pct": [80.0, 90.0, 40.0],
        "weight_decay": 0.01,
    }
    return pd.DataFrame({**values, **changes})


def test_a_cell_is_the_mean_and_sample_sd_over_its_seeds() -> None:
    cells = cells_frame(_runs()).set_index("series")
    assert cells.loc["lora_r8", "retention_pct"] == 85.0
    assert cells.loc["lora_r8", "retention_pct_sd"] == pytest.approx(np.std([80, 90], ddof=1))
    assert cells.loc["lora_r8", "num_runs"] == 2


def test_a_cell_of_one_run_has_no_sd() -> None:
    cells = cells_frame(_runs()).set_index("series")
    assert math.isnan(cells.loc["full_ft", "retention_pct_sd"])


def test_diverged_runs_count_but_do_not_enter_the_mean() -> None:
    cells = cells_frame(_runs(status=["done", "diverged", "done"])).set_index("series")
    assert cells.loc["lora_r8", "retention_pct"] == 80.0
    assert cells.loc["lora_r8", "num_runs"] == 1
    assert cells.loc["lora_r8", "num_diverged"] == 1


def test_runs_that_differ_in_more_than_the_seed_are_different_cells() -> None:
    cells = cells_frame(_runs(weight_decay=[0.0, 0.1, 0.0]))
    assert len(cells) == 3
    assert "lora_r8, weight decay 0.1" in set(cells["series"])


def test_runs_of_other_options_are_no_seeds_of_one_cell(tmp_path: Path) -> None:
    options = ["default", "train_images 100", "default"]
    cells = cells_frame(_runs(options=options))
    assert set(cells["series"]) == {"full_ft", "lora_r8", "lora_r8, train_images 100"}
    assert cells["num_runs"].tolist() == [1, 1, 1]


def test_a_series_names_only_the_options_that_differ(tmp_path: Path) -> None:
    shared = 'train_images 100, templates ["a {}", "b {}"]'
    options = [shared, f"{shared}, pool concepts100", shared]
    assert set(cells_frame(_runs(options=options))["series"]) == {
        "full_ft",
        "lora_r8",
        "lora_r8, pool concepts100",
    }


def test_settings_are_never_mixed() -> None:
    parts = split_settings(_runs(protocol=["paper", "leakfree", "leakfree"]))
    assert [setting["protocol"] for setting, _ in parts] == ["leakfree", "paper"]
    assert [len(group) for _, group in parts] == [2, 1]


def test_layer_cells_average_over_seeds() -> None:
    layers = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "layer": [1, 1, 1],
            "delta_entropy_pct": [1.0, 3.0, -5.0],
        }
    )
    cells = layer_cells_frame(layers, _runs()).set_index("series")
    assert cells.loc["lora_r8", "delta_entropy_pct"] == 2.0
    assert cells.loc["lora_r8", "delta_entropy_pct_sd"] == pytest.approx(np.std([1, 3], ddof=1))
    assert cells.loc["lora_r8", "delta_entropy_pct_by_seed"] == "(by seed 0: +1.0, 1: +3.0)"
    assert cells.loc["full_ft", "num_runs"] == 1


def test_an_imported_score_has_the_interval_of_its_images() -> None:
    from driftscope.records.schema import TransferScore

    score = TransferScore.model_validate({"accuracy_pct": 40.0, "num_images": 1000})
    assert score.wilson_pct == pytest.approx(wilson_interval_pct(400, 1000))
    assert TransferScore.model_validate({"accuracy_pct": 40.0}).wilson_pct is None


def test_layer_cells_come_by_method_rate_and_layer_whatever_the_runs_order() -> None:
    runs = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "method": ["full_ft", "lora_r8", "full_ft"],
            "learning_rate": [3e-3, 1e-4, 1e-4],
            "state": "done",
        }
    )
    layers = pd.DataFrame(
        {"run_id": [*"aabbcc"], "layer": [2, 1] * 3, "delta_entropy_pct": [0.0] * 6}
    )
    cells = layer_cells_frame(layers, runs)
    assert [*zip(cells["series"], cells["learning_rate"], cells["layer"], strict=True)] == [
        (method, rate, layer)
        for method, rate in (("full_ft", 1e-4), ("full_ft", 3e-3), ("lora_r8", 1e-4))
        for layer in (1, 2)
    ]


def test_head_cells_average_each_heads_change_over_seeds() -> None:
    heads = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "layer": 1,
            "head": [1.0, 1.0, np.nan],
            "entropy_nats": [2.2, 1.8, 1.0],
            "pretrained_entropy_nats": 2.0,
        }
    )
    (row,) = head_cells_frame(heads, _runs()).to_dict("records")
    assert row["delta_entropy_pct"] == pytest.approx(0.0, abs=1e-12)
    assert row["num_runs"] == 2
    assert row["head"] == 1


def test_class_cells_average_over_seeds_and_a_class_never_known_has_no_retention() -> None:
    classes = pd.DataFrame(
        {
            "run_id": ["a", "b", "a", "b"],
            "class": ["x", "x", "y", "y"],
            "num_images": 6,
            "pretrained_pct": [50.0, 50.0, 0.0, 0.0],
            "adapted_pct": [25.0, 50.0, 0.0, 0.0],
            "retention_pct": [50.0, 100.0, np.nan, np.nan],
        }
    )
    cells = class_cells_frame(classes, _runs()).set_index("class")
    assert cells.loc["x", "retention_pct"] == 75.0
    assert cells.loc["x", "retention_pct_sd"] == pytest.approx(np.std([50, 100], ddof=1))
    assert math.isnan(cells.loc["y", "retention_pct"])


def test_the_table_of_one_run_is_not_called_a_study_s(tmp_path: Path) -> None:
    runs = report_runs(load_runs(write_fake_study(tmp_path, rates=(1e-3,), maps=False)))
    for some, title in ((runs.iloc[:1], "The run: "), (runs, "Every cell of the study: ")):
        ((setting, group),) = split_settings(some)
        assert study_table(cells_frame(group), setting).title.startswith(title)


def test_the_study_table_gives_images_and_interval_of_every_zero_shot_accuracy(
    tmp_path: Path,
) -> None:
    runs = report_runs(load_runs(write_fake_study(tmp_path, rates=(1e-3,), maps=False)))
    ((setting, group),) = split_settings(runs)
    table = study_table(cells_frame(group), setting)
    column = next(c for c in table.columns if c.key == "zero_shot_pct")
    for row in table.rows:
        assert row["zero_shot_low_pct"] < row["zero_shot_pct"] < row["zero_shot_high_pct"]
        assert "n = 5,000" in column.detail(row)


def test_the_tables_of_cells_and_runs_give_the_images_of_the_test_accuracy(tmp_path: Path) -> None:
    runs = report_runs(load_runs(write_fake_study(tmp_path, rates=(1e-3,), maps=False)))
    ((setting, group),) = split_settings(runs)
    table = study_table(cells_frame(group), setting)
    column = next(c for c in table.columns if c.key == "test_accuracy_pct")
    for row in table.rows:
        low, high = row["test_low_pct"], row["test_high_pct"]
        assert low < row["test_accuracy_pct"] < high
        assert column.detail(row) == f"{low:.1f}–{high:.1f}, n = 1,000"
    assert runs_list(runs).note == "Each test accuracy is of 1,000 images."
    others = runs.assign(dataset="stars", test_num_images=2700)
    assert runs_list(pd.concat([runs, others])).note == (
        "Each test accuracy is of 2,700 images on stars and 1,000 images on terrain."
    )
    unknown = runs.assign(test_num_images=None)
    assert runs_list(unknown).note == ""


def test_what_varies_is_in_order_and_says_where_a_method_lacks_it() -> None:
    specs = [
        {"learning_rate": 1e-3, "seed": 11, "method": {"kind": "lora", "targets": ["q", "v"]}},
        {"learning_rate": 3e-6, "seed": 7, "method": {"kind": "oft", "options": [["r", 0]]}},
        {"learning_rate": 1e-4, "seed": 7, "method": {"kind": "oft", "options": [["r", 0]]}},
    ]
    shared, varying = shared_and_varying([{**one, "maps": False} for one in specs])
    assert shared == {"maps": "no"}
    assert varying == {
        "learning_rate": ["3e-6", "1e-4", "1e-3"],
        "seed": ["7", "11"],
        "method.kind": ["lora", "oft"],
        "method.targets": ["[q, v]", "not in every run"],
        "method.options": ["r 0", "not in every run"],
    }
    assert flattened({"indices": list(range(100))})["indices"].endswith("22, 23, and 76 more")


def test_the_page_of_a_run_gives_images_and_interval_of_its_test_accuracy(tmp_path: Path) -> None:
    records = load_runs(write_fake_study(tmp_path, rates=(1e-3,), seeds=(0,), maps=False))
    runs = report_runs(records)
    empty = pd.DataFrame({"run_id": []})
    for page in run_pages(empty, empty, records, runs):
        (row,) = runs[runs["run_id"] == page.run_id].to_dict("records")
        found = json.loads(str(page.json))["numbers"]
        heading, value, detail, _ = next(one for one in found if "est accuracy" in one[0])
        low, high = wilson_pct(row["test_accuracy_pct"], 1000)
        assert value == f"{row['test_accuracy_pct']:.1f}", heading
        assert detail == f"{low:.1f}–{high:.1f}, n = 1,000"


def test_every_layer_of_a_study_is_in_its_layer_table(tmp_path: Path) -> None:
    records = load_runs(write_fake_study(tmp_path, rates=(1e-3,), maps=False))
    layers = layer_cells_frame(layers_table(records), report_runs(records))
    assert sorted(layers["layer"].unique()) == [1, 2, 3, 4, 5, 6]
    assert (layers["num_runs"] == 2).all()


def test_csv_keeps_the_raw_numbers_and_quotes_names() -> None:
    frame = pd.DataFrame({"name": ['a, "b"'], "value": [1 / 3]})
    table = Table("t", "T", "", (Column("name", "Name", kind="text"),), frame)
    (row,) = csv.DictReader(io.StringIO(table.to_csv()))
    assert row["name"] == 'a, "b"'
    assert float(row["value"]) == 1 / 3


def test_markdown_keeps_its_columns_when_a_name_holds_a_bar() -> None:
    table = Table("t", "T", "", (Column("a", "A", kind="text"),), pd.DataFrame({"a": ["x|<b>"]}))
    assert "| x\\|&lt;b> |" in table.to_markdown()


def test_latex_escapes_names_and_uses_booktabs() -> None:
    columns = (Column("a", "Δ entropy, %", kind="text"), Column("b", "B"))
    table = Table("t", "T_1", "", columns, pd.DataFrame({"a": ["lora_r8 & co"], "b": [-1.25]}))
    text = table.to_latex()
    assert r"lora\_r8 \& co & $-$1.2 \tabularnewline" in text
    assert r"\toprule" in text
    assert r"$\Delta$ entropy, \%" in text
    assert latex_text("1\u00a0±\u00a02") == r"1~$\pm$~2"


def test_series_are_ordered_by_family_then_name() -> None:
    assert series_order(["z", "lora_r8", "linear_probe", "full_ft", "lora_r4"]) == [
        "full_ft",
        "lora_r4",
        "lora_r8",
        "linear_probe",
        "z",
    ]


def test_head_changes_are_percent_of_the_pretrained_entropy() -> None:
    rows = head_entropy_changes([[2.0, 4.0, 0.0]], [[1.0, 5.0, 0.0]])
    assert [row["delta_entropy_pct"] for row in rows] == [-50.0, 25.0, 0.0]
    assert [(row["layer"], row["head"]) for row in rows] == [(1, 1), (1, 2), (1, 3)]


def test_comparison_layers_hold_one_row_a_layer() -> None:
    comparison = fake_comparison()
    layers = comparison_layers(comparison)
    assert list(layers["layer"]) == [1, 2, 3, 4, 5, 6]
    assert list(layers["cka"]) == comparison["drift"]["cka_per_block"]


@pytest.mark.parametrize(
    ("rate", "text"), [(3e-4, "3e-4"), (1e-5, "1e-5"), (2.5e-6, "2.5e-6"), (0.05, "0.05")]
)
def test_learning_rates_are_written_as_people_write_them(rate: float, text: str) -> None:
    assert rate_text(rate) == text


def test_numbers_use_a_true_minus_and_never_a_negative_zero() -> None:
    assert number_text(-2.34, 1) == "−2.3"
    assert number_text(-0.01, 1, signed=True) == "0.0"
    assert number_text(None, 1) == "–"
    assert spread_text(1.0, math.nan, 1) == "1.0"
