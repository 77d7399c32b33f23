import json
from copy import deepcopy
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from driftscope.analysis import QUESTIONS, answer
from driftscope.cli import app
from driftscope.errors import RecordError
from driftscope.opened_study import Study
from driftscope.paper.author_records import import_records
from driftscope.study.import_command import AUTHORS_FILE, import_study

SHARED = Path(__file__).parents[2] / "shared" / "records"
needs_records = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="the authors' records (shared/records beside the repository) are not here",
)

CELLS = (
    "dataset,method,learning_rate,n,target_accuracy_pct,delta_entropy_pct,"
    "cifar100_zero_shot_pct\n"
    "EuroSAT,Full FT,1e-6,5,98.82,1.83,15.90\n"
    "Oxford-IIIT Pets,LoRA r=8,5e-5,5,91.91,-0.75,51.91\n"
)


def record(seed: int = 7) -> dict[str, Any]:
    """A follow-up record of two layers and two epochs, made by hand."""
    epoch = {
        "epoch": 1,
        "train_loss": 1.5,
        "train_acc": 0.5,
        "val_acc": 0.7,
        "delta_entropy_pct": 0.5,
        "delta_erf95_pct": 0.25,
        "delta_gini_pct": -2.0,
        "cka_mean": 0.95,
        "embedding_drift": 0.125,
        "weight_drift_rel": 0.001,
        "transfer_track_retention": 0.75,
    }
    return {
        "run_id": f"R_{seed}",
        "config": {
            "dataset": "eurosat",
            "method": "lora_r8",
            "lr": 1e-5,
            "seed": seed,
            "epochs": 2,
            "batch_size": 32,
            "weight_decay": 0.01,
            "model_name": "openai/clip-vit-base-patch32",
            "steps_per_epoch": 50,
        },
        "parameters": {"trainable": 10, "total": 100},
        "diverged": False,
        "baseline": {
            "attention": {
                "entropy_per_layer": [3.0, 2.0],
                "erf95_per_layer": [0.8, 0.5],
                "gini_per_layer": [0.25, 0.5],
            }
        },
        "history": [epoch, {**epoch, "epoch": 2, "train_loss": 0.5, "delta_entropy_pct": 1.0}],
        "selected_epoch": 2,
        "best_val_acc": 0.75,
        "test_acc": 0.5,
        "final": {
            "attention": {
                "entropy_per_layer": [3.03, 2.02],
                "erf95_per_layer": [0.88, 0.45],
                "gini_per_layer": [0.2, 0.6],
            },
            "delta_entropy_pct": 1.0,
            "delta_erf95_pct": 0.5,
            "delta_gini_pct": -4.0,
            "delta_entropy_per_layer_pct": [1.0, 1.0],
            "cka_per_layer": [0.99, 0.91],
            "cka_mean": 0.95,
            "embedding_drift": 0.25,
            "weight_drift_rel": 0.002,
        },
        "transfer": {
            "cifar100": {
                "accuracy": 0.3,
                "pretrained": 0.6,
                "retention": 0.5,
                "n_images": 10000,
            }
        },
        "runtime_seconds": 12.5,
    }


def written(folder: Path, name: str, content: dict[str, Any] | str) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_record_becomes_a_run_with_percent_where_it_kept_ratios(tmp_path: Path):
    imported = import_records([written(tmp_path, "a.json", record())])
    (run,) = imported.tables.runs.to_dict(orient="records")
    expected = {
        "run_id": "R_7",
        "dataset": "eurosat",
        "method": "lora_r8",
        "method_kind": "lora",
        "learning_rate": 1e-5,
        "seed": 7,
        "protocol": "leakfree",
        "status": "done",
        "origin": "import:a.json",
        "train_loss": 0.5,
        "val_accuracy_pct": 75.0,
        "test_accuracy_pct": 50.0,
        "transfer": "cifar100",
        "pretrained_zero_shot_pct": 60.0,
        "zero_shot_pct": 30.0,
        "zero_shot_num_images": 10000,
        "retention_pct": 50.0,
        "cka": 0.95,
        "weight_drift": 0.002,
        "wall_seconds": 12.5,
    }
    assert {name: run[name] for name in expected} == pytest.approx(expected)
    assert (imported.num_runs, imported.num_cells, imported.skipped) == (1, 0, ())


