"""A path may be given as text, and `~` is a home, wherever a public name takes one."""

from pathlib import Path

import pytest
from fake_study import write_fake_study

import driftscope as ds
from driftscope.analysis.calibration import load_calibration
from driftscope.errors import RecordError
from driftscope.study.folder import StudyFolder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a study and specs."""
    folder = tmp_path_factory.mktemp("home")
    write_fake_study(folder / "study", rates=(1e-3,), maps=False)
    (folder / "run.yaml").write_text("{method: lora, learning_rate: 0.1}")
    (folder / "study.yaml").write_text("{name: x, base: {method: lora, learning_rate: 0.1}}")
    declared = ds.load_study_spec(folder / "study.yaml")
    StudyFolder(folder / "study").declare(declared)
    return folder


@pytest.mark.parametrize("form", [str, Path])
def test_a_path_is_text_or_a_path_and_may_begin_at_home(
    form: type, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    first, *others = ds.load_runs(home / "study")
    for start in (str(home), "~"):
        study = form(f"{start}/study")
        assert len(ds.load_runs(study)) == len(others) + 1
        assert ds.Study(study).spec == ds.Study(home / "study").spec
        run = form(f"{start}/study/runs/{first.folder.name}")
        assert ds.load_run(run).result == first.result
        assert ds.run_one(first.spec, run).folder == first.folder  # it is done
        assert ds.load_run_spec(form(f"{start}/run.yaml")).learning_rate == 0.1
        assert ds.load_study_spec(form(f"{start}/study.yaml")).name == "x"


def test_tables_are_exported_to_a_folder_at_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ds.Study(home / "study").export("~/tables", "csv")
    assert (tmp_path / "tables" / "runs.csv").exists()


def test_a_folder_that_is_no_study_is_answered_in_a_sentence(home: Path, tmp_path: Path) -> None:
    run = next((home / "study" / "runs").iterdir())
    for folder, words in (
        (str(tmp_path / "gone"), "gone does not exist; give the folder of a study"),
        (str(home / "run.yaml"), "is a file; give the folder of a study"),
        (str(run), "is one run and no study; read it with load_run"),
        (str(tmp_path), "is no study folder"),
    ):
        with pytest.raises(RecordError, match=words):
            ds.load_runs(folder)
    with pytest.raises(RecordError, match=r"it is a study: give one of its runs, .*runs/ID"):
        ds.load_run(str(home / "study"))
    with pytest.raises(RecordError, match="holds no finished run"):
        ds.load_run(str(tmp_path))


def test_a_study_without_a_finished_run_has_none(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert ds.load_runs(str(tmp_path)) == []


def test_a_calibration_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "map.json").write_text('{"kind": "other"}')
    with pytest.raises(RecordError, match="is no calibration"):
        load_calibration("~/map.json")
