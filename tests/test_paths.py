"""A path may be given as text, and `~` is a home, wherever a public name takes one."""

from pathlib import Path

import pytest
from fake_study import write_fake_study

import driftscope as ds
from driftscope.analysis.calibration import load_calibration
from driftscope.data.procedural import PROCEDURAL_SETS
from driftscope.errors import DataError, ModelError, RecordError
from driftscope.nearby import refuse_missing_images, refuse_missing_model, refuse_missing_names
from driftscope.sources.hub import unreadable_config
from driftscope.study.folder import StudyFolder
from driftscope.suites import BROUGHT_SETS


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


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("./my-clp", "did you mean ./my-clip?"),
        ("my-clp", "did you mean my-clip?"),
        ("runs-of-may/clip/last/", ""),
        ("my-clp/sub/last", "did you mean my-clip/sub/last?"),
        ("/no/where", ""),
    ],
)
def test_a_misspelt_place_is_told_with_its_neighbour_and_without_torch(
    named: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-clip" / "sub" / "last").mkdir(parents=True)
    for refuse, kind in (
        (refuse_missing_model, ModelError),
        (refuse_missing_images, DataError),
    ):
        with pytest.raises(kind, match="there is no such folder or file") as told:
            refuse(named)
        assert str(told.value).partition("; ")[2] == meant


def test_a_name_that_the_hub_does_not_give_is_told_with_the_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuned_full").mkdir()
    told = unreadable_config("tuned", OSError("cannot be reached"))
    assert told.startswith(
        "no model 'tuned': there is no such folder or file; did you mean tuned_full? "
    )
    assert "did you mean" not in unreadable_config("other/name", OSError("cannot be reached"))


def test_what_may_be_elsewhere_is_no_misspelt_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mini2", "openai", "pets2", "vtab2", "terrain2", "here"):
        (tmp_path / name / "clip-vit").mkdir(parents=True)
    (tmp_path / "NAMES.txt").touch()
    for names in ("general", "NAMES.txt", "pets", "owner/name"):
        refuse_missing_names(names)
    with pytest.raises(DataError, match=r"no class names 'NAMES\.tx'.*did you mean NAMES\.txt\?"):
        refuse_missing_names("NAMES.tx")
    with pytest.raises(DataError, match=r"no class names 'other\.txt': there is no such"):
        refuse_missing_names("other.txt")
    for model in ("mini", "openai/clip-vit-b", "open_clip:ViT-B-32:x.pt", "other", "", "here@v1"):
        refuse_missing_model(model)
    assert set(BROUGHT_SETS) == set(PROCEDURAL_SETS)
    for images in (*BROUGHT_SETS, "pets", "vtab", "here?split=test", "tanganke/eurosat"):
        refuse_missing_images(images)
    monkeypatch.setenv("DRIFTSCOPE_DATA", str(tmp_path))
    refuse_missing_images("hero")  # a copy of it may lie there