def test_a_record_becomes_history_and_layers(tmp_path: Path):
    tables = import_records([written(tmp_path, "a.json", record())]).tables
    assert list(tables.history["epoch"]) == [1, 2]
    assert list(tables.history["step"]) == [50, 100]
    assert list(tables.history["retention_pct"]) == [75.0, 75.0]
    assert list(tables.history["delta_entropy_pct"]) == [0.5, 1.0]
    assert list(tables.layers["layer"]) == [1, 2]
    assert list(tables.layers["delta_erf95_pct"]) == pytest.approx([10.0, -10.0])
    assert list(tables.layers["delta_gini_pct"]) == pytest.approx([-20.0, 20.0])
    assert list(tables.layers["entropy_nats"]) == [3.03, 2.02]


def test_a_diverged_run_says_so(tmp_path: Path):
    content = {**record(), "diverged": True}
    runs = import_records([written(tmp_path, "a.json", content)]).tables.runs
    assert list(runs["status"]) == ["diverged"]


def damaged(path: str, value: Any) -> dict[str, Any]:
    content = deepcopy(record())
    *parents, last = path.split("/")
    inner: Any = content
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("config/method", "prompt_tuning", "unknown method 'prompt_tuning'"),
        ("config/seed", "seven", "'seed' is missing or no int"),
        ("config/seed", True, "'seed' is missing or no int"),
        ("transfer/cifar100/retention", None, "'retention' is missing"),
        ("transfer/cifar100", KeyError, "'cifar100' is missing"),
        ("transfer/cifar100/accuracy", 30.0, "between 0 and 1"),
        ("final/cka_mean", 1.2, "'cka_mean' must lie between 0 and 1"),
        ("final/delta_entropy_pct", float("nan"), "no finite number"),
        ("final/cka_per_layer", [0.9], "cka has 1 layers and the entropy 2"),
        ("final/attention/gini_per_layer", [0.9], "does not fit"),
        ("history", [], "no epochs"),
        ("history/1/train_loss", "low", "'train_loss' is missing or no finite number"),
        ("final", KeyError, "not a run record"),
        ("config/splits", None, "'splits' is missing or no dict"),
        ("config/splits", {"train": "many"}, "train_images is 'many'"),
        ("config/lr", 0.0, "learning_rate is 0.0"),
        ("config/epochs", 0, "epochs is 0"),
        ("config/seed", -1, "seed is -1"),
        ("baseline/attention/entropy_per_layer", KeyError, "'entropy_per_layer' is missing"),
        ("baseline/attention/entropy_per_layer", [3.0], "baseline has 1 layers"),
        ("runtime_seconds", 10**400, "'runtime_seconds' must lie between"),
        ("run_id", "../../x", "the run id '../../x' is not made of"),
        ("run_id", "..", "the run id '..' is not made of"),
    ],
)
def test_a_damaged_record_is_named_skipped_and_counted(
    tmp_path: Path, path: str, value: Any, reason: str
):
    good = written(tmp_path, "good.json", record(seed=11))
    bad = written(tmp_path, "bad.json", damaged(path, value))
    imported = import_study([bad, good], tmp_path / "study")
    assert imported.num_runs == 1
    (skipped,) = imported.skipped
    assert skipped.path == str(bad)
    assert reason in skipped.reason
    assert list(Study(tmp_path / "study").runs()["run_id"]) == ["R_11"]
    for table in (imported.tables.runs, imported.tables.history, imported.tables.layers):
        assert set(table["run_id"]) == {"R_11"}


