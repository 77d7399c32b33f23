"""The run folder, read and written.

A folder belongs to one spec and, at a time, to one writer. `result.json` is written last,
whole, by rename: where it exists the run is done. Everything else can be half-written after
a crash and is either atomic itself or tolerated (a torn last line of `events.jsonl`).
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json

from driftscope.config import RunSpec, parse_run_spec, run_id
from driftscope.errors import BusyError, ConfigError, RecordError, shown, told_as
from driftscope.files import named_path, read_arrays, read_bytes, refuse_link, write_whole
from driftscope.limits import ARRAYS_MB, EVENTS_MB
from driftscope.records.schema import (
    Event,
    Point,
    Pretrained,
    RunResult,
    StoredReading,
    TransferScore,
    parse,
    refuse_impossible,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

P = TypeVar("P", Point, Pretrained)

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
RESCUE_FILE = "rescue.json"
"""What a rescue writes beside its page."""


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
    is_changed: bool = False
    """Whether somebody has changed the result since it was written."""
    is_outline: bool = False
    """Whether what only a run's own page shows was left out."""

    def outline(self) -> RunRecord:
        """The record without what lies by class, layer or event: a tenth of its memory."""
        result = self.result.model_copy(
            update={
                "pretrained": _outlined(self.result.pretrained),
                "selected": self.result.selected and _outlined(self.result.selected),
                "last_values": None,
            }
        )
        result.__dict__.pop("last", None)
        return replace(self, result=result, events=[], is_outline=True)

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
        """The first transfer set, by the name and protocol that tables show; None without one."""
        named = next(iter(self.spec.transfer), None)
        recorded = self.result.pretrained.transfer
        return named if named in recorded else next(iter(recorded), named)

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

    def scores(self) -> dict[str, dict[str, Any]]:
        """By transfer set what is recorded of the selected epoch's score."""
        selected = self.result.selected
        found = selected.transfer if selected else {}
        return {name: one.model_dump(exclude_none=True) for name, one in found.items()}

    @property
    def pretrained_score(self) -> TransferScore:
        """The pretrained model's score on the main transfer set; empty where there is none."""
        return _score(self.result.pretrained, self.main_transfer)


def _outlined(point: P) -> P:
    short: dict[str, Any] = {"per_class": [], "per_class_correct": [], "per_class_images": []}
    scores = {name: one.model_copy(update=short) for name, one in point.transfer.items()}
    nothing = StoredReading.model_construct(entropy=[[]], erf95=[[]], gini=[[]])
    left_out = {"reading": nothing, "subsets": [], "transfer": scores}
    return point.model_copy(update=left_out)


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


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object that ends with a digest of all the rest, by which a change is seen."""
    text = json.dumps(_finite(value), indent=1, allow_nan=False)
    write_whole(path, f'{text[:-2]}{_SEAL}{digest_of(text.encode())}"\n}}'.encode())


def digest_of(content: bytes) -> str:
    """The digest by which a file's content is known again."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def is_changed(content: bytes) -> bool:
    """Whether what `write_sealed` wrote has been changed since; not known of a file of before."""
    text, seal, digest = content.rpartition(_SEAL.encode())
    if seal:
        return digest.decode("ascii", "replace") != f'{digest_of(text + _END)}"\n}}'
    return b'"digest":' in content


_SEAL = ',\n "digest": "'
_END = b"\n}"


