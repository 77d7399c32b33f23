import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import METHODS, NUM_EPOCHS, NUM_TRANSFER_IMAGES, RATES, SEEDS, write_fake_study

from driftscope.analysis import answer
from driftscope.analysis.grouping import settings_apart
from driftscope.config import StudySpec
from driftscope.errors import RecordError
from driftscope.opened_study import Study
from driftscope.paper.author_records import import_records
from driftscope.records.columns import RUN_COLUMNS, TABLES
from driftscope.study import StudyFolder
from driftscope.study.import_command import import_study
from driftscope.study.status import study_status

SHARED = Path(__file__).parents[2] / "shared" / "records"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared/records is not here")
NUM_RUNS = len(METHODS) * len(RATES) * len(SEEDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    StudyFolder(root).declare(declaration())
    return write_fake_study(root, maps=False)


def declaration(**axes: tuple[object, ...]) -> StudySpec:
    base = {"epochs": NUM_EPOCHS, "transfer_images": NUM_TRANSFER_IMAGES}
    all_axes = {"method": METHODS, "learning_rate": RATES, "seed": SEEDS, **axes}
    return StudySpec(name="made-up", base=base, axes=all_axes)


def test_runs_have_the_documented_columns_and_types(folder: Path) -> None:
    runs = Study(folder).runs()
    assert len(runs) == NUM_RUNS
    expected = {name: one for name, one in RUN_COLUMNS.items() if not one.is_optional}
    assert list(runs.columns) == list(expected)
    for name, column in expected.items():
        kind = {"text": "O", "number": "f", "integer": "if"}[column.kind]
        assert runs[name].dtype.kind in kind or column.kind == "text", name
    assert runs["seed"].dtype == np.int64
    assert set(runs["origin"]) == {"run"}


def test_history_has_a_row_a_run_and_probe_and_layers_one_a_run_layer_and_head(
    folder: Path,
) -> None:
    study = Study(folder)
    history, layers = study.history(), study.heads()
    assert len(history) == NUM_RUNS * 4
    assert history["step"].dtype == np.int64
    one = layers[layers["run_id"] == layers["run_id"][0]]
    assert list(zip(one["layer"], one["head"], strict=True)) == [
        (layer, head) for layer in range(1, 7) for head in range(1, 5)
    ]
    record = study.records()[0]
    of_record = layers[layers["run_id"] == record.id]
    entropy = np.array(record.result.selected.reading.entropy).ravel()
    np.testing.assert_array_equal(of_record["entropy_nats"].to_numpy(), entropy)


def test_a_study_read_in_pieces_is_the_same_study(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    first, second, third, *_ = sorted((tmp_path / "runs").iterdir())
    (first / "result.json").write_text("{}")
    values = json.loads((second / "result.json").read_text())
    for name in ("selected", "last"):
        values[name]["test_accuracy_pct"] = None  # unknown in the whole of a piece
        values[name]["robustness"] = {}
    (second / "result.json").write_text(json.dumps(values))
    (third / "events.jsonl").unlink()
    whole = Study(tmp_path)
    tables = whole.tables()
    monkeypatch.setattr("driftscope.opened_study._TOGETHER", 1)
    pieces = Study(tmp_path)
    for name, table in vars(tables).items():
        pd.testing.assert_frame_equal(getattr(pieces.tables(), name), table, check_exact=True)
    assert list(pieces.damaged) == list(whole.damaged) == [first.name]
    assert pieces.outlines() == whole.outlines()


def test_a_study_without_finished_runs_has_empty_tables_with_all_columns(tmp_path: Path) -> None:
    StudyFolder(tmp_path).declare(declaration())
    study = Study(tmp_path)
    for name, columns in TABLES.items():
        table = getattr(study, "heads" if name == "layers" else name)()
        assert len(table) == 0
        assert list(table.columns) == list(columns)


def test_a_moved_study_reads_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(Study(tmp_path / "elsewhere").runs(), Study(folder).runs())


def test_runs_that_are_no_longer_declared_are_in_no_table(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s")
    StudyFolder(tmp_path / "s").declare(declaration(seed=SEEDS[:1]))
    study = Study(tmp_path / "s")
    assert set(study.runs()["seed"]) == set(SEEDS[:1])
    assert len(study.records()) == len(study.runs()) == NUM_RUNS // len(SEEDS)


def test_a_run_that_finishes_after_the_tables_are_read_is_of_no_earlier_declaration(
    folder: Path, tmp_path: Path
) -> None:
    running = shutil.copytree(folder, tmp_path / "running")
    last = Study(running).folder.finished()[-1]
    shutil.move(last, tmp_path / last.name)
    study = Study(running)
    num_runs = len(study.runs())
    shutil.move(tmp_path / last.name, last)
    assert study.undeclared == []
    assert len(Study(running).runs()) == num_runs + 1


def test_exported_tables_are_those_read_to_the_last_digit(folder: Path, tmp_path: Path) -> None:
    study = Study(folder)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "parquet": pd.read_parquet,
        "csv": lambda path: pd.read_csv(path, float_precision="round_trip"),
        "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
    }
    for form, read in readers.items():
        shapes = study.export(tmp_path / form, form)  # type: ignore[arg-type]
        assert {path.name: shape for path, shape in shapes.items()} == {
            f"runs.{form}": study.runs().shape,
            f"history.{form}": study.history().shape,
            f"layers.{form}": study.heads().shape,
            f"classes.{form}": study.classes().shape,
            f"rescues.{form}": study.rescues().shape,
            f"damage.{form}": study.damage().shape,
        }
        runs = read(tmp_path / form / f"runs.{form}")
        assert list(runs.columns) == [k for k, one in RUN_COLUMNS.items() if not one.is_optional]
        for name in ("learning_rate", "retention_pct", "weight_drift", "seed"):
            np.testing.assert_array_equal(runs[name], study.runs()[name], err_msg=name)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "parquet" / "runs.parquet"),
                                  study.runs())  # fmt: skip


