"""The one door for files: what driftscope writes, and what it reads of others' making.

**Written whole or not at all.** A file or a folder is made in a scratch folder beside its place,
put on disk, and renamed into its place. So a killed process leaves the former file as it was, and
a scratch folder that the next process to write there removes: its lock is free. A folder that is
there and empty stays that folder: it is filled from a scratch folder within it.

**Links are not followed.** A place of ours that is a link leads into somebody else's folder.

**Sizes are looked at before anything is read**, and devices and pipes are no files.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import secrets
import shutil
import stat
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftscope.errors import RecordError
from driftscope.limits import JSON_MB, PARSED_MB, Megabytes

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

SCRATCH_PREFIX = ".driftscope-"
_SCRATCH_NAME = re.compile(re.escape(SCRATCH_PREFIX) + "[0-9a-f]{8}")
"""All of it, so that nobody's own `.driftscope-notes` is taken for what a killed process left."""
_FORMER = f"{SCRATCH_PREFIX}former"
"""In a scratch folder: what stood in the place of a folder that is being replaced."""
_TRIES = 100
"""Others seldom remove a scratch folder even once; where none can be made, as in `/proc`, each
try fails."""
_SURELY_LEFT_SECONDS = 24 * 3600
"""How old a scratch folder is where the file system cannot tell whether its writer lives."""


class UnreadableFileError(OSError):
    """A file that is not read: no regular one, or a larger one than is taken."""

    def __init__(self, why: str, path: Path | str) -> None:
        super().__init__(errno.EINVAL, why, os.fspath(path))

    def __str__(self) -> str:
        return str(self.strerror)


# ---------------------------------------------------------------- reading


def read_bytes(path: Path | str, limit: Megabytes = JSON_MB, start: int = 0) -> bytes:
    """What a regular file of no more than the limit holds, from a byte on.

    Raises:
        UnreadableFileError: it is no regular file, or larger.
        OSError: it cannot be opened.
    """
    most = limit.num_bytes
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFileError(f"it is {_kind(status.st_mode)} and not a file", path)
        content = b""
        if status.st_size <= most:
            with open(descriptor, "rb", closefd=False) as file:
                file.seek(start)
                # the most would be set aside for every small file
                content = file.read(max(0, status.st_size - start) + 1) or b""
                if len(content) > status.st_size - start:  # it grows, or does not tell its size
                    content += file.read(most + 1 - len(content)) or b""
        if (size := max(status.st_size, len(content))) > most:
            raise UnreadableFileError(f"it has {size / 1e6:,.1f} MB; {limit.sentence}", path)
    finally:
        os.close(descriptor)
    return content


_TAKEN_BY = {"{": 200, "[": 64, ",": 48, "\n": 160}
"""Bytes of memory by what stands in a text: an object, a list, a value, a line that becomes a row.
"""


def read_values(path: Path | str, limit: Megabytes = JSON_MB, start: int = 0) -> bytes:
    """What a text of JSON or of rows holds, if what is made of it fits into memory.

    `{}` is two bytes, and a hundred times as many once it is read.

    Raises:
        UnreadableFileError: it is no regular file, or larger, or would take more memory.
        OSError: it cannot be opened.
    """
    content = read_bytes(path, limit, start)
    taken = sum(content.count(mark.encode()) * each for mark, each in _TAKEN_BY.items())
    if taken > PARSED_MB.num_bytes:
        raise UnreadableFileError(
            f"it has {len(content) / 1e6:,.1f} MB, and what it holds would take some "
            f"{taken / 1e6:,.0f} MB of memory; {PARSED_MB.sentence}",
            path,
        )
    return content


def read_text(path: Path | str, limit: Megabytes = JSON_MB, encoding: str = "utf-8") -> str:
    """The text of such a file.

    Raises:
        UnreadableFileError: it is no regular file, or larger, or would take more memory.
        OSError: it cannot be opened.
        UnicodeDecodeError: it holds no text.
    """
    return read_values(path, limit).decode(encoding)