def write_result(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes a run's result, which ends the run, with the digests of the files beside it."""
    beside = (folder / name for name in (SPEC_FILE, EVENTS_FILE, ATTENTION_FILE))
    files = {file.name: digest_of(file.read_bytes()) for file in beside if file.exists()}
    write_sealed(folder / RESULT_FILE, {**values, "files": files})


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
        events.append(_checked_event(event, f"{path}, line {number}"))
    return events


class EventsReader:
    """The events of a folder, looked at again and again: each look reads what is new alone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        self._file: tuple[int, int] | None = None
        self._end = self._lines = 0

    def new(self) -> tuple[list[Event], bool]:
        """The events since the last look, and whether the file has been written anew before them.

        A line is read when it is whole.

        Raises:
            RecordError: a line is damaged, or the file cannot be read.
        """
        try:
            status = self._path.stat()
            is_anew = (status.st_dev, status.st_ino) != self._file or status.st_size < self._end
            if is_anew:
                self._file, self._end, self._lines = (status.st_dev, status.st_ino), 0, 0
            content = b""
            if status.st_size > self._end:
                content = read_bytes(self._path, EVENTS_MB, self._end)
        except FileNotFoundError:
            self._file = None
            return [], True
        except OSError as error:
            raise RecordError(f"{self._path} cannot be read: {error}") from None
        whole, mark, _ = content.rpartition(b"\n")
        self._end += len(whole) + len(mark)
        events = []
        for line in whole.splitlines():
            self._lines += 1
            where = f"{self._path}, line {self._lines}"
            try:
                events.append(_checked_event(from_json(line), where))
            except ValueError:
                raise RecordError(f"{where} is damaged") from None
        return events, is_anew


def _checked_event(event: Any, where: str) -> Event:
    if not isinstance(event, dict):
        raise RecordError(f"{where} is damaged: it holds no JSON object")
    try:
        for name, value in event.items():
            refuse_impossible(name, value)
    except ValueError as error:
        raise RecordError(f"{where} is damaged: {error}") from None
    return Event(event)


def read_result(folder: Path) -> RunResult:
    """A finished run's result; `RecordError` where there is none or a damaged one."""
    return _read_result(folder)[0]


def _read_result(folder: Path) -> tuple[RunResult, bool]:
    if not is_done(folder):
        is_study = (folder / STUDY_FILE).exists()
        hint = (
            f"; it is a study: give one of its runs, {folder / RUNS_FOLDER}/ID" if is_study else ""
        )
        raise RecordError(f"{folder} holds no finished run (it has no {RESULT_FILE}){hint}")
    path = folder / RESULT_FILE
    values, was_changed = read_sealed(path)
    return parse(RunResult, values, path), was_changed


def read_failure(folder: Path) -> str:
    """Why a run failed: type and message of the error, or what keeps them from being read."""
    try:
        values = read_json(folder / FAILURE_FILE)
    except RecordError as error:  # torn, or gone because the run was started again
        return str(error)
    return f"{values.get('type')}: {values.get('message')}"


def load_run(folder: Path | str) -> RunRecord:
    """A finished run.

    Raises:
        RecordError: the folder holds none, a damaged one, or parts of several.
    """
    folder = named_path(folder)
    result, was_changed = _read_result(folder)
    record = RunRecord(folder, read_spec(folder), result, read_events(folder), was_changed)
    _refuse_parts_of_several(record)
    _ = record.structure_point  # a damaged one is found here, where it costs this run alone
    return record


def _refuse_parts_of_several(record: RunRecord) -> None:
    """Raises `RecordError` where a folder's files do not belong together."""
    folder, result = record.folder, record.result
    if result.spec != read_json(folder / SPEC_FILE) and not _is_same_run(result, record.spec):
        raise RecordError(
            f"{folder / RESULT_FILE} is not the result of the run that {SPEC_FILE} beside it "
            "describes: one of the two was copied or edited; delete the folder to run it again"
        )
    if folder.parent.name == RUNS_FOLDER and result.run_id != folder.name:
        raise RecordError(
            f"{folder / RESULT_FILE} is the result of another run ({shown(result.run_id)}); delete "
            "the folder to run it again"
        )
    noted = result.files.get(EVENTS_FILE)
    epochs = [event.get("epoch") for event in record.events if event.kind == "epoch"]
    if (noted and noted != _events_digest(folder)) or len(set(map(str, epochs))) < len(epochs):
        raise RecordError(
            f"{folder / EVENTS_FILE} is not what the run wrote: it was changed, cut off, or has "
            "lines twice"
        )


def _events_digest(folder: Path) -> str:
    path = folder / EVENTS_FILE
    return digest_of(read_bytes(path, EVENTS_MB)) if path.exists() else ""


def _is_same_run(result: RunResult, spec: RunSpec) -> bool:
    """Whether a result's spec, as an earlier version wrote it, is the spec."""
    try:
        return parse_run_spec(result.spec) == spec
    except ConfigError:
        return False


def load_runs(study_folder: Path | str) -> list[RunRecord]:
    """All finished runs one level below a study folder's `runs/`, by folder name.

    Raises:
        RecordError: the folder is no study's, or one of its runs is damaged.
    """
    study_folder = named_path(study_folder)
    _refuse_no_study(study_folder)
    results = sorted(study_folder.glob(f"{RUNS_FOLDER}/*/{RESULT_FILE}"))
    return [load_run(path.parent) for path in results]


def _refuse_no_study(folder: Path) -> None:
    if (folder / STUDY_FILE).exists() or (folder / RUNS_FOLDER).is_dir():
        return
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RecordError(f"{folder} {what}; give the folder of a study")
    if (folder / SPEC_FILE).exists():
        raise RecordError(f"{folder} is one run and no study; read it with load_run")
    raise RecordError(
        f"{folder} is no study folder (it has neither {STUDY_FILE} nor {RUNS_FOLDER}/); driftscope "
        "study run STUDY.yaml --out DIR makes one"
    )


def readable_runs(folders: Iterable[Path], damaged: dict[str, str]) -> Iterator[RunRecord]:
    """The finished runs in these folders, one at a time: a record takes some 200 kB of memory.

    A run that cannot be read is left out; `damaged` then has its folder's name and why.
    """
    for folder in folders:
        try:
            yield load_run(folder)
        except RecordError as error:
            damaged[folder.name] = str(error)


def load_overlay(folder: Path, digest: str | None = None) -> Overlay | None:
    """The run's stored attention maps; None where there are none.

    Args:
        folder: the run's.
        digest: of the file as its run wrote it, where that is known.

    Raises:
        RecordError: they are damaged, or would unpack to more than is taken.
    """
    import numpy as np

    path = folder / ATTENTION_FILE
    if not path.exists():
        return None
    with told_as(RecordError, f"{path} is damaged"):
        content = read_bytes(path, ARRAYS_MB)
        if digest is not None and digest_of(content) != digest:
            raise ValueError("it is not what the run wrote")
        arrays = read_arrays(content, ("images", "pretrained", "adapted"), ARRAYS_MB)
        images = arrays["images"]
        maps = {name: arrays[name].astype(np.float32) for name in ("pretrained", "adapted")}
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"its images are {images.dtype} of shape {images.shape}")
        for name, values in maps.items():
            if values.ndim != 5 or len(values) != len(images) or not values.size:
                raise ValueError(f"its {name} maps have shape {values.shape}")
            if not np.isfinite(values).all() or values.min() < 0:
                raise ValueError(f"its {name} maps hold NaN, infinities or negative numbers")
        if maps["pretrained"].shape != maps["adapted"].shape:
            raise ValueError("its maps before and after have different shapes")
    return Overlay(images, maps["pretrained"], maps["adapted"])


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds; `RecordError` where it cannot be read as one."""
    return read_sealed(path)[0]


def read_sealed(path: Path) -> tuple[dict[str, Any], bool]:
    """The object a JSON file holds, and whether it was changed since it was written.

    Raises:
        RecordError: it cannot be read as one.
    """
    try:
        content = read_bytes(path)
        value = from_json(content)  # twice as fast as json, and the same to the bit
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
    return value, is_changed(content)


def _finite(value: Any) -> Any:
    """The same JSON value with NaN and infinities as null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
