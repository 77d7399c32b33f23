"""The folders that a monitor keeps models in: what it wrote there, and what it did not.

Each says in `kept.json` which files the monitor wrote. Only these are ever replaced or removed:
a user may have folders of the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic_core import from_json

from driftscope.errors import RecordError
from driftscope.files import read_bytes, refuse_link_or_device, whole_folder
from driftscope.records import write_json

KEPT_FILE = "kept.json"


@contextmanager
def kept_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled in the block, which then replaces what a monitor kept in its place.

    Until it is whole the former one stays.

    Raises:
        OSError: it cannot be written, as on a full disk.
        RecordError: its place is a link, or holds what no monitor wrote.
    """
    refuse_others_files(folder)
    with whole_folder(folder, replaces=True) as partial:
        yield partial
        write_json(partial / KEPT_FILE, {"files": list(_files_in(partial))})


def is_kept(folder: Path) -> bool:
    """Whether a monitor keeps a model there."""
    return bool(_written(folder))


def drop_kept(folder: Path) -> None:
    """Removes what a monitor wrote into a folder, and the folder if nothing else is in it."""
    written = _written(folder)
    if not written or folder.is_symlink():
        return
    found = _files_in(folder)
    for name in sorted(written & found.keys(), key=lambda name: name == KEPT_FILE):  # it comes last
        found[name].unlink(missing_ok=True)
    for inner in (*sorted(folder.rglob("*"), reverse=True), folder):
        with suppress(OSError):  # a file of somebody else's, or a folder with one
            inner.rmdir()


def refuse_others_files(folder: Path) -> None:
    """Raises `RecordError` where a folder holds what no monitor wrote, or is none."""
    refuse_link_or_device(folder)
    if folder.is_file():
        raise RecordError(f"{folder} is a file; the monitor keeps a model in a folder there")
    others = sorted(_files_in(folder).keys() - _written(folder))
    if others:
        raise RecordError(
            f"{folder} holds files that no monitor wrote, such as {others[0]}; the monitor keeps "
            "a model there: move them, or give another folder as out"
        )


def _written(folder: Path) -> set[str]:
    """The files that a monitor wrote there, as its note says; none without one that can be read."""
    try:
        names = from_json(read_bytes(folder / KEPT_FILE))["files"]
        return {KEPT_FILE, *(name for name in names if isinstance(name, str))}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _files_in(folder: Path) -> dict[str, Path]:
    """All that is no folder, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
