"""The run folder: its record, its result, its pictures.

A folder belongs to one spec and, at a time, to one writer. `result.json` is written last,
whole, by rename: where it exists the run is done. Everything else can be half-written after
a crash and is either atomic itself or tolerated (a torn last line of `events.jsonl`).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from driftscope.config import RunSpec, parse_run_spec
from driftscope.errors import ConfigError, RecordError, shown, told_as
from driftscope.files import named_path, read_arrays, read_bytes, write_whole
from driftscope.limits import ARRAYS_MB
from driftscope.metrics import ESTIMATED
from driftscope.records.events import events_bytes, parsed_events
from driftscope.records.file_names import (
    ATTENTION_FILE,
    EVENTS_FILE,
    FAILURE_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    SPEC_FILE,
    STUDY_FILE,
)
from driftscope.records.json_files import (
    digest_of,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from driftscope.records.schema import (
    Part,
    Point,
    Pretrained,
    RunResult,
    StoredDrift,
    StoredReading,
    TransferScore,
    parse,
)
from driftscope.records.watched_schema import Event

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

P = TypeVar("P", Point, Pretrained)
M = TypeVar("M", bound=Part)


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

    def outline(self, known: dict[str, Part]) -> RunRecord:
        """The record without what lies by class, layer or event: a tenth of its memory.

        Args:
            known: parts of other outlines; what is equal in thousands of runs is held once.
        """
        result = self.result.model_copy(
            update={
                "environment": _held_once(self.result.environment, known),
                "splits": self.result.splits and _held_once(self.result.splits, known),
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
    def drift(self) -> StoredDrift | None:
        """What has changed, as tables and pages tell it: that of `structure_point`.

        But retention as estimated is of the selected epoch, as the measured one is.
        """
        point, selected = self.structure_point, self.result.selected
        if point is None or selected is None or point is selected:
            return point.drift if point else None
        facts, estimate = point.drift.facts(), selected.drift.facts()
        unmeasured = (estimate.get("unmeasured", {}), facts.get("unmeasured", {}))
        return StoredDrift.model_validate(
            _with_estimate_of(estimate, facts) | {"unmeasured": _with_estimate_of(*unmeasured)}
        )

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


def _with_estimate_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """All of the second but for the estimate, which is the first's, if it has one."""
    others = {key: value for key, value in second.items() if key != ESTIMATED}
    return others | {key: value for key, value in first.items() if key == ESTIMATED}


def _held_once(part: M, known: dict[str, Part]) -> M:
    same = known.setdefault(f"{type(part).__name__} {part.model_dump_json()}", part)
    return same if isinstance(same, type(part)) else part


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


def write_result(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes a run's result, which ends the run, with the digests of the files beside it."""
    beside = (folder / name for name in (SPEC_FILE, EVENTS_FILE, ATTENTION_FILE))
    files = {file.name: digest_of(file.read_bytes()) for file in beside if file.exists()}
    write_sealed(folder / RESULT_FILE, {**values, "files": files})


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


# ---------------------------------------------------------------- reading


def is_done(folder: Path) -> bool:
    """Whether the run's result is there (whole, by construction)."""
    return (folder / RESULT_FILE).exists()


def is_run(folder: Path) -> bool:
    """Whether the folder is a run's, finished or not, and no study's."""
    return (folder / SPEC_FILE).exists() and not (folder / STUDY_FILE).exists()


def read_spec(folder: Path) -> RunSpec:
    """The spec a run folder was made for.

    Raises:
        RecordError: there is none, or a damaged one.
    """
    return _parsed_spec(folder, read_json(folder / SPEC_FILE))


def _parsed_spec(folder: Path, values: Mapping[str, Any]) -> RunSpec:
    try:
        return parse_run_spec(values, str(folder / SPEC_FILE))
    except ConfigError as error:
        raise RecordError(str(error)) from None


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
    spec_values = read_json(folder / SPEC_FILE)
    events = events_bytes(folder)
    record = RunRecord(
        folder,
        _parsed_spec(folder, spec_values),
        result,
        parsed_events(folder, events),
        was_changed,
    )
    _refuse_parts_of_several(record, spec_values, digest_of(events) if events is not None else "")
    _ = record.structure_point  # a damaged one is found here, where it costs this run alone
    return record


def _refuse_parts_of_several(
    record: RunRecord, spec_values: Mapping[str, Any], events_digest: str
) -> None:
    """Raises `RecordError` where a folder's files do not belong together."""
    folder, result = record.folder, record.result
    if result.spec != spec_values and not _is_same_run(result, record.spec):
        raise RecordError(
            f"{folder / RESULT_FILE} is not the result of the run that {SPEC_FILE} beside it "
            "describes: one of the two was copied or edited; delete the folder to run it again"
        )
    if _is_in_a_study(folder) and result.run_id != folder.name:
        raise RecordError(
            f"{folder / RESULT_FILE} is the result of another run ({shown(result.run_id)}); delete "
            "the folder to run it again"
        )
    noted = result.files.get(EVENTS_FILE)
    epochs = [event.get("epoch") for event in record.events if event.kind == "epoch"]
    if (noted and noted != events_digest) or len(set(map(str, epochs))) < len(epochs):
        raise RecordError(
            f"{folder / EVENTS_FILE} is not what the run wrote: it was changed, cut off, or has "
            "lines twice"
        )


def _is_in_a_study(folder: Path) -> bool:
    """Whether a run's folder is named by its id; one that a user made may be called anything."""
    return folder.parent.name == RUNS_FOLDER and (folder.parent.parent / STUDY_FILE).exists()


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
