"""Every file passes one door: whole, through no link, by the umask, its size looked at."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from driftscope import files, limits
from driftscope.checkpoints import Checkpoints
from driftscope.cli import app
from driftscope.config import parse_run_spec
from driftscope.config.source import read_yaml
from driftscope.data import open_dataset
from driftscope.errors import ConfigError, DataError, DriftscopeError, RecordError, told_as
from driftscope.files import (
    SCRATCH_PREFIX,
    csv_text,
    followed,
    inner_folder,
    read_arrays,
    read_bytes,
    remove_files,
    remove_leftovers,
    whole_file,
    whole_folder,
    write_whole,
)
from driftscope.limits import PARSED_MB
from driftscope.records import append_event
from driftscope.records.events import read_events
from driftscope.study import expand
from driftscope.tensor_files import DamagedFileError, read_tensors


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Somebody else's folder."""
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("precious")
    return folder


def test_a_failed_write_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"former")

    def fail_half_way() -> None:
        with whole_file(tmp_path / "a") as partial:
            partial.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"former"}


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path, umask: int, mode: int) -> None:
    former = os.umask(umask)
    try:
        write_whole(tmp_path / "a", b"x")
        with whole_folder(tmp_path / "b") as partial:
            (partial / "c").touch(mode=0o600)  # as some libraries do
    finally:
        os.umask(former)
    for file in (tmp_path / "a", tmp_path / "b" / "c"):
        assert stat.S_IMODE(file.stat().st_mode) == mode


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "last"
    with whole_folder(place, replaces=True) as partial:
        (partial / "former").touch()

    def fail_half_way() -> None:
        with whole_folder(place, replaces=True) as partial:
            (partial / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert [path.name for path in place.iterdir()] == ["former"]
    with whole_folder(place, replaces=True) as partial:
        (partial / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [place]


def test_a_process_killed_between_moving_a_folder_away_and_its_successor_in_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "last"
    with whole_folder(place) as partial:
        (partial / "former").touch()

    def dies(partial: Path, folder: Path) -> None:
        os._exit(9)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", dies)
        with whole_folder(place, replaces=True) as partial:
            (partial / "new").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not place.exists()
    write_whole(tmp_path / "next", b"x")
    assert [path.name for path in place.iterdir()] == ["former"]
    assert {path.name for path in tmp_path.iterdir()} == {"last", "next"}


@pytest.mark.parametrize("is_given_as", ["a dot", "a path"])
def test_an_empty_folder_stays_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_given_as: str
) -> None:
    """A shell in it, or a mount, would be left in one that is nowhere."""
    place = tmp_path / "out"
    place.mkdir()
    monkeypatch.chdir(place)
    before = place.stat().st_ino
    with whole_folder(Path() if is_given_as == "a dot" else place) as partial:
        (partial / "config.json").touch()
        (partial / "inner").mkdir()
        (partial / "inner" / "weights").touch()
    assert place.stat().st_ino == before
    assert {path.name for path in Path().rglob("*")} == {"config.json", "inner", "weights"}


def test_what_a_model_is_known_by_is_moved_up_last_and_a_failure_moves_all_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if target.parent == tmp_path:
            moved.append(path.name)
            if path.name == "config.json":
                raise OSError("no more")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)

    def fill() -> None:
        with whole_folder(tmp_path) as partial:
            for name in ("adapted.json", "config.json", "model.safetensors"):
                (partial / name).touch()

    with pytest.raises(OSError, match="no more"):
        fill()
    assert moved[-1] == "config.json"
    assert len(moved) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_before_it_is_filled(precious: Path) -> None:
    with pytest.raises(OSError, match="not empty"), whole_folder(precious):
        pytest.fail("work was done for nothing")
    assert [path.name for path in precious.iterdir()] == ["chapter.tex"]
    file = precious / "chapter.tex"
    with pytest.raises(NotADirectoryError), whole_folder(file, replaces=True):
        pytest.fail("work was done for nothing")


def test_a_pipe_at_a_place_of_ours_is_neither_replaced_nor_waited_for(tmp_path: Path) -> None:
    """`--out /dev/null` put a file in the place of the device, for every process of the machine."""
    os.mkfifo(tmp_path / "out")
    os.mkfifo(tmp_path / "events.jsonl")
    with pytest.raises(RecordError, match="is a pipe, which cannot be written as a file"):
        write_whole(tmp_path / "out", b"text")
    with pytest.raises(RecordError, match="is a pipe"):
        append_event(tmp_path, {"kind": "epoch"})
    assert all(path.is_fifo() for path in tmp_path.iterdir())


