"""How far a training is, read from its folder while it runs: a run's, or a monitor's."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from driftscope.errors import RecordError
from driftscope.protocols import scored_on
from driftscope.records.claims import is_claimed
from driftscope.records.events import EventsReader
from driftscope.records.file_names import EVENTS_FILE, FAILURE_FILE, SPEC_FILE
from driftscope.records.folder import is_done, read_failure, read_spec
from driftscope.records.schema import parse
from driftscope.records.watched_schema import Alert, Event, MonitorHeader

_SEEN_KINDS = ("epoch", "probe", "observation")
"""Events with numbers: a run's and a monitor's."""
_DOUBTED_KINDS = (*_SEEN_KINDS, "monitor")


@dataclass(frozen=True)
class TrainingStatus:
    """How far a training is.

    Attributes:
        title: what is trained, in words.
        points: the numbers of each epoch or observation, the earliest first.
        epochs: epochs asked for; None where only the caller's loop knows.
        alerts: a monitor's, as (step, sentence), each once.
        doubts: what makes the latest numbers doubtful.
        ended: how it ended, in words; None while it goes on, as far as the folder tells.
        age_seconds: since the folder was last written to.
    """

    title: str
    points: list[dict[str, float]]
    epochs: int | None
    alerts: list[tuple[int, str]]
    doubts: list[str]
    ended: str | None
    age_seconds: float


class TrainingFollower:
    """The training in a folder, looked at again and again: of its events only new ones are read.

    Raises:
        RecordError: the folder holds no training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = EventsReader(folder)
        self._events: list[Event] = []
        self._points: list[dict[str, float]] = []
        if not (folder / SPEC_FILE).exists() and not (folder / EVENTS_FILE).exists():
            raise RecordError(
                f"{folder} holds no run, no study and no monitor's events; give the folder that a "
                "training writes to"
            )

    def status(self) -> TrainingStatus:
        """How far it is now.

        Raises:
            RecordError: a file of it is damaged, or the folder has gone.
        """
        folder = self._folder
        self._read_on()
        written = _last_written(folder)
        is_run = (folder / SPEC_FILE).exists()
        return TrainingStatus(
            title=_run_title(folder) if is_run else _monitor_title(folder, self._events),
            points=list(self._points),
            epochs=read_spec(folder).epochs if is_run else None,
            alerts=_alerts(self._events),
            doubts=_doubts(self._events),
            ended=_run_end(folder) if is_run else _monitor_end(folder, self._events),
            age_seconds=max(0.0, time.time() - written),
        )

    def _read_on(self) -> None:
        new, is_anew = self._reader.new()
        if is_anew:
            self._events, self._points = [], []
        self._events += new
        self._points += [event.numbers() for event in new if event.kind in _SEEN_KINDS]


def _run_title(folder: Path) -> str:
    spec = read_spec(folder)
    return (
        f"{spec.method.label} on {spec.dataset} at {spec.learning_rate:g}, seed {spec.seed}, "
        f"from {spec.model}"
    )


def _monitor_title(folder: Path, events: list[Event]) -> str:
    headers = [event for event in events if event.kind == "monitor"]
    if not headers:
        return "a training"
    header = parse(MonitorHeader, headers[-1], folder / EVENTS_FILE)
    transfer = ", ".join(scored_on(one.name) for one in header.transfer)
    return f"a training from {header.pretrained}" + (f", with {transfer}" if transfer else "")


def _run_end(folder: Path) -> str | None:
    if is_done(folder):
        return "done"
    if (folder / FAILURE_FILE).exists():
        return f"failed: {read_failure(folder)}"
    return None if _may_go_on(folder) else "interrupted; the same command goes on from there"


def _monitor_end(folder: Path, events: list[Event]) -> str | None:
    """A stop or the end, if nothing was observed since; or that no process writes any more."""
    since: list[Event] = []
    for event in events:
        since = [] if event.kind in ("monitor", "observation") else [*since, event]
    for event in since:
        if event.kind == "stop":
            return f"stopped: {event.get('reason')}"
    if not since and _may_go_on(folder):
        return None
    report = folder / "report.html"
    where = f"; its report is {report}" if report.exists() else ""
    return ("done" if since else "its process has ended") + where


def _may_go_on(folder: Path) -> bool:
    """Whether a process writes there; also where only one who may write could find out."""
    try:
        return is_claimed(folder)
    except OSError:
        return True


def _last_written(folder: Path) -> float:
    """When its events or its spec were written last, in seconds.

    Raises:
        RecordError: neither is there any more.
    """
    times = []
    for name in (EVENTS_FILE, SPEC_FILE):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    if not times:
        raise RecordError(f"{folder} has gone, or its files have; give the folder of a training")
    return max(times)


def _doubts(events: list[Event]) -> list[str]:
    """Those of the latest event with numbers, and of the line that a monitor begins with.

    The same sets are scored at each event.
    """
    newest = {event.kind in _SEEN_KINDS: event for event in events if event.kind in _DOUBTED_KINDS}
    return list(dict.fromkeys(told for event in newest.values() for told in event.doubts()))


def _alerts(events: list[Event]) -> list[tuple[int, str]]:
    """Every alert when it was first seen: an observation repeats those that still hold.

    Of what was found before training, what the latest process that looked has found.
    """
    before_training: list[Alert] = []
    told: list[Alert] = []
    going_on: set[str] = set()
    for event in events:
        alerts = event.alerts()
        if alerts is None:
            continue
        if event.kind == "observation":
            told += [alert for alert in alerts if alert.kind not in going_on]
            going_on = {alert.kind for alert in alerts}
        else:
            before_training = alerts
    return [(alert.step, alert.sentence) for alert in before_training + told]
