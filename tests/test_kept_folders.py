"""What a monitor keeps is never lost to a full disk, and what it did not write is left alone."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from monitored import clip_of, monitor_of, moved

import driftscope as ds
from driftscope.errors import RecordError
from driftscope.monitor.kept_folders import KEPT_FILE, drop_kept, is_kept, kept_folder
from driftscope.monitor.kept_models import kept_model

OWN = ("model.safetensors", "config.json", "README.md", "notes.txt")
STOPS: dict[str, Any] = {"alerts": ds.Thresholds(max_embedding_drift=0.0), "on_alert": "stop"}


def filled(folder: Path) -> Path:
    """A folder of the user's own."""
    folder.mkdir(parents=True)
    for name in OWN:
        (folder / name).write_text("precious")
    return folder


def is_untouched(folder: Path) -> bool:
    return {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        OWN, "precious"
    )


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file may grow past so many bytes."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("stopped", STOPS),
        ("stopped", {"selection": ds.Selection(patience=2)}),
        ("candidates/step-3", {"keep_best": True}),
        ("last", {"rescue": 90}),
        ("rescued", {"rescue": 90}),
    ],
)
def test_a_users_own_folder_where_a_model_would_be_kept_is_refused(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, place: str, options: dict[str, Any]
) -> None:
    own = filled(tmp_path / place)
    if "rescue" in options:
        options = {**options, "pool": str(coloured_images)}
    with pytest.raises(RecordError, match=f"{place} holds files that no monitor wrote, such as"):
        monitor_of(tiny_clip, coloured_images, out=tmp_path, **options)
    assert is_untouched(own)


def test_a_users_own_folders_are_left_alone_by_a_monitor_that_keeps_nothing_there(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    places = [filled(tmp_path / name) for name in ("stopped", "last", "rescued")]
    places.append(filled(tmp_path / "candidates" / "step-3"))
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    model = clip_of(tiny_clip)
    for step in (5, 1):  # the second is another training
        monitor.observe(model, step=step)
    monitor.start(model)
    monitor.close()
    assert all(map(is_untouched, places))
    assert kept_model(tmp_path) is None


def test_files_laid_into_a_kept_folder_later_are_neither_lost_nor_mixed_in(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    options = {**STOPS, "echo": lines.append}
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, **options)
    model = moved(clip_of(tiny_clip))
    monitor.observe(model, step=1)
    assert is_kept(tmp_path / "stopped")
    (tmp_path / "stopped" / "notes.txt").write_text("precious")
    monitor.start(model)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["notes.txt"]
    monitor.observe(model, step=1)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["notes.txt"]
    assert any("such as notes.txt" in line and "going on" in line for line in lines)


def test_a_full_disk_leaves_the_model_that_was_kept_before(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(
        tiny_clip, coloured_images, out=tmp_path, rescue=90, pool=str(coloured_images),
        classes=["red", "green", "blue"], echo=lines.append,
    )  # fmt: skip
    last = tmp_path / "last"
    monitor.observe(moved(clip_of(tiny_clip)), step=1)
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    size = max(map(len, before.values()))
    with full_disk(size // 2):
        monitor.observe(moved(clip_of(tiny_clip), seed=2), step=2)
    assert any("cannot write" in line for line in lines)
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    monitor.observe(moved(clip_of(tiny_clip), seed=2), step=3)
    assert before["model.safetensors"] != (last / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.glob(".driftscope-*")) == []


def test_a_note_that_names_files_elsewhere_removes_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with kept_folder(tmp_path / "last") as partial:
        (partial / "a").touch()
    (tmp_path / "last" / KEPT_FILE).write_text(json.dumps({"files": ["../thesis.tex", "*", "a"]}))
    (tmp_path / "last" / "b").touch()
    drop_kept(tmp_path / "last")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "last", "thesis.tex"]
