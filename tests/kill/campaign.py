"""A campaign: a writer, a number, the file operation at which it is stopped, and what is left."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .writers import Writer, contents

OPERATIONS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree",
     "tempfile.mkdtemp", "os.truncate", "os.utime"}
)  # fmt: skip
_FULL_DISK, _LIMIT = 10, 11
OUTCOMES = ("the same", "torn", "other", "left over", "no end")


@dataclass(frozen=True)
class Ending:
    """How a writer that was stopped, and started again, ended."""

    writer: str
    number: int
    outcome: str
    told: str = ""


@dataclass
class Expected:
    """What a writer leaves that nobody stops, and how many file operations it takes."""

    state: Any
    files: dict[str, bytes]
    num_operations: int


def expected(writer: Writer) -> Expected:
    """What is left undisturbed."""
    with tempfile.TemporaryDirectory(prefix="driftscope-kill-") as place:
        folder = Path(place) / "out"
        folder.mkdir()
        told = Path(place) / "count"
        assert _in_child(writer, folder, told=told) == 0
        return Expected(writer.state(folder), contents(folder), int(told.read_text()))


def attempt(writer: Writer, number: int, undisturbed: Expected) -> Ending:
    """Stops the writer at a file operation, up to three times; then lets it end."""
    rng = random.Random(f"{writer.name} {number}")

    def ended(outcome: str, told: str = "") -> Ending:
        return Ending(writer.name, number, outcome, told)

    with tempfile.TemporaryDirectory(prefix="driftscope-kill-") as place:
        folder = Path(place) / "out"
        folder.mkdir()
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randint(1, undisturbed.num_operations)
            _in_child(writer, folder, stop_at=at, is_full=rng.random() < 0.3)
            if writer.is_whole and (torn := _torn(folder, undisturbed.files)):
                return ended("torn", torn)
        if code := _in_child(writer, folder):
            return ended("no end", f"exit {code}")
        if left := [str(path) for path in folder.rglob(".driftscope-*")]:
            return ended("left over", ", ".join(left))
        state = writer.state(folder)
        if state != undisturbed.state:
            names = [n for n in {**state, **undisturbed.state}
                     if state.get(n) != undisturbed.state.get(n)]  # fmt: skip
            return ended("other", ", ".join(names))
    return ended("the same")


def _torn(folder: Path, final: dict[str, bytes]) -> str:
    """A file that is there under its own name and is not what it becomes."""
    for name, content in contents(folder).items():
        if ".driftscope-" not in name and final.get(name) != content:
            return name
    return ""


def _in_child(
    writer: Writer,
    folder: Path,
    *,
    stop_at: int | None = None,
    is_full: bool = False,
    told: Path | None = None,
) -> int:
    """Lets a forked process write; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            counted = _counting(folder, stop_at, is_full)
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                writer.work(folder)
            number = counted[0]
            if told is not None:
                told.write_text(str(number))
            code = 0
        except BaseException as error:
            code = _FULL_DISK if is_full else 70
            if not is_full:
                sys.stderr.write(f"{writer.name}: {type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _counting(folder: Path, stop_at: int | None, is_full: bool) -> list[int]:
    """Counts this process's operations on files in the folder; stops it at one of them."""
    inside, counted = str(folder), [0]

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not str(arguments[0]).startswith(inside):
            return
        counted[0] += 1
        if stop_at is None or counted[0] < stop_at:
            return
        if not is_full:
            os.kill(os.getpid(), signal.SIGKILL)
        elif event in ("open", "os.mkdir", "os.rename"):
            raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(heard)
    return counted


def table(endings: Iterable[Ending]) -> str:
    """How many of each writer ended how, in Markdown."""
    counts = Counter((one.writer, one.outcome) for one in endings)
    lines = ["| writer | stopped | " + " | ".join(OUTCOMES) + " |",
             "|---" * (2 + len(OUTCOMES)) + "|"]  # fmt: skip
    for name in [*dict.fromkeys(writer for writer, _ in counts), "all"]:
        found = [
            sum(n for (w, o), n in counts.items() if name in (w, "all") and o == outcome)
            for outcome in OUTCOMES
        ]
        lines.append(f"| {name} | {sum(found)} | " + " | ".join(map(str, found)) + " |")
    return "\n".join(lines)
