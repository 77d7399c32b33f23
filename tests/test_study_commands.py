import json
import re
from collections.abc import Callable
from pathlib import Path

import fake_runs
import pandas as pd
import pytest
import yaml
from fake_runs import RUN_ONE, order
from fake_study import METHODS, RATES, SEEDS, write_fake_study
from pools import InThisProcess
from typer.testing import CliRunner

from driftscope.cli import app, terminal
from driftscope.cli.study import RunPlace, _calibrated
from driftscope.config import StudySpec
from driftscope.executors import local
from driftscope.executors.local import LocalPool
from driftscope.opened_study import Study
from driftscope.records import RESULT_FILE, read_json
from driftscope.study import StudyFolder, plan

SHARED = Path(__file__).parents[2] / "shared" / "records"
runner = CliRunner()
Says = Callable[..., str]


def says(arguments: list[str], *, code: int = 0) -> str:
    """What the command answers, on both channels, in one line."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    base = {"epochs": 4, "transfer_images": 5000}
    axes = {"method": METHODS, "learning_rate": RATES, "seed": (*SEEDS, 99)}
    StudyFolder(root).declare(StudySpec(name="made-up", base=base, axes=axes))
    return write_fake_study(root)


def test_a_study_is_planned_run_watched_exported_analysed_and_reported(
    tiny_run: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "study.yaml", str(tmp_path / "out")
    base = {key: value for key, value in tiny_run.items() if key not in ("method", "dataset")}
    nowhere = str(tmp_path / "later")
    values = {
        "name": "tiny",
        "base": {**base, "epochs": 1},
        "axes": {"dataset": [str(tiny_run["dataset"])], "method": ["full_ft", "lora"]},
        "extra": [{"dataset": nowhere, "method": "full_ft"}],
    }
    study.write_text(yaml.safe_dump(values))
    planned = says(["study", "plan", str(study)], code=1)
    assert "3 runs in 3 cells: 0 done, 0 failed, 3 to run." in planned
    assert f"Would fail, 1 run: no dataset '{nowhere}'" in planned
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text("name: x\nbase: {dataset: terain, method: full_ft, learning_rate: 1e-3}\n")
    refused = runner.invoke(app, ["study", "plan", str(misspelt)])
    assert refused.exit_code == 2
    assert "did you mean 'terrain'" in " ".join(refused.output.split())

    with monkeypatch.context() as here:  # a worker takes seconds to start; the study has one
        here.setattr(local, "LocalPool", InThisProcess)
        measured = says(["study", "plan", str(study), "--calibrate", "--only", "method=lora"])
    assert "(from 1 measured runs)" in measured

    command = ["study", "run", str(study), "--out", out, "--workers", "1", "--threads", "1"]
    command += ["--device", "cpu"]
    assert "no run fits" in says([*command, "--only", "method=bitfit"], code=2)
    said = says(command, code=1)
    assert "1 of 3 runs failed" in said
    assert "no dataset" in said
    assert "--retry-failed" in said
    done = {path: path.stat().st_mtime_ns for path in Path(out).glob("runs/*/result.json")}
    assert len(done) == 2

    assert "2 done, 1 failed" in says(["study", "status", out])
    status = json.loads(runner.invoke(app, ["study", "status", out, "--json"]).stdout)
    assert status["is_over"]
    assert status["counts"]["failed"] == 1
    assert "2 done, 1 failed" in says(["watch", out])
    plan = says(["study", "plan", str(study), "--out", out])
    assert "2 done, 1 failed, 0 to run." in plan
    assert "2 measured runs" in plan

    assert "1 of 3 runs failed" in says(command, code=1)  # and is not tried again
    Path(nowhere).symlink_to(str(tiny_run["dataset"]))
    monkeypatch.setattr(local, "LocalPool", InThisProcess)
    assert "Report:" in says([*command, "--retry-failed"])
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was done was left alone

    assert "runs.parquet: 3 rows" in says(["study", "export", out])
    runs = pd.read_parquet(Path(out) / "export" / "runs.parquet")
    assert sorted(runs["method"]) == ["full_ft", "full_ft", "lora_r8"]
    model = Study(out).model(runs["run_id"][0])
    assert model.embed_images is not None
    assert "report.html" in says(["study", "report", out, "--out", str(tmp_path / "report")])
    assert "can't answer" in says(["study", "analyse", out, "--question", "dose_response"])


def test_a_study_of_which_no_run_succeeds_ends_with_1_and_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunPlace, "pool", lambda _: LocalPool(1, devices=["cpu"], run_one=RUN_ONE))
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text("name: fake\nbase: {method: full_ft, learning_rate: 1e-3, seed: 1}\n")
    (out / "runs").mkdir(parents=True)
    order(out, 1, 1, "fail")
    said = says(["study", "run", study, "--out", out], code=1)
    assert "1 of 1 runs failed" in said
    assert "ValueError: as ordered" in said


def test_a_calibration_is_carried_out_as_the_study_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "sample", lambda _, folder: read_json(folder / RESULT_FILE))
    pool = LocalPool(2, threads=3, devices=["cpu"], run_one=RUN_ONE)
    (taken,) = _calibrated([fake_runs.spec(seed) for seed in (1, 2)], pool)
    assert (taken["threads"], taken["device"]) == ("3", "cpu")


def test_analysis_answers_in_words_and_as_json(made_up: Path) -> None:
    said = says(["study", "analyse", str(made_up), "--question", "predictors"])
    assert "retention goes most closely with" in said
    result = runner.invoke(
        app, ["study", "analyse", str(made_up), "--question", "frontier", "--json"]
    )
    assert [one["question"] for one in json.loads(result.stdout)] == ["frontier"]
    unknown = says(["study", "analyse", str(made_up), "--question", "frontiers"], code=2)
    assert "did you mean 'frontier'" in unknown


def test_a_report_is_written_in_the_formats_that_are_named(made_up: Path, tmp_path: Path) -> None:
    arguments = ["study", "report", str(made_up), "--out", str(tmp_path), "--format"]
    said = says([*arguments, "csv,tex,png"])
    assert "Tables:" in said
    assert "Figures:" in said
    assert not (tmp_path / "report.html").exists()
    assert {path.suffix for path in (tmp_path / "tables").iterdir()} == {".csv", ".tex"}
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".png"}
    assert "unknown format 'pgn': did you mean 'png'" in says([*arguments, "csv,pgn"], code=2)
    assert "names nothing" in says([*arguments, ","], code=2)


def test_imported_cell_means_are_reported_though_there_are_no_runs(tmp_path: Path) -> None:
    lines = ["dataset,method,learning_rate,n,target_accuracy_pct,delta_entropy_pct,"
             "cifar100_zero_shot_pct", "EuroSAT,Full FT,1e-5,5,99.3,-0.1,12.7",
             "EuroSAT,Full FT,5e-5,5,98.9,-4.2,2.1"]  # fmt: skip
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    says(["import", str(tmp_path / "cells.csv"), "--out", str(tmp_path / "study")])
    said = says(["study", "report", str(tmp_path / "study"), "--format", "html,md,svg"])
    assert "Report:" in said
    text = (tmp_path / "study" / "tables" / "grid_means.md").read_text()
    assert "−2.15" in text


@pytest.mark.parametrize("width", [80, 100])
def test_an_answer_keeps_the_columns_that_answer_on_a_narrow_terminal(
    width: int, made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.out, "width", width)
    answer = runner.invoke(app, ["study", "analyse", str(made_up), "--question", "predictors"])
    lines = answer.output.splitlines()
    assert max(map(len, lines)) <= width
    assert "Spearman" in answer.output
    rows = [line for line in lines if " final " in line and " CKA " in line]
    assert rows
    assert all(re.search(r" [+−]\d\.\d{3}", row) for row in rows)
    assert "more columns: --wide prints them" in answer.output
    arguments = ["study", "analyse", str(made_up), "--question", "predictors", "--wide"]
    wide = runner.invoke(app, arguments).output
    assert "n (cells)" in wide


def test_a_narrow_terminal_breaks_no_word_and_says_who_is_minus_whom(
    made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.out, "width", 80)
    asked = ["--question", "seed_contrasts", "--question", "method_contrast"]
    said = runner.invoke(app, ["study", "analyse", str(made_up), *asked]).output
    assert max(map(len, said.splitlines())) <= 80
    assert "First − second lora_r8 − full_ft" in said
    assert "Baseline full_ft" in said
    words = set(re.findall(r"[a-z]{3,}", said))
    assert {"retention", "accuracy", "validation", "embedding"} <= words
    broken = {name[:cut] for name in ("retention", "validation") for cut in range(3, len(name))}
    assert not broken & words


def test_status_tells_cells_and_what_is_waiting(made_up: Path) -> None:
    said = says(["study", "status", str(made_up)])
    assert "18 runs: 12 done, 6 waiting" in said


def test_a_plan_as_json_says_what_exists_and_what_it_will_take(made_up: Path) -> None:
    study = made_up / "study.json"
    path = made_up.parent / "made-up.yaml"
    path.write_text(yaml.safe_dump(json.loads(study.read_text())["study"]))
    arguments = ["study", "plan", str(path), "--out", str(made_up), "--json", "--workers", "2"]
    plan = json.loads(runner.invoke(app, arguments).stdout)
    assert (plan["num_runs"], plan["num_done"], plan["num_to_run"]) == (18, 12, 6)
    assert plan["cells"][0]["seeds"] == [0, 1, 99]


def test_a_folder_without_a_study_is_answered_by_a_sentence(tmp_path: Path) -> None:
    for command in ("status", "export", "analyse", "report"):
        assert "no study folder" in says(["study", command, str(tmp_path)], code=2)
    assert "no study 'nowhere.yaml'" in says(["study", "plan", "nowhere.yaml"], code=2)


def test_two_studies_do_not_share_a_folder(made_up: Path, tmp_path: Path) -> None:
    arguments = ["study", "plan", "mini-lr-sweep", "--out", str(made_up)]
    assert "holds the study 'made-up'" in says(arguments, code=2)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/records is not here")
def test_what_was_imported_is_looked_over_analysed_and_reported_like_any_study(
    tmp_path: Path,
) -> None:
    out = str(tmp_path / "s")
    cells = str(SHARED / "published" / "controlled_cells.csv")
    (tmp_path / "other.json").write_text('{"weights": [1]}')
    files = [
        cells,
        str(tmp_path / "other.json"),
        *map(str, SHARED.glob("followup/*eurosat*seed7*.json")),
    ]
    said = says(["import", *files, "--out", out])
    assert "16 cell means imported, 1 skipped" in said
    assert "other.json" in said
    assert "done" in says(["study", "status", out])
    assert "runs.parquet" in says(["study", "export", out])
    assert "selection" in says(["study", "analyse", out, "--question", "selection"])
    assert "report.html" in says(["study", "report", out])
    says(["import", cells, "--out", str(tmp_path / "cells")])
    assert "no runs, means of cells" in says(["study", "status", str(tmp_path / "cells")])
    assert "report.html" in says(["study", "report", str(tmp_path / "cells")])


def test_import_says_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    said = says(["import", str(tmp_path / "torn.json"), "--out", str(tmp_path / "s")], code=2)
    assert "nothing to import" in said
    assert "torn.json" in said


@pytest.mark.parametrize("key", ["dataset", "transfer"])
def test_a_misspelt_dataset_is_told_before_anything_is_run_or_written(
    key: str, tmp_path: Path
) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    values = {"dataset": "[terrain, terrian]", "transfer": "[[terrian]]"}
    base = "{method: full_ft, learning_rate: 1e-3}"
    study.write_text(f"name: slip\nbase: {base}\naxes: {{{key}: {values[key]}}}\n")
    said = says(["study", "run", str(study), "--out", str(out)], code=2)
    assert "no dataset 'terrian'" in said
    assert "did you mean 'terrain'?" in said
    assert not out.exists()


def test_a_partly_finished_study_says_what_is_missing_beside_its_advice_and_on_its_page(
    made_up: Path, tmp_path: Path
) -> None:
    num_there, num_missing = len(METHODS) * len(RATES) * len(SEEDS), len(METHODS) * len(RATES)
    declared = num_there + num_missing
    missing = f"{num_missing} of {declared} declared runs are in no table ({num_missing} waiting)"
    said = says(["study", "analyse", str(made_up), "--question", "frontier"])
    assert missing in said
    assert f", by {num_there} of {declared} declared runs so far: " in said
    assert missing in says(["study", "report", str(made_up), "--out", str(tmp_path)])
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert f"{missing}: what is best so far need not be best in the end." in page
    both = str(tmp_path / "both")
    whole = tmp_path / "whole"
    axes = {"method": METHODS, "learning_rate": RATES, "seed": SEEDS}
    base = {"epochs": 4, "transfer_images": 5000}
    StudyFolder(whole).declare(StudySpec(name="whole", base=base, axes=axes))
    write_fake_study(whole)
    assert "declared runs" not in says(["study", "report", str(whole)])
    assert "declared runs" not in (whole / "report.html").read_text()
    assert missing in says(["study", "report", str(made_up), str(whole), "--out", both])
    assert "Missing" in (tmp_path / "both" / "report.html").read_text()