def test_a_reading_is_read_by_run_id_and_an_unknown_run_is_named(folder: Path) -> None:
    study = Study(folder)
    run = study.records()[0]
    reading = study.reading(run.id)
    assert reading.entropy == run.result.selected.reading.entropy
    assert study.reading(run.id, "pretrained").num_layers == 6
    with pytest.raises(RecordError, match="no run 'nonsense'"):
        study.reading("nonsense")
    with pytest.raises(RecordError, match="has no adapted model"):
        study.model(run.id)


def test_the_documentation_names_every_column() -> None:
    text = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
    for table, columns in TABLES.items():
        section = text.split(f"## {table}\n")[1].split("\n## ")[0]
        documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert documented == list(columns), table


# ---------------------------------------------------------------- imported records


@needs_shared
def test_the_follow_ups_records_become_a_study_that_reads_like_our_own(tmp_path: Path) -> None:
    imported = import_study([SHARED / "followup"], tmp_path / "s")
    assert (imported.num_runs, imported.num_cells, imported.skipped) == (66, 0, ())
    study = Study(tmp_path / "s")
    status = study_status(study.folder, study.folder.runs())
    assert (status.num_runs, status.counts["done"], status.is_over) == (66, 66, True)
    runs = study.runs().sort_values("run_id", ignore_index=True)
    ours = imported.tables.runs.sort_values("run_id", ignore_index=True)
    assert len(runs) == 66
    assert runs["origin"].str.startswith("import:S2_").all()
    for name in ours.columns.intersection(runs.columns):
        if ours[name].dtype.kind in "if":
            np.testing.assert_allclose(runs[name], ours[name].astype(float), err_msg=name)
        else:
            assert list(runs[name]) == list(ours[name]), name
    history = study.history().sort_values(["run_id", "epoch"], ignore_index=True)
    theirs = imported.tables.history.sort_values(["run_id", "epoch"], ignore_index=True)
    np.testing.assert_allclose(history["retention_pct"], theirs["retention_pct"])
    assert len(study.heads()) == 66 * 12
    assert study.heads()["head"].isna().all()
    assert study.tables().layers["cka"].notna().all()


@needs_shared
def test_answers_are_the_same_from_the_imported_study_as_from_the_records(tmp_path: Path) -> None:
    import_study([SHARED / "followup"], tmp_path)
    here = answer("selection", Study(tmp_path).tables())
    there = answer("selection", import_records([SHARED / "followup"]).tables)
    assert here.sentence == there.sentence
    pd.testing.assert_frame_equal(here.table, there.table)


@needs_shared
def test_cell_means_are_cells_without_runs(tmp_path: Path) -> None:
    cells = SHARED / "published" / "controlled_cells.csv"
    imported = import_study([cells], tmp_path, pretrained_zero_shot_pct=60.22)
    assert (imported.num_runs, imported.num_cells) == (0, 16)
    runs = Study(tmp_path).runs()
    assert len(runs) == 16
    assert runs["seed"].isna().all()
    assert set(runs["num_runs"]) == {5}
    assert list(runs.columns) == [k for k, one in RUN_COLUMNS.items() if not one.is_optional]
    mean = runs[(runs["dataset"] == "eurosat") & (runs["method"] == "full_ft")]
    assert mean["delta_entropy_pct"].mean() == pytest.approx(-0.47, abs=0.005)


