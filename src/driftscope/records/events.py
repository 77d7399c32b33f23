"""The events of a run or a monitor: a line each, appended, read whole or as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.errors import RecordError, one_line
from driftscope.files import read_bytes, read_values, refuse_link_or_device, write_whole
from driftscope.limits import EVENTS_MB
from driftscope.records.file_names import EVENTS_FILE
from driftscope.records.json_files import finite
from driftscope.records.schema import (
    refuse_impossible,
)
from driftscope.records.watched_schema import Event


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Appends one line to the run's events, whole or not at all.

    What an earlier process wrote of a line is cut off: the new one would be glued to it.

    Raises:
        OSError: it cannot be written, as on a full disk.
        RecordError: the file is a link, a device or a pipe.
    """
    path = folder / EVENTS_FILE
    line = json.dumps(finite(dict(event)), allow_nan=False).encode() + b"\n"
    refuse_link_or_device(path)
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end and _byte_at(file, end - 1) != b"\n":
            end, line = _end_of_events(path, line)
            file.truncate(end)
        try:
            left = memoryview(line)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def _byte_at(file: FileIO, place: int) -> bytes:
    file.seek(place)
    return file.read(1)


def _end_of_events(path: Path, line: bytes) -> tuple[int, bytes]:
    """Where the events of a file end whose last line lacks its end; and the line to write there."""
    content = read_bytes(path, EVENTS_MB)
    start = content.rfind(b"\n") + 1
    try:
        from_json(content[start:])
    except ValueError:
        return start, line
    return len(content), b"\n" + line


def rewrite_events(folder: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the run's events, as a resumed run does with those past its checkpoint."""
    lines = "".join(json.dumps(finite(event), allow_nan=False) + "\n" for event in events)
    write_whole(folder / EVENTS_FILE, lines.encode())


def read_events(folder: Path) -> list[Event]:
    """The run's events; a torn last line (a crash while writing) is left out.

    Raises:
        RecordError: another line is damaged, or any is no object.
    """
    return parsed_events(folder, events_bytes(folder))


def events_bytes(folder: Path) -> bytes | None:
    """What the file of events holds; None where there is none.

    Raises:
        RecordError: it cannot be read.
    """
    path = folder / EVENTS_FILE
    try:
        return read_values(path, EVENTS_MB)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {one_line(error)}") from None


def parsed_events(folder: Path, content: bytes | None) -> list[Event]:
    """The events that a folder's file holds, as `read_events` gives them."""
    path = folder / EVENTS_FILE
    lines = (content or b"").splitlines()
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
                content = read_values(self._path, EVENTS_MB, self._end)
        except FileNotFoundError:
            self._file = None
            return [], True
        except OSError as error:
            raise RecordError(f"{self._path} cannot be read: {one_line(error)}") from None
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