def test_torn_json_and_foreign_files_are_skipped(tmp_path: Path):
    written(tmp_path, "torn.json", json.dumps(record())[:-40])
    written(tmp_path, "list.json", "[1, 2]")
    written(tmp_path, "other.csv", "a,b\n1,2\n")
    written(tmp_path, "binary.json", "").write_bytes(b"\xff\xfe\x00")
    imported = import_records([tmp_path])
    assert (imported.num_runs, imported.num_cells) == (0, 0)
    reasons = {Path(skip.path).name: skip.reason for skip in imported.skipped}
    assert set(reasons) == {"torn.json", "list.json", "other.csv", "binary.json"}
    assert "lacks the columns dataset" in reasons["other.csv"]


def test_a_run_given_twice_is_counted_once(tmp_path: Path):
    paths = [written(tmp_path, name, record()) for name in ("a.json", "b.json")]
    imported = import_records(paths)
    assert imported.num_runs == 1
    assert "already read" in imported.skipped[0].reason


def test_cells_are_added_to_those_of_an_earlier_import_and_replace_the_same(tmp_path: Path):
    head, one, two = CELLS.splitlines()
    for name, lines in (
        ("a.csv", [head, one, two]),
        ("b.csv", [head, one.replace("98.8", "97.8")]),
    ):
        import_study([written(tmp_path, name, "\n".join(lines))], tmp_path / "study")
    runs = Study(tmp_path / "study").runs()
    assert list(runs["val_accuracy_pct"]) == [97.82, 91.91]


def test_an_imported_record_holds_no_full_reading_and_says_so(tmp_path: Path):
    import_study([written(tmp_path, "a.json", record())], tmp_path / "study")
    for point in ("pretrained", "selected"):
        with pytest.raises(RecordError, match=r"run R_7 \(import:a\.json\) holds no full reading"):
            Study(tmp_path / "study").reading("R_7", point)


def test_a_path_that_does_not_exist_is_an_error():
    with pytest.raises(RecordError, match=r"no record nowhere\.json"):
        import_records(["nowhere.json"])


def test_cells_become_rows_without_a_seed(tmp_path: Path):
    imported = import_records([written(tmp_path, "cells.csv", CELLS)])
    runs = imported.tables.runs
    assert (imported.num_runs, imported.num_cells) == (0, 2)
    assert list(runs["num_runs"]) == [5, 5]
    assert runs["seed"].isna().all()
    assert runs["retention_pct"].isna().all()
    assert list(runs["method"]) == ["full_ft", "lora_r8"]
    assert set(runs["protocol"]) == {"paper"}


def test_the_retention_of_cells_is_known_once_the_pretrained_score_is(tmp_path: Path):
    path = written(tmp_path, "cells.csv", CELLS)
    runs = import_records([path], pretrained_zero_shot_pct=60.22).tables.runs
    assert list(runs["retention_pct"]) == pytest.approx([100 * 15.90 / 60.22, 100 * 51.91 / 60.22])


def test_a_damaged_line_of_cells_is_named_by_its_number(tmp_path: Path):
    text = CELLS.replace("91.91", "ninety") + "ImageNet,Full FT,1e-6,5,1,1,1\n"
    imported = import_records([written(tmp_path, "cells.csv", text)])
    assert imported.num_cells == 1
    assert [skip.path.rsplit(", ")[-1] for skip in imported.skipped] == ["line 3", "line 4"]


@needs_records
def test_all_66_follow_up_records_are_read():
    imported = import_records([SHARED / "followup"])
    assert (imported.num_runs, imported.skipped) == (66, ())
    tables = imported.tables
    assert len(tables.history) == 66 * 6
    assert len(tables.layers) == 66 * 12
    assert tables.runs["retention_pct"].between(0, 110).all()
    ratio = 100 * tables.runs["zero_shot_pct"] / tables.runs["pretrained_zero_shot_pct"]
    assert (ratio - tables.runs["retention_pct"]).abs().max() < 1e-9


