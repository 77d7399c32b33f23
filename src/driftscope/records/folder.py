"""The run folder, read and written.

A folder belongs to one spec and, at a time, to one writer. `result.json` is written last,
whole, by rename: where it exists the run is done. Everything else can be half-written after
a crash and is either atomic itself or tolerated (a torn last line of `events.jsonl`).
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from driftscope.config import RunSpec, parse_run_spec, run_id
from driftscope.errors import BusyError, ConfigError, RecordError
from driftscope.files import read_bytes, refuse_link, write_whole
from driftscope.limits import EVENTS_MB
from driftscope.records.schema import Event, Point, Pretrained, RunResult, TransferScore, parse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPEC_FILE = "spec.json"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
LOCK_FILE = ".lock"
ATTENTION_FILE = "attention.npz"
CHECKPOINT_FOLDER = "checkpoint"
ADAPTED_FOLDER = "adapted"
STUDY_FILE = "study.json"
RUNS_FOLDER = "runs"
PROGRESS_FOLDER = "progress"
REPORT_FILE = "report.json"
"""What `driftscope compare` and a monitor write beside their page."""


@dataclass(frozen=True)
class Overlay:
    """CLS-to-patch attention of the same images before and after, for looking at.

    Shapes: images uint8 [image, height, width, 3]; pretrained and adapted float
    [image, layer, head, grid row, grid column], each map summing to 1.
    """

    images: npt.NDArray[np.uint8]
    pretrained: npt.NDArray[np.float32]
    adapted: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunRecord:
    """A finished run as its folder tells it."""

    folder: Path
    spec: RunSpec
    result: RunResult
    events: list[Event]

    @property
    def id(self) -> str:
        """The run's id; of an imported run the one it came with."""
        return self.result.run_id

    @property
    def origin(self) -> str:
        """`run`, or for an imported record `import:` and the name of its file."""
        return self.result.origin

    @property
    def main_transfer(self) -> str | None:
        """The first transfer set, which tables show."""
        return self.spec.transfer[0] if self.spec.transfer else None

    @property
    def structure_point(self) -> Point | None:
        """Where structure is read: the last epoch under `paper`, else the selected one.

        None for a run that diverged before it had one.
        """
        return self.result.last if self.spec.protocol == "paper" else self.result.selected

    @property
    def main_score(self) -> TransferScore:
        """The selected epoch's score on the main transfer set; empty where there is none."""
        return _score(self.result.selected, self.main_transfer)

    @property
    def pretrained_score(self) -> TransferScore:
        """The pretrained model's score on the main transfer set; empty where there is none."""
        return _score(self.result.pretrained, self.main_transfer)


def _score(point: Point | Pretrained | None, name: str | None) -> TransferScore:
    found = None if point is None or name is None else point.transfer.get(name)
    return found or TransferScore()


# ---------------------------------------------------------------- writing


def write_json(path: Path, value: object) -> None:
    """Writes JSON whole or not at all.

    NaN and infinities become null: the file is valid JSON for every reader.
    """
    text = json.dumps(_finite(value), indent=1, allow_nan=False)
    write_whole(path, text.encode())


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Appends one line to the run's events."""
    line = json.dumps(_finite(dict(event)), allow_nan=False) + "\n"
    refuse_link(folder / EVENTS_FILE)
    with (folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def rewrite_events(folder: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the run's events, as a resumed run does with those past its checkpoint."""
    lines = "".join(json.dumps(_finite(event), allow_nan=False) + "\n" for event in events)
    write_whole(folder / EVENTS_FILE, lines.encode())


def write_failure(folder: Path, error: BaseException) -> None:
    """Records why a run ended without a result."""
    write_json(
        folder / FAILURE_FILE,
        {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
    )


def write_overlay(folder: Path, overlay: Overlay) -> None:
    """Stores the attention maps (half precision is ample for a picture)."""
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=overlay.images,
        pretrained=overlay.pretrained.astype(np.float16),
        adapted=overlay.adapted.astype(np.float16),
    )
    write_whole(folder / ATTENTION_FILE, buffer.getvalue())


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
    refuse_link(folder / LOCK_FILE)
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


# ---------------------------------------------------------------- reading


def is_done(folder: Path) -> bool:
    """Whether the run's result is there (whole, by construction)."""
    return (folder / RESULT_FILE).exists()


def read_spec(folder: Path) -> RunSpec:
    """The spec a run folder was made for.

    Raises:
        RecordError: there is none, or a damaged one.
    """
    path = folder / SPEC_FILE
    try:
        return parse_run_spec(read_json(path), str(path))
    except ConfigError as error:
        raise RecordError(str(error)) from None


def read_events(folder: Path) -> list[Event]:
    """The run's events; a torn last line (a crash while writing) is left out.

    Raises:
        RecordError: another line is damaged, or any is no object.
    """
    path = folder / EVENTS_FILE
    if not path.exists():
        return []
    try:
        lines = read_bytes(path, EVENTS_MB).splitlines()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = from_json(line)
        except ValueError:
            if number == len(lines):
                break
            raise RecordError(f"{path}, line {number} is damaged") from None
        if not isinstance(event, dict):
            raise RecordError(f"{path}, line {number} is damaged: it holds no JSON object")
        events.append(Event(event))
    return events


def read_result(folder: Path) -> RunResult:
    """A finished run's result; `RecordError` where there is none or a damaged one."""
    if not is_done(folder):
        raise RecordError(f"{folder} holds no finished run (it has no {RESULT_FILE})")
    path = folder / RESULT_FILE
    return parse(RunResult, read_json(path), path)


def read_failure(folder: Path) -> str:
    """Why a run failed: type and message of the error, or what keeps them from being read."""
    try:
        values = read_json(folder / FAILURE_FILE)
    except RecordError as error:  # torn, or gone because the run was started again
        return str(error)
    return f"{values.get('type')}: {values.get('message')}"


def load_run(folder: Path) -> RunRecord:
    """A finished run; `RecordError` where the folder holds none or a damaged one."""
    result = read_result(folder)
    return RunRecord(folder, read_spec(folder), result, read_events(folder))


def load_runs(study_folder: Path) -> list[RunRecord]:
    """All finished runs one level below a study folder's `runs/`, by folder name."""
    results = sorted(study_folder.glob(f"{RUNS_FOLDER}/*/{RESULT_FILE}"))
    return [load_run(path.parent) for path in results]


def readable_runs(folders: Iterable[Path], damaged: dict[str, str]) -> Iterator[RunRecord]:
    """The finished runs in these folders, one at a time: a record takes some 200 kB of memory.

    A run that cannot be read is left out; `damaged` then has its folder's name and why.
    """
    for folder in folders:
        try:
            yield load_run(folder)
        except RecordError as error:
            damaged[folder.name] = str(error)


def load_overlay(folder: Path) -> Overlay | None:
    """The run's stored attention maps; None where there are none."""
    import numpy as np

    path = folder / ATTENTION_FILE
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Overlay(
            arrays["images"],
            arrays["pretrained"].astype(np.float32),
            arrays["adapted"].astype(np.float32),
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds; `RecordError` where it cannot be read as one."""
    try:
        value = from_json(read_bytes(path))  # twice as fast as json, and the same to the bit
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except ValueError:
        is_page = path.suffix == ".html"
        way_out = f"give the {path.stem}.json beside it" if is_page else "it is damaged"
        raise RecordError(f"{path} cannot be read: it holds no JSON; {way_out}") from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RecordError(f"{path} is damaged: it holds no JSON object")
    return value


def _finite(value: Any) -> Any:
    """The same JSON value with NaN and infinities as null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
