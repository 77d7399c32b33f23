import errno
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from driftscope import deprecation
from driftscope.cli import app
from driftscope.cli.failures import plain_errors, show_tracebacks
from driftscope.data.cache import cache_folder
from driftscope.reference_cache import REFERENCES_FOLDER, clear_references

runner = CliRunner()


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands_of(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example_that_calls_it(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    program, *words = shlex.split(command.epilog.removeprefix("Example: "))
    assert program == "driftscope"
    assert tuple(words[: len(path)]) == path
    command.make_context(command.name, words[len(path) :])


@pytest.mark.parametrize("name", ["", "study", "cache"])
def test_the_help_of_a_group_has_an_example_of_one_of_its_commands(name: str) -> None:
    group = get_command(app).commands[name] if name else get_command(app)
    program, *words = shlex.split(group.epilog.removeprefix("Example: "))
    assert program == "driftscope"
    path = tuple(words[:2]) if name else (words[0],)
    COMMANDS[path].make_context(path[-1], words[len(path) :])


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{' '.join(path)} {option.name}"
        for path, command in COMMANDS.items()
        for option in command.params
        if not option.hidden and not option.help
    ]
    assert silent == []


@pytest.mark.parametrize("words", [["-m", "driftscope", "--version"], ["--version"]])
def test_the_version_is_told(words: list[str]) -> None:
    import driftscope

    program = (
        [sys.executable] if words[0] == "-m" else [str(Path(sys.executable).parent / "driftscope")]
    )
    done = subprocess.run([*program, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, driftscope.__version__), done.stderr


def test_the_shell_can_complete_commands() -> None:
    environment = {"_DRIFTSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": "driftscope stu"}
    done = runner.invoke(app, prog_name="driftscope", env={**environment, "COMP_CWORD": "1"})
    assert "study" in done.output.split()


def test_an_old_command_works_and_says_in_one_sentence_what_it_is_called_now(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deprecation, "_said", set())
    with pytest.warns(FutureWarning) as caught:
        says(["export", str(tiny_clip), "--out", str(tmp_path / "plain")], code=0)
    assert (tmp_path / "plain" / "model.safetensors").exists()
    assert [str(one.message) for one in caught] == [
        "driftscope export is now driftscope export-model; "
        "driftscope export goes on working in this version"
    ]


def test_who_types_an_old_command_sees_no_line_of_code(tmp_path: Path) -> None:
    arguments = ["report", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "driftscope", *arguments], capture_output=True, text=True
    )
    first, second = done.stderr.strip().splitlines()
    assert first.startswith("driftscope: driftscope report is now driftscope study report;")
    assert "no study folder" in second
    assert done.returncode == 2


def heavy_modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "pandas", "matplotlib", "transformers", "peft", "scipy", "plotly", "ray"}
    return heavy & set(done.stdout.split())


def test_help_imports_neither_torch_nor_pandas_nor_matplotlib() -> None:
    code = "from typer.testing import CliRunner; from driftscope.cli import app\n"
    code += "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    assert heavy_modules_after(code) == set()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_answered_by_what_to_do(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @plain_errors
    def command() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(typer.Exit):
        command()
    assert "free some space" in capsys.readouterr().err


def test_what_the_system_refuses_is_told_with_the_file_and_without_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @plain_errors
    def command() -> None:
        (tmp_path / ("x" * 300)).write_text("")

    with pytest.raises(typer.Exit):
        command()
    told = capsys.readouterr().err
    assert told.endswith("xxx cannot be read or written: file name too long\n")
    assert "Errno" not in told


def test_importing_driftscope_is_light() -> None:
    assert heavy_modules_after("import driftscope; assert driftscope.__version__") == set()


@pytest.mark.parametrize("module", ["config", "records", "study", "stats", "analysis", "report"])
def test_what_reads_results_does_not_import_torch(module: str) -> None:
    assert "torch" not in heavy_modules_after(f"import driftscope.{module}")


def test_every_public_name_resolves() -> None:
    import driftscope as ds

    for name in ds.__all__:
        assert getattr(ds, name) is not None