def test_a_link_at_a_place_of_ours_is_refused(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "file").symlink_to(precious / "chapter.tex")
    (tmp_path / "folder").symlink_to(precious)
    with pytest.raises(RecordError, match="is a link"):
        write_whole(tmp_path / "file", b"x")
    with pytest.raises(RecordError, match="is a link"):
        inner_folder(tmp_path, "folder")
    with pytest.raises(RecordError, match="is a link"), whole_folder(tmp_path / "folder"):
        pass
    assert (precious / "chapter.tex").read_text() == "precious"


def test_what_is_removed_is_what_was_written(tmp_path: Path, precious: Path) -> None:
    checkpoints = Checkpoints(
        tmp_path / "checkpoint", parse_run_spec({"method": "lora", "learning_rate": 1e-3})
    )
    checkpoints.folder.symlink_to(precious)
    (precious / "last.safetensors").write_text("precious too")
    checkpoints.delete()
    assert len(list(precious.iterdir())) == 2
    remove_files(precious, ("last.*",))
    assert [path.name for path in precious.iterdir()] == ["chapter.tex"]


def test_leftovers_of_the_dead_are_removed_and_of_the_living_are_not(tmp_path: Path) -> None:
    (tmp_path / f"{SCRATCH_PREFIX}0000dead").mkdir()
    (tmp_path / f"{SCRATCH_PREFIX}0000dead" / "half").touch()
    (tmp_path / f"{SCRATCH_PREFIX}notes").mkdir()  # somebody's own
    with whole_file(tmp_path / "a") as partial:
        partial.write_bytes(b"x")
        remove_leftovers(tmp_path)
        assert partial.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a", f"{SCRATCH_PREFIX}notes"}


@pytest.mark.parametrize("content", ["{}\n" * 5_000, "[" + "[]," * 20_000 + "0]", "a,b\n" * 7_000])
def test_a_small_text_of_many_values_is_refused_before_it_is_read(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARSED_MB.variable, "1")
    for name in ("events.jsonl", "list.json", "list.csv"):
        (tmp_path / name).write_text(content)
    with pytest.raises(RecordError, match=r"events\.jsonl cannot be read: it has 0\.\d MB, and"):
        read_events(tmp_path)
    for name in ("list.json", "list.csv"):
        with pytest.raises(DataError, match=f"{PARSED_MB.variable} raises this"):
            open_dataset(str(tmp_path / name))


def test_no_file_is_written_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RecordError, match=r"report.html is a folder; a file of that name"):
        write_whole(tmp_path / "report.html", b"")


def test_pipes_devices_and_folders_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, kind in (("pipe.png", "a pipe"), ("zero.png", "a device"), (".", "a folder")):
        with pytest.raises(OSError, match=f"it is {kind}"):
            read_bytes(tmp_path / name)
    opened = open_dataset(str(tmp_path))
    with pytest.raises(DataError, match="it is a pipe"):
        opened.pixels(range(2), 8)


def test_a_large_file_is_refused_by_the_variable_that_raises_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(65_000_001)
    with pytest.raises(OSError, match="DRIFTSCOPE_MAX_JSON_MB raises this"):
        read_bytes(tmp_path / "a")
    monkeypatch.setenv("DRIFTSCOPE_MAX_JSON_MB", "66")
    assert len(read_bytes(tmp_path / "a")) == 65_000_001
    monkeypatch.setenv("DRIFTSCOPE_MAX_JSON_MB", "many")
    with pytest.raises(ConfigError, match="DRIFTSCOPE_MAX_JSON_MB is 'many'"):
        read_bytes(tmp_path / "a")


def test_arrays_are_refused_by_their_headers() -> None:
    buffer = io.BytesIO()
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483648,), }"
    head = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(ValueError, match="DRIFTSCOPE_MAX_ARRAYS_MB"):
        read_arrays(buffer.getvalue(), ("a",), limits.ARRAYS_MB)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(3))
    found = read_arrays(buffer.getvalue(), ("a",), limits.ARRAYS_MB)
    assert found["a"].tolist() == [0, 1, 2]


