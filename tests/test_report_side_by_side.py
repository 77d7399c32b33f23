"""Several studies beside each other, and the difference of two: paired by seed, never pooled."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import METHODS, NUM_EPOCHS, NUM_TRANSFER_IMAGES, SEEDS, write_fake_study
from scipy import stats as scipy_stats
from test_report_figures import _overlaps
from typer.testing import CliRunner

from driftscope.analysis import StudyTables
from driftscope.analysis.difference import study_difference
from driftscope.analysis.grouping import cells_frame, with_series
from driftscope.analysis.study_charts import side_by_side_chart
from driftscope.cli import app
from driftscope.config import StudySpec
from driftscope.metrics import METRICS
from driftscope.opened_study import Study
from driftscope.report.drawing import draw
from driftscope.report.side_by_side import OneStudy, difference_tables, specification_table
from driftscope.study import StudyFolder

NO_TABLE = pd.DataFrame()
runner = CliRunner()


def _study(rows: list[dict[str, object]], **shared: object) -> StudyTables:
    values: dict[str, object] = {
        "model": "mini", "protocol": "leakfree", "transfer": "t", "dataset": "d",
        "method": "full_ft", "learning_rate": 1e-3, "status": "done", **shared,
    }  # fmt: skip
    frame = pd.DataFrame([{**values, **row} for row in rows])
    frame["run_id"] = [f"r{at}" for at in range(len(frame))]
    return StudyTables(frame, NO_TABLE, NO_TABLE)


def _seeds(values: dict[int, float], **more: object) -> list[dict[str, object]]:
    return [{"seed": seed, "retention_pct": value, **more} for seed, value in values.items()]


def test_common_cells_are_paired_by_seed_and_tested_like_scipy_does() -> None:
    before, after = {1: 50.0, 2: 60.0, 3: 70.0, 4: 10.0}, {3: 75.0, 2: 64.0, 1: 51.0, 9: 99.0}
    result = study_difference(_study(_seeds(before)), _study(_seeds(after)))
    (row,) = result.table.to_dict("records")
    reference = scipy_stats.ttest_rel([51.0, 64.0, 75.0], [50.0, 60.0, 70.0])
    interval = reference.confidence_interval(0.95)
    assert row["num_pairs"] == 3
    assert row["difference"] == pytest.approx(10 / 3)
    assert row["difference_sd"] == pytest.approx(np.std([1, 4, 5], ddof=1))
    assert row["p_value"] == pytest.approx(reference.pvalue)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["p_sign_flip"] == row["p_sign_flip_floor"] == 0.25
    assert sorted(zip(result.unpaired["study"], result.unpaired["seed"], strict=True)) == [
        ("A", 4), ("B", 9)]  # fmt: skip


def test_the_means_shown_are_of_the_seeds_that_are_compared() -> None:
    a, b = _study(_seeds({1: 50.0, 2: 60.0, 3: 0.0})), _study(_seeds({1: 55.0, 2: 61.0, 9: 99.0}))
    (row,) = study_difference(a, b).table.to_dict("records")
    assert (row["mean_a"], row["mean_b"], row["difference"]) == (55.0, 58.0, 3.0)
    assert (row["num_a"], row["num_b"], row["num_pairs"]) == (2, 2, 2)


def test_two_versions_that_differ_in_an_option_are_compared_cell_by_cell() -> None:
    a = _study(_seeds({1: 1.0}), options="default")
    b = _study(_seeds({1: 3.0}), options="train_images 400")
    result = study_difference(a, b)
    assert result.table["difference"].tolist() == [2.0]
    assert result.table["series"].tolist() == ["full_ft"]
    of_two = _study([*_seeds({1: 1.0}, options="default"), *_seeds({1: 5.0}, options="maps true")])
    assert study_difference(a, of_two).table["difference"].tolist() == [0.0]


def test_without_a_shared_seed_the_groups_are_compared_and_the_words_say_so() -> None:
    before, after = {1: 50.0, 2: 60.0}, {3: 75.0, 4: 64.0}
    result = study_difference(_study(_seeds(before)), _study(_seeds(after)))
    (row,) = result.table.to_dict("records")
    reference = scipy_stats.ttest_ind([75.0, 64.0], [50.0, 60.0], equal_var=False)
    assert row["num_pairs"] == 0
    assert row["p_value"] == pytest.approx(reference.pvalue)
    assert "groups of seeds are compared" in result.sentence


def test_cells_of_one_study_are_listed_and_not_compared() -> None:
    a = _study(_seeds({1: 1.0}) + _seeds({1: 2.0}, learning_rate=1e-4))
    b = _study(_seeds({1: 1.0}) + _seeds({1: 3.0}, method="lora_r8"))
    result = study_difference(a, b)
    assert result.only_a["learning_rate"].tolist() == [1e-4]
    assert result.only_b["series"].tolist() == ["lora_r8"]
    assert len(result.table) == 1


@pytest.mark.parametrize("key", ["model", "protocol", "transfer", "dataset"])
def test_what_makes_another_setting_makes_another_cell(key: str) -> None:
    a, b = _study(_seeds({1: 1.0})), _study(_seeds({1: 1.0}), **{key: "other"})
    result = study_difference(a, b)
    assert result.table.empty
    assert (len(result.only_a), len(result.only_b)) == (1, 1)
    assert result.sentence.startswith("No cell is in both")


def test_an_option_that_differs_between_the_studies_alone_is_in_the_name() -> None:
    a = _study(_seeds({1: 1.0}), weight_decay=0.0)
    b = _study(_seeds({1: 1.0}), weight_decay=0.1)
    result = study_difference(a, b)
    assert result.only_a["series"].tolist() == ["full_ft, weight decay 0"]
    assert result.only_b["series"].tolist() == ["full_ft, weight decay 0.1"]


def test_identical_runs_are_called_identical_and_not_tested() -> None:
    study = _study(_seeds({1: 1.0, 2: 5.0}))
    result = study_difference(study, study)
    assert result.num_identical_runs == result.num_common_runs == 2
    assert "Every run of both is identical" in result.sentence
    assert result.table["is_identical"].all()
    assert result.table["p_value"].isna().all()
    assert result.family["num_tests"] == 0


def test_cell_means_without_runs_differ_without_uncertainty() -> None:
    a, b = (_study([{"seed": math.nan, "num_runs": 5, "retention_pct": v}]) for v in (40.0, 50.0))
    (row,) = study_difference(a, b).table.to_dict("records")
    assert row["difference"] == 10.0
    assert math.isnan(row["low"])
    assert math.isnan(row["p_value"])


def test_runs_that_did_not_finish_are_left_out_and_counted() -> None:
    a = _study([*_seeds({1: 1.0}), *_seeds({2: 9.0}, status="diverged")])
    result = study_difference(a, _study(_seeds({1: 2.0, 2: 2.0})))
    assert [exclusion.count for exclusion in result.excluded] == [1]
    assert result.table["num_a"].tolist() == [1]


def test_all_panels_of_a_measure_share_both_axes() -> None:
    parts = {}
    for name, rates, level in (("A", (1e-4, 1e-3), 20.0), ("B", (1e-3, 1e-2), 80.0)):
        rows = [
            row for rate in rates for row in _seeds({1: level, 2: level + 5}, learning_rate=rate)
        ]
        runs = with_series(_study(rows).runs)
        parts[name] = (cells_frame(runs), runs)
    figure = draw(side_by_side_chart("r", parts, METRICS["retention_pct"]))
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < 20
    assert first.get_ylim()[1] > 85
    assert _overlaps(figure) == []


# ---------------------------------------------------------------- from folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("two")
    first, second = root / "first", root / "<second>"
    base = {"epochs": NUM_EPOCHS, "transfer_images": NUM_TRANSFER_IMAGES}
    axes = {"method": METHODS, "learning_rate": (1e-3, 3e-3), "seed": SEEDS}
    spec = StudySpec(name="two", base=base, axes=axes)
    StudyFolder(first).declare(spec)
    write_fake_study(first, rates=(1e-3, 3e-3), maps=False)
    shutil.copytree(first, second)
    path = sorted(second.glob("runs/*/result.json"))[0]
    result = json.loads(path.read_text())
    result["environment"]["versions"]["torch"] = "9.9"
    for point in ("selected", "last"):
        result[point]["drift"]["cka"] *= 0.9
    path.write_text(json.dumps(result))
    return first, second


def test_two_versions_of_a_study_make_a_page_with_what_changed(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["report", *map(str, folders), "--out", str(out), "--format", "html,csv,svg"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "7 of 8 common runs are identical in every measure" in said
    page = (out / "report.html").read_text()
    assert "B (&lt;second&gt;)" in page
    assert "<second>" not in page
    assert "environment.versions.torch" in page
    table = pd.read_csv(out / "tables" / "difference.csv")
    assert (~table["is_identical"]).sum() == 1
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg"}


def test_three_studies_stand_side_by_side_without_a_difference(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders[0], tmp_path / "third")
    out = tmp_path / "out"
    result = runner.invoke(
        app, ["study", "report", *map(str, folders), str(tmp_path / "third"), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text()
    assert "B against A" not in page
    assert "C (third)" in page


def test_specifications_that_differ_beyond_the_cells_are_listed(
    folders: tuple[Path, Path],
) -> None:
    studies = [OneStudy(name, (s := Study(folder)).tables(), s.records())
               for name, folder in zip("AB", folders, strict=True)]  # fmt: skip
    rows = specification_table(studies).rows
    assert [row["name"] for row in rows] == ["environment.versions.torch"]
    names = [table.name for table in difference_tables(
        study_difference(studies[0].study, studies[1].study))]  # fmt: skip
    assert names == ["difference"]


def test_what_cannot_stand_side_by_side_is_answered_by_a_sentence(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    def says(*arguments: str) -> str:
        result = runner.invoke(app, ["study", "report", *arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        return " ".join(result.output.split())

    first = str(folders[0])
    assert "given twice" in says(first, first)
    assert "no study folder" in says(first, str(tmp_path))
    refused = runner.invoke(app, ["study", "report", first, str(folders[1]), "--out", first])
    assert "holds a study" in " ".join(refused.output.split())