def write_spec(path: Path, values: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def says(arguments: list[str], *, code: int = 2) -> str:
    """What the command answers; it must be one sentence and no traceback."""
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_run_then_compare_then_export(
    tiny_run: dict[str, object], tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    spec, out = write_spec(tmp_path / "spec.yaml", tiny_run), tmp_path / "run"
    told = says(["run", str(spec), "--out", str(out)], code=0)
    assert "full_ft" in told
    assert f"Report: {out / 'report.html'}".replace(" ", "") in told.replace(" ", "")
    assert "In numbers" in (out / "report.html").read_text()
    epochs = tiny_run["epochs"]
    assert [f"epoch {epoch}/{epochs}" in told for epoch in (1, epochs)] == [True, True]
    again = json.loads(runner.invoke(app, ["run", str(spec), "--out", str(out), "--json"]).stdout)
    assert again["result"] == json.loads((out / "result.json").read_text())
    assert again["advice"]["outcome"] == "unsure"
    sides, given = again["result"]["splits"]["num_images"], again["result"]["splits"]["num_given"]
    assert sides["train"] + sides["val"] + sides["probe"] == given
    assert again["trained_on"].startswith(f"Trained on {sides['train']} of the {given} training")
    assert again["trained_on"] in told
    arguments = ["compare", str(tiny_clip), str(out), "--images", str(coloured_images / "test")]
    shown = says([*arguments, "--out", str(tmp_path / "c")], code=0)
    assert "embedding drift" in shown
    assert shown.startswith("Unknown: how much of the pretrained ability is left was neither")
    assert "With labels: `--transfer DATASET` measures it." in shown
    assert (tmp_path / "c" / "report.html").stat().st_size > 1000
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "c"), "--json"])
    assert json.loads(result.stdout)["num_images"] == 24
    assert json.loads(result.stdout)["split_of"] == str(coloured_images)
    assert json.loads(result.stdout)["advice"]["outcome"] == "unknown"
    assert says(["export-model", str(out), "--out", str(tmp_path / "plain")], code=0)
    assert (tmp_path / "plain" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": -1e-3}, "greater than 0"),
        ({"method": "lorra"}, "did you mean 'lora'"),
        ({"dataset": "terain"}, "did you mean 'terrain'"),
        ({"learning_rte": 1}, "did you mean 'learning_rate'"),
        ({"lr": 1}, "unknown key 'lr': did you mean 'learning_rate'?"),
        ({"base": {}}, "declares a study, not a run; carry it out with driftscope study run"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"val_images": 100}, "leave none to train on"),
    ],
)
def test_a_wrong_spec_is_answered_by_a_sentence_and_nothing_is_written(
    change: dict[str, object], sentence: str, tiny_run: dict[str, object], tmp_path: Path
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", {**tiny_run, **change})
    assert sentence in says(["run", str(spec), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_spec_that_is_no_yaml_or_not_there_is_answered_by_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("a: [1,")
    assert "not valid YAML" in says(["run", str(tmp_path / "spec.yaml"), "--out", "x"])
    assert "cannot read" in says(["run", str(tmp_path / "nowhere.yaml"), "--out", "x"])


def test_an_output_folder_with_another_run_is_refused(
    tiny_run: dict[str, object], tmp_path: Path
) -> None:
    first = write_spec(tmp_path / "a.yaml", {**tiny_run, "epochs": 1})
    second = write_spec(tmp_path / "b.yaml", {**tiny_run, "epochs": 1, "seed": 8})
    says(["run", str(first), "--out", str(tmp_path / "run")], code=0)
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert "holds another run" in says(["run", str(second), "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_compare_without_images_is_answered_by_a_sentence(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["compare", str(tiny_clip), str(tiny_clip), "--out", str(tmp_path / "out")]
    assert "no images" in says([*arguments, "--images", str(tmp_path / "empty")])
    assert not (tmp_path / "out").exists()


def test_a_comparison_does_not_write_over_a_run_or_a_study(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    arguments = ["compare", str(tiny_clip), str(tiny_clip), "--images", "terrain"]
    assert "holds a study or a run" in says([*arguments, "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_a_device_that_is_not_there_is_answered_by_a_sentence(
    tiny_run: dict[str, object], tmp_path: Path
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tiny_run)
    arguments = ["run", str(spec), "--out", str(tmp_path / "run"), "--device", "cuda:9"]
    assert "no device 'cuda:9'" in says(arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_says_which_images_are_on_two_sides(capsys: pytest.CaptureFixture[str]) -> None:
    from driftscope.cli.run import show_shared_images
    from driftscope.records.schema import SharedImages

    show_shared_images({"train": SharedImages(num_pairs=3)})
    assert capsys.readouterr().err == ""
    show_shared_images({"train/test": SharedImages(num_pairs=2)})
    assert "2 in train and test" in capsys.readouterr().err


def test_the_cache_is_listed_and_cleared(coloured_images: Path) -> None:
    import driftscope as ds

    clear_references()  # of comparisons that other tests made
    images = ds.open_dataset(coloured_images, "train")
    images.pixels(range(len(images)), 32)
    kept = cache_folder() / REFERENCES_FOLDER / f"{'abcdef01' * 4}.safetensors"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(b"x" * 2_500_000)
    listed = says(["cache", "list"], code=0)
    assert "48" in listed
    assert "2.5 MB, last used 20" in listed
    cleared = says(["cache", "clear"], code=0)
    assert "Removed" in cleared
    assert "2.5 MB" in cleared
    assert not kept.exists()
    assert "48" not in says(["cache", "list"], code=0)


@pytest.mark.parametrize("is_linked", [False, True])
def test_clearing_the_cache_removes_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_linked: bool
) -> None:
    cache, project = tmp_path / "cache", tmp_path / "project"
    cache.mkdir()
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(cache))
    place = project if is_linked else cache / REFERENCES_FOLDER
    place.mkdir()
    names = ["model.safetensors", "uv.lock"] + [f"{'0' * 32}.safetensors"] * is_linked
    for name in names:
        (place / name).write_text("mine")
    if is_linked:
        (cache / REFERENCES_FOLDER).symlink_to(project)
    assert "0 readings" in says(["cache", "clear"], code=0)
    assert sorted(names) == sorted(path.name for path in place.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--debug", "run", str(tmp_path / "no.yaml"), "--out", "x"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ConfigError"


@pytest.mark.skipif(os.name == "nt", reason="pipes are closed otherwise there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["metrics"], ["metrics", "--markdown"], ["--help"]])
def test_output_that_nobody_reads_any_more_ends_without_a_word(
    words: list[str], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "driftscope", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (141, 1)


def test_a_pipe_that_is_not_the_outputs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    @plain_errors
    def tell() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    show_tracebacks(False)
    with pytest.raises(typer.Exit):
        tell()
    assert "broken pipe" in capsys.readouterr().err