def read_arrays(
    content: bytes, names: Iterable[str], limit: Megabytes
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a `.npz`, whose headers are read before anything is unpacked.

    Raises:
        ValueError: its arrays are larger than the limit, or hold objects.
        ValueError, KeyError, zipfile.BadZipFile: it is damaged, or lacks an array.
    """
    from numpy.lib import format as npy

    arrays: dict[str, npt.NDArray[Any]] = {}
    left = limit.num_bytes
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        for name in names:
            with members.open(f"{name}.npy") as member:
                read_header = {
                    (1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0
                }[npy.read_magic(member)]  # fmt: skip
                shape, _, dtype = read_header(member)
            if dtype.hasobject:
                raise ValueError(f"its array {name} holds objects of Python, which are not read")
            left -= math.prod(shape) * dtype.itemsize
            if left < 0:
                raise ValueError(f"its arrays are too large; {limit.sentence}")
            with members.open(f"{name}.npy") as member:
                arrays[name] = npy.read_array(member, allow_pickle=False)
    return arrays


def named_path(name: Path | str) -> Path:
    """The path that a user, or somebody's file, names: `~` written out if that is a home here."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def free_name(name: str, ending: str = "") -> str:
    """The name of a place where nothing is yet: it, or it with a number before its ending."""
    if not named_path(f"{name}{ending}").exists():
        return f"{name}{ending}"
    return next(one for n in count(2) if not named_path(one := f"{name}-{n}{ending}").exists())


def followed(name: Path | str) -> Path:
    """Where a user's own path leads that something is written to, though it is a link."""
    path = named_path(name)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_file(path: Path) -> bool:
    """Whether a regular file is there; under a name that no file system takes there is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name with a zero byte
        return False


def special_kind(path: Path) -> str | None:
    """What a path is that is neither a file nor a folder, such as a pipe; None of all others."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # a name with a zero byte
        return None
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _kind(mode)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


# ---------------------------------------------------------------- writing


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes bytes whole or not at all; a failure leaves the former file as it was."""
    with whole_file(path, durable=durable) as partial:
        partial.write_bytes(content)


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A file to be written in the block, which then takes its place, or not at all.

    Args:
        path: its place, in a folder that is there.
        durable: whether it must be on disk before it takes its place.

    Raises:
        OSError: it cannot be written, as on a full disk.
        RecordError: its place is a link, a device or a pipe.
    """
    refuse_link_or_device(path)
    if path.is_dir():
        raise RecordError(f"{path} is a folder; a file of that name is to be written: move it")
    with _scratch(path.parent) as (scratch, mode):
        partial = scratch / path.name
        yield partial
        _settle([partial], mode, durable=durable)
        partial.replace(path)
    if durable:
        _sync(path.parent)


@contextmanager
def whole_folder(folder: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A folder to be filled in the block, which then takes its place, or not at all.

    Args:
        folder: its place. An empty folder there is filled: it may be a shell's own (`.`), a mount
            point, or below a folder that one may not write to.
        replaces: whether what is there gives way, once the new one is whole. The caller has
            looked at it.

    Raises:
        OSError: it cannot be written, or is there and not empty.
        RecordError: its place is a link, a device or a pipe.
    """
    refuse_link_or_device(folder)
    folder = Path(os.path.realpath(folder))  # `.` has no name
    if folder.is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    is_filled = folder.is_dir() and not replaces
    with _scratch(folder if is_filled else folder.parent) as (scratch, mode):
        if is_filled and any(path != scratch for path in folder.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(folder))
        partial = scratch / folder.name
        partial.mkdir()
        yield partial
        _settle((path for path in partial.rglob("*") if path.is_file()), mode, durable=True)
        _sync(partial)
        if is_filled:
            _move_up(partial, folder)
        else:
            _take_place(partial, folder)
    _sync(folder if is_filled else folder.parent)


_READ_FIRST = ("config.json", "adapter_config.json", "open_clip_config.json")
"""What a model's folder is known by: without it nobody takes the folder for a model."""


def _move_up(partial: Path, folder: Path) -> None:
    """Moves all of a folder into the one above, or nothing; what it is known by comes last."""
    moved: list[Path] = []
    try:
        for path in sorted(partial.iterdir(), key=lambda path: path.name in _READ_FIRST):
            moved.append(path.rename(folder / path.name))
    except OSError:
        for path in moved:
            path.rename(partial / path.name)
        raise


def _take_place(partial: Path, folder: Path) -> None:
    """Renames a folder into its place; a former one there is moved away for it, and goes."""
    former = partial.parent / _FORMER / folder.name
    if folder.is_dir():
        former.parent.mkdir()
        folder.rename(former)
    partial.replace(folder)


def check_writable(folder: Path) -> None:
    """Tries what writing a folder begins with, and leaves nothing.

    Raises:
        OSError: nothing can be written into it, or into the nearest one above it that is there.
    """
    place = Path(os.path.realpath(folder))
    with _scratch(next(one for one in (place, *place.parents) if one.exists())):
        pass


def inner_folder(parent: Path, name: str) -> Path:
    """A folder of ours within one that the user named; made where it is missing.

    Raises:
        OSError: it cannot be made; `parent` is not made for it.
        RecordError: it is a link, or a file.
    """
    folder = parent / name
    refuse_link_or_device(folder)
    with suppress(FileExistsError):
        folder.mkdir()
    if not folder.is_dir():
        raise RecordError(f"{folder} is a file; a folder of that name is to be written: move it")
    return folder


def refuse_link_or_device(path: Path) -> None:
    """Raises `RecordError` where a place of ours is neither free nor a file or a folder.

    A link leads elsewhere. A device, a pipe or a socket would be replaced by a file: `/dev/null`
    for the whole machine, where root writes.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing is there
        return
    if stat.S_ISLNK(mode):
        raise RecordError(
            f"{path} is a link (to {path.readlink()}), and driftscope writes through none but "
            "those that you name yourself: remove the link, or name its target"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise RecordError(
            f"{path} is {_kind(mode)}, which cannot be written as a file; name a file"
        )


def remove_files(folder: Path, patterns: Iterable[str]) -> None:
    """Removes the files of ours in a folder, by name, and the folder if nothing else is in it.

    A link is left alone, and so is what lies behind it.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink(missing_ok=True)
    remove_leftovers(folder)
    with suppress(OSError):  # somebody else's file is in it
        folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder.

    Every writer holds its scratch folder's lock for as long as it lives.
    """
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _SCRATCH_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry.path))


def _remove_if_left(scratch: Path) -> None:
    try:
        folder = os.open(scratch, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # its process has just removed it
        return
    try:
        is_old = time.time() - os.fstat(folder).st_mtime > _SURELY_LEFT_SECONDS
        if _lock(folder, if_unknown=is_old):
            _remove_scratch(scratch)
    finally:
        os.close(folder)


@contextmanager
def _scratch(parent: Path) -> Iterator[tuple[Path, int]]:
    """A folder for half-written files, and the mode that the user's umask gives a file."""
    remove_leftovers(parent)
    scratch, lock = _locked_scratch(parent)
    try:
        yield scratch, stat.S_IMODE(os.fstat(lock).st_mode) & 0o666
    finally:
        _remove_scratch(scratch)
        os.close(lock)


def _remove_scratch(scratch: Path) -> None:
    """Removes a scratch folder; a former folder in it whose place is free goes back to it first."""
    for former in (scratch / _FORMER).glob("*"):
        place = scratch.parent / former.name
        if not os.path.lexists(place):
            try:
                former.rename(place)
            except OSError:  # better a scratch folder that stays than a folder that is lost
                return
    shutil.rmtree(scratch, ignore_errors=True)


def _locked_scratch(parent: Path) -> tuple[Path, int]:
    """Until it is locked, another process may take it for a killed one's and remove it."""
    for _ in range(_TRIES):
        scratch = parent / f"{SCRATCH_PREFIX}{secrets.token_hex(4)}"
        try:
            scratch.mkdir()
            lock = os.open(scratch, os.O_RDONLY)
        except (FileExistsError, FileNotFoundError):
            if not parent.is_dir():
                raise
            continue
        if _lock(lock, if_unknown=True) and scratch.exists():
            return scratch, lock
        os.close(lock)
    raise FileNotFoundError(errno.ENOENT, "no folder can be made in it", os.fspath(parent))


def _lock(folder: int, *, if_unknown: bool) -> bool:
    """Takes a folder's lock unless another process has it; not every file system can say."""
    try:
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return if_unknown
    return True


def _settle(files: Iterable[Path], mode: int, *, durable: bool) -> None:
    """Gives files the mode that the umask asks for, and puts them on disk.

    Some libraries make their files private, whatever the umask.
    """
    for file in files:
        file.chmod(mode)
        if durable:
            _sync(file)


def _sync(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- tables

_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Some take the wide forms of East Asia for the others."""


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV in which no text is a formula: a spreadsheet shows it behind a `'`."""
    texts = table.select_dtypes(["object", "string", "category"]).columns
    shown = table.assign(**{name: table[name].astype(object).map(_no_formula) for name in texts})
    return shown.rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")


def _no_formula(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(_RUN_BY_SPREADSHEETS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
