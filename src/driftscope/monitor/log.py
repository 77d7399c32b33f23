"""`events.jsonl` of a monitored training: written as it happens, read at a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from driftscope.errors import BusyError, RecordError, one_line
from driftscope.monitor.observation import OBSERVATION, Observation
from driftscope.monitor.reporting import MONITOR_KIND
from driftscope.records import (
    EVENTS_FILE,
    LOCK_FILE,
    append_event,
    read_events,
    rewrite_events,
)
from driftscope.records.report_place import refuse_others_place
from driftscope.records.watched_schema import Event

HEADER = "monitor"
"""The `kind` of the line that each process begins with."""
STOP = "stop"
END = "end"
"""The line that `Monitor.close` leaves."""
_PATIENCE_SECONDS = 10.0
"""How long another process's claim is waited for: a watcher's is over at once, and workers of a
killed process hold its claim for some seconds."""


class EventLog:
    """The events of one training in one folder; without a folder, nowhere.

    The folder is this process's until the log is released, or for as long as it lives. What is
    written after that claims it again, as a copy of the log does.

    Args:
        folder: where it is; None for nowhere.
        header: the line that this process begins with. Its `alerts` are those of before training.

    Attributes:
        restored: the observations of former processes.
        restored_stop: why their training was to end, if nothing was observed after that.
        headers: the lines that the processes of this training began with, this one's the last.

    Raises:
        BusyError: another process's monitor writes there.
        RecordError: the folder's events are another training's or no monitor's, another report is
            in it, it is that of a study or a run, or it cannot be written to.
    """

    def __init__(self, folder: Path | None, header: Mapping[str, Any]) -> None:
        self.folder = folder
        self._claim: FileLock | None = None
        former: list[Event] = []
        ours = {"kind": HEADER, **header}
        if folder is not None:
            refuse_others_place(folder, MONITOR_KIND)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._claim = _claimed(folder, _PATIENCE_SECONDS)
                former = _events_of_same_training(folder, header)
                rewrite_events(folder, [*former, ours])  # without a line that a crash has torn
            except OSError as error:
                raise RecordError(
                    f"the monitor cannot write to {folder} ({one_line(error)}); give "
                    "another folder as out"
                ) from None
        self.headers = [*(event for event in former if event.get("kind") == HEADER), ours]
        self.restored = [
            Observation.from_event(event) for event in former if event.get("kind") == OBSERVATION
        ]
        told = [event for event in former if event.get("kind") in (OBSERVATION, STOP)]
        self.restored_stop: str | None = told[-1].get("reason") if told else None

    def append(self, event: Mapping[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: it cannot be written, as on a full disk.
            BusyError: another process has the folder now.
        """
        if self.folder is not None:
            self._claim_again(self.folder)
            append_event(self.folder, event)

    def keep_only(self, observations: list[Observation]) -> None:
        """Drops the lines of all other observations (of what is trained anew after a restart).

        Where none is left, those that former processes began with go as well.

        Raises:
            OSError: the file cannot be written.
            BusyError: another process has the folder now.
        """
        if not observations:
            self.headers = self.headers[-1:]
        if self.folder is not None:
            self._claim_again(self.folder)
            kept = [one.to_event() for one in observations]
            rewrite_events(self.folder, [*self.headers, *kept])

    def release(self) -> None:
        """Lets other processes have the folder."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the claim: a copy may find itself in another process."""
        return {**self.__dict__, "_claim": None}

    def _claim_again(self, folder: Path) -> None:
        if self._claim is None:
            self._claim = _claimed(folder, min(1.0, _PATIENCE_SECONDS))  # a training waits for it


def _claimed(folder: Path, patience_seconds: float) -> FileLock:
    """Makes the folder this process's, however many monitors it makes of it one after the other."""
    claim = FileLock(folder.resolve() / LOCK_FILE, is_singleton=True, thread_local=False)
    try:
        claim.acquire(timeout=patience_seconds)
    except Timeout:
        raise BusyError(
            f"another process's monitor is writing to {folder}; wait for it, or give another "
            "folder as out"
        ) from None
    return claim


def _events_of_same_training(folder: Path, header: Mapping[str, Any]) -> list[Event]:
    events = read_events(folder)
    if not events:
        return []
    there = events[0]
    if there.get("kind") != HEADER:
        raise RecordError(
            f"{folder / EVENTS_FILE} is not a monitor's; give a new or empty folder as out"
        )
    _check_same_training(there, header, str(folder))
    return events


def history_of_state(state: Mapping[str, Any], header: Mapping[str, Any]) -> list[Observation]:
    """The observations in a `Monitor.state_dict`.

    Raises:
        RecordError: it is none, or of a monitor on other images or another model.
    """
    try:
        theirs = state["monitor"]
        history = [Observation.from_event(event) for event in state["history"]]
    except (KeyError, TypeError):
        raise RecordError(
            "this is no state of a monitor; give what its state_dict() returned"
        ) from None
    _check_same_training(theirs, header, "the state")
    return history


def _check_same_training(there: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> None:
    """Raises RecordError where what is stored was seen against another model or other images."""
    theirs = _identity(there)
    for key, value in _identity(ours).items():
        if theirs[key] != value:
            raise RecordError(
                f"{where} holds another training's observations (its {key} is "
                f"{theirs[key]}, not {value}); give a new or empty folder as out"
            )


def _identity(header: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two processes to be parts of one training: nothing measured."""
    sets = header.get("transfer") or ()
    return {
        "pretrained fingerprint": header.get("pretrained_fingerprint"),
        "images fingerprint": header.get("images_fingerprint"),
        "transfer": [
            tuple(one.get(key) for key in ("name", "fingerprint", "num_images")) for one in sets
        ],
    }