def test_damaged_and_unknown_records_are_named_counted_and_passed_over(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "torn.json").write_text('{"config": {')
    (files / "other.json").write_text(json.dumps({"weights": [1, 2]}))
    (files / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecordError, match=r"nothing to import .*other\.json"):
        import_study([files], tmp_path / "s")
    assert not (tmp_path / "s").exists()
    if SHARED.exists():
        good = next((SHARED / "followup").glob("*.json"))
        shutil.copy(good, files)
        imported = import_study([files], tmp_path / "s")
        assert imported.num_runs == 1
        assert sorted(Path(one.path).name for one in imported.skipped) == [
            "other.json",
            "table.csv",
            "torn.json",
        ]


# ---------------------------------------------------------------- runs that are missing


@pytest.fixture
def partly(folder: Path, tmp_path: Path) -> Path:
    """Of the declared runs the last seed's are missing: one has failed, one is damaged."""
    root = shutil.copytree(folder, tmp_path / "partly")
    last = [one.folder for one in Study(root).records() if one.spec.seed == SEEDS[-1]]
    (last[0] / "result.json").write_text("{}")
    (last[1] / "result.json").unlink()
    (last[1] / "failure.json").write_text(
        '{"error": "E", "message": "m", "traceback": "t", "when": "w"}'
    )
    for run in last[2:]:
        shutil.rmtree(run)
    return root


def test_a_study_tells_the_declared_runs_that_are_in_no_table(folder: Path, partly: Path) -> None:
    assert Study(folder).missing.empty
    missing = Study(partly).missing
    assert set(missing["seed"]) == {SEEDS[-1]}
    waiting = NUM_RUNS // len(SEEDS) - 2
    assert missing["state"].value_counts().to_dict() == {
        "waiting": waiting, "failed": 1, "damaged": 1
    }  # fmt: skip
    whole = Study(folder).runs().set_index("run_id")
    for row in missing.drop(columns=["state", "transfer"]).to_dict("records"):
        declared = whole.loc[row.pop("run_id"), list(row)].to_dict()
        assert {k: v for k, v in row.items() if v == v} == {
            k: v for k, v in declared.items() if v == v
        }


def test_advice_of_a_partly_finished_study_says_so_and_claims_no_more(
    folder: Path, partly: Path
) -> None:
    per_seed = NUM_RUNS // len(SEEDS)
    [whole] = answer("frontier", Study(folder).tables()).advice
    assert "declared" not in whole.verdict
    tables = Study(partly).tables()
    [advice] = answer("frontier", tables).advice
    said = f", by {NUM_RUNS - per_seed} of {NUM_RUNS} declared runs so far: "
    assert said in advice.verdict
    assert "of all" not in advice.verdict
    one = tables.where([f"method={METHODS[0]}", "cka>=0"])
    [narrow] = answer("frontier", one).advice
    num = len(RATES) * len(SEEDS)
    assert f", by {num - len(RATES)} of {num} declared runs so far: " in narrow.verdict
    [done] = answer("frontier", tables.only(seed=SEEDS[:-1])).advice
    assert "declared" not in done.verdict


@pytest.mark.parametrize("key", ["model", "protocol", "options"])
def test_missing_runs_of_a_setting_that_has_not_begun_are_not_counted(
    partly: Path, key: str
) -> None:
    tables = Study(partly).tables()
    other = "templates x" if key == "options" else "another"
    theirs = tables.missing.assign(**{key: other, "run_id": "o" + tables.missing["run_id"]})
    both = replace(tables, missing=pd.concat([tables.missing, theirs], ignore_index=True))
    [(_, part)] = settings_apart(both)
    assert set(part.missing["run_id"]) == set(tables.missing["run_id"])
    per_seed = NUM_RUNS // len(SEEDS)
    [advice] = answer("frontier", both).advice
    assert f", by {NUM_RUNS - per_seed} of {NUM_RUNS} declared runs so far: " in advice.verdict


def test_a_condition_on_a_result_claims_no_share_of_the_declared_runs(partly: Path) -> None:
    tables = Study(partly).tables()
    middle = tables.runs["cka"].median()
    narrow = tables.where([f"cka>={middle}"])
    num, missing = len(narrow.runs), NUM_RUNS // len(SEEDS)
    assert num < len(tables.runs)
    [advice] = answer("frontier", narrow).advice
    said = f", by {num} runs that fit so far, while {missing} more are declared: "
    assert said in advice.verdict


def test_missing_runs_are_counted_in_the_setting_that_waits_for_them(partly: Path) -> None:
    tables = Study(partly).tables()
    runs = pd.concat([tables.runs, tables.runs.assign(transfer="pets (k-NN)")], ignore_index=True)
    theirs = pd.concat([tables.missing[:2].assign(transfer="pets"), tables.missing[2:]])
    both = replace(tables, runs=runs, missing=theirs.assign(model="mini"))
    counts = {name["transfer"]: len(part.missing) for name, part in settings_apart(both)}
    of_one = len(theirs) - 2
    assert counts == {"concepts100": of_one, "pets (k-NN)": 2}
