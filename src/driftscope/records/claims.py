"""Who may write a run folder: one process at a time, and one spec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftscope.config import RunSpec, run_id
from driftscope.errors import BusyError, RecordError
from driftscope.files import refuse_link_or_device
from driftscope.records.file_names import FAILURE_FILE, LOCK_FILE, SPEC_FILE
from driftscope.records.folder import read_spec
from driftscope.records.json_files import write_json


@contextmanager
def claimed(folder: Path, spec: RunSpec) -> Iterator[Path]:
    """Makes the folder this process's and this spec's; released at the end, or at its death.

    The folder is made where there is none, but not those above it: a study may have been moved.

    Raises:
        OSError: there is no folder to make it in.
        BusyError: another process is writing there.
        RecordError: the folder holds another run or something that is no run at all.
            Nothing in it is touched then.
    """
    from filelock import FileLock, Timeout

    refuse_foreign_folder(folder, spec)
    folder.mkdir(exist_ok=True)
    refuse_link_or_device(folder / LOCK_FILE)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another process is writing the run in {folder}; wait for it, or choose another --out"
        ) from None
    try:
        refuse_foreign_folder(folder, spec)
        if not (folder / SPEC_FILE).exists():
            write_json(folder / SPEC_FILE, spec.model_dump(mode="json"))
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        yield folder
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether a process, this one or another, is writing the run at this moment.

    The question is asked by taking the lock for an instant: a process that claims the folder
    in that instant sees `BusyError`, so it is for those who come again on a `BusyError`.
    """
    from filelock import FileLock, Timeout

    if not (folder / LOCK_FILE).exists() or (folder / LOCK_FILE).is_symlink():
        return False
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def refuse_foreign_folder(folder: Path, spec: RunSpec) -> None:
    """Raises `RecordError` where the folder holds anything but this spec's run, or nothing."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecordError(f"the output {folder} is a file; give a folder that is new or empty")
    if (folder / SPEC_FILE).exists():
        there = read_spec(folder)
        if run_id(there) != run_id(spec):
            raise RecordError(
                f"{folder} holds another run ({run_id(there)}: {there.method.label} on "
                f"{there.dataset} at {there.learning_rate:g}, seed {there.seed}); "
                "give an empty or new folder with --out"
            )
        return
    # a leading dot: our lock, a temporary file of a first write that was killed, .DS_Store
    strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if strangers:
        raise RecordError(
            f"{folder} is not a run folder and not empty (it holds {strangers[0]!r}); "
            "give an empty or new folder with --out"
        )