def test_aliases_are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"stand for 123,456,\d+ values"):
        read_yaml(tmp_path / "a.yaml")


def test_declared_runs_are_counted_before_they_are_made() -> None:
    from driftscope.config import StudySpec

    axes = {"seed": tuple(range(3000)), "learning_rate": tuple(1e-3 / n for n in range(1, 9001))}
    with pytest.raises(ConfigError, match="declares 27000000 runs"):
        expand(StudySpec(name="x", base={"method": "lora"}, axes=axes))


def test_no_text_is_a_formula_and_numbers_stay_numbers() -> None:
    table = pd.DataFrame(
        {"class": ["=1+1", "@x", "+x", "-x", "-1", "cat", "＝1"], "n": [-1, 2, 3, 4, 5, 6, 7]}
    )
    rows = csv_text(table).splitlines()
    assert rows[1:] == ["'=1+1,-1", "'@x,2", "'+x,3", "'-x,4", "-1,5", "cat,6", "'＝1,7"]


@pytest.mark.parametrize("raised", [ValueError("odd"), RecursionError(), MemoryError(), KeyError()])
def test_whatever_a_library_raises_is_a_sentence(raised: Exception) -> None:
    with (
        pytest.raises(DriftscopeError, match="the file cannot be read: "),
        told_as(RecordError, "the file cannot be read"),
    ):
        raise raised


def test_the_page_of_security_names_every_limit() -> None:
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    declared = [one for one in vars(limits).values() if isinstance(one, limits.Limit)]
    assert len(declared) > 10
    for one in declared:
        assert f"`{one.variable}` | {one.default:,} |" in page


def test_a_link_that_the_user_names_is_followed(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "schema.json").symlink_to(precious / "chapter.tex")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    asked = ["schema", "run", "--out"]
    assert CliRunner().invoke(app, [*asked, str(tmp_path / "schema.json")]).exit_code == 0
    assert (tmp_path / "schema.json").is_symlink()
    assert "learning_rate" in (precious / "chapter.tex").read_text()
    assert followed(tmp_path / "new") == tmp_path / "new"
    refused = CliRunner().invoke(app, [*asked, str(tmp_path / "loop")])
    assert (refused.exit_code, "is a link" in " ".join(refused.output.split())) == (2, True)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="of Linux")
def test_where_no_folder_can_be_made_writing_ends() -> None:
    with pytest.raises(OSError, match="no folder can be made in it"):
        write_whole(Path("/proc/self/x"), b"text")


def test_a_file_that_has_nothing_to_give_now_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc/kmsg` is a regular file that answers "later" to whoever doesn't wait."""
    file = tmp_path / "kmsg"
    file.write_bytes(b"")
    nothing_yet = Mock(read=Mock(return_value=None))
    monkeypatch.setattr(files, "open", MagicMock(), raising=False)
    files.open.return_value.__enter__.return_value = nothing_yet  # type: ignore[attr-defined]
    assert read_bytes(file) == b""


def test_a_pipe_in_the_place_of_kept_tensors_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "delta.safetensors")
    with pytest.raises(DamagedFileError, match="it is a pipe and not a file"):
        read_tensors(tmp_path / "delta.safetensors")


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        (
            "/proc/nowhere/model",
            r"/nowhere/model cannot be written \(.*\); give a folder that",
        ),
        ("out_\udcff", r"the path of --out 'out_\\udcff' is not UTF-8, and a model's files"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["export-model", "./no-model"],
        ["rescue", "./no-model", "./no-model", "--images", "x", "--pool", "x"],
        ["where", "./no-model", "./no-model", "--pool", "x"],
        ["merge", "./no-model", "./no-model", "--base", "mini"],
    ],
    ids=lambda command: command[0],
)
def test_a_place_that_cannot_be_written_is_told_before_any_model_is_looked_for(
    command: list[str], out: str, sentence: str
) -> None:
    said = CliRunner().invoke(app, [*command, "--out", out])
    assert said.exit_code == 2
    assert re.search(sentence, said.output), said.output


def test_a_model_is_written_into_the_empty_folder_that_one_is_in(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        said = CliRunner().invoke(app, ["export-model", str(tiny_clip), "--out", "."])
    assert said.exit_code == 2
    assert "is not empty" in said.output
    assert Path("config.json").is_file()
    assert not list(Path().glob(".*"))