@needs_records
def test_every_question_takes_runs_and_cells_together_without_mixing_protocols():
    tables = import_records([SHARED / "followup", SHARED / "published"]).tables
    for question in QUESTIONS:
        result = answer(question, tables)
        assert result.sentence.startswith("leakfree: ")  # each setting is named and answered apart
        assert " paper: " in result.sentence
        if not result.table.empty:
            assert {"model", "protocol", "transfer"} <= set(result.table.columns)
            by_protocol = result.table.groupby("protocol")
            assert len(by_protocol) == result.table["protocol"].nunique()
        json.dumps(result.to_dict(), allow_nan=False)


@needs_records
def test_the_published_numbers_file_is_no_record_and_is_named():
    imported = import_records([SHARED / "published"])
    assert imported.num_cells == 16
    assert [Path(skip.path).name for skip in imported.skipped] == ["published_numbers.json"]
    assert isinstance(imported.tables.runs, pd.DataFrame)


def test_what_the_record_holds_beyond_our_columns_is_kept(tmp_path: Path):
    further = {"accuracy": 0.6, "pretrained": 0.8, "retention": 0.75, "n_images": 2000}
    given = record()
    given["transfer"] = {"cifar10": further, **given["transfer"]}
    given["corruption_acc"] = {"contrast": 0.25, "pixelate": 0.5}
    given["interventions"] = {"erase_top_patches": {"accuracy": 0.1}}
    (tmp_path / "records" / "deep").mkdir(parents=True)
    written(tmp_path / "records" / "deep", "a.json", given)
    assert import_study([tmp_path / "records"], tmp_path / "s").num_runs == 1  # in a folder below
    study = Study(tmp_path / "s")
    (run,) = study.records()
    assert run.main_transfer == "cifar100"
    assert run.result.pretrained.transfer["cifar10"].accuracy_pct == 80
    (row,) = study.runs().to_dict(orient="records")
    assert (row["zero_shot_pct"], row["retention_pct"]) == (30, 50)
    assert (row["zero_shot_pct_cifar10"], row["retention_pct_cifar10"]) == (60, 75)
    assert (row["test_accuracy_pct_contrast"], row["test_accuracy_pct_pixelate"]) == (25, 50)
    assert study.history()["train_accuracy_pct"].tolist() == [50, 50]
    kept = json.loads((run.folder / AUTHORS_FILE).read_text())
    assert kept == given


def test_corrupted_accuracies_that_are_none_are_skipped_with_the_reason(tmp_path: Path):
    given = {**record(), "corruption_acc": {"contrast": 25}}
    imported = import_records(
        [written(tmp_path, "a.json", given), written(tmp_path, "b.json", record(8))]
    )
    assert imported.num_runs == 1
    assert "'contrast' must lie between 0 and 1" in imported.skipped[0].reason


@needs_records
def test_the_published_core_runs_can_be_chosen_by_the_command(tmp_path: Path):
    """And each keeps what it says beyond our columns."""
    import_study([SHARED / "followup"], tmp_path / "s")
    runs = Study(tmp_path / "s").runs().set_index("run_id")
    for file in sorted((SHARED / "followup").glob("*.json")):
        said, row = json.loads(file.read_text()), runs.loc[json.loads(file.read_text())["run_id"]]
        further = said["transfer"].get("cifar10", {})
        kept = {f"test_accuracy_pct_{name}": of for name, of in said["corruption_acc"].items()}
        kept["retention_pct_cifar10"] = further.get("retention", nan)
        for name, share in kept.items():
            assert row[name] == pytest.approx(100 * share, nan_ok=True)
    asked = ["study", "analyse", str(tmp_path / "s"), "--question", "stability"]
    done = CliRunner().invoke(app, [*asked, "--where", "method=full_ft|lora_r8"])
    assert done.exit_code == 0
    assert "48 of 66 runs, method=full_ft|lora_r8" in done.output.replace("\n", " ")
