"""A campaign: inputs by kind and number, how each ended, and the table of it."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftscope.errors import DriftscopeError

from .kinds import KINDS, Kind, Refused, Wrong

OUTCOMES = ("read", "refused", "wrong", "fault", "hang", "memory")
BAD = OUTCOMES[2:]
FOUND = Path(__file__).parent / "found"
SECONDS = 60
PEAK_BYTES = 3 * 10**9


class Hang(BaseException):
    """An input took longer than it may."""


@dataclass(frozen=True)
class Ending:
    """How an input ended."""

    kind: str
    number: int
    outcome: str
    told: str
    seconds: float


def wholes(scratch: Path, kinds: Iterable[Kind] = KINDS) -> dict[str, Path]:
    """A whole input of every kind."""
    for kind in kinds:
        (scratch / kind.name).mkdir(parents=True)
        kind.make(scratch / kind.name)
    return {kind.name: scratch / kind.name for kind in kinds}


def shared_out(count: int, kinds: Iterable[Kind] = KINDS) -> Iterator[tuple[Kind, int]]:
    """So many inputs, by the shares of their kinds."""
    kinds = list(kinds)
    total = sum(kind.share for kind in kinds)
    for kind in kinds:
        yield from ((kind, number) for number in range(-(-count * kind.share // total)))


def attempt(kind: Kind, number: int, whole: Path, keep: Path | None = None) -> Ending:
    """Damages a copy of the whole input by its number, and reads it.

    Args:
        kind: what it is.
        number: which one; the same number makes the same input.
        whole: the whole input.
        keep: where an input that ends badly is kept.
    """
    with tempfile.TemporaryDirectory(prefix="driftscope-fuzz-") as place:
        folder = Path(place) / "input"
        shutil.copytree(whole, folder, symlinks=True)
        kind.damage(folder, random.Random(f"{kind.name} {number}"))
        ending = reading(kind, number, folder, whole)
        if ending.outcome in BAD and keep is not None:
            _keep_differences(folder, whole, keep / f"{kind.name}-{number}")
    return ending


def again(place: Path, kind: Kind, number: int, whole: Path) -> Ending:
    """Reads an input that was kept: what differed of it, put over the whole one of today."""
    with tempfile.TemporaryDirectory(prefix="driftscope-fuzz-") as scratch:
        folder = Path(scratch) / "input"
        shutil.copytree(whole, folder, symlinks=True)
        shutil.copytree(place, folder, symlinks=True, dirs_exist_ok=True)
        return reading(kind, number, folder, whole)


def _keep_differences(folder: Path, whole: Path, place: Path) -> None:
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if file.is_symlink() or (
            file.is_file()
            and not ((whole / name).is_file() and (whole / name).read_bytes() == file.read_bytes())
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place / name, follow_symlinks=False)


def reading(kind: Kind, number: int, folder: Path, whole: Path) -> Ending:
    """How the input in a folder ends."""
    started, told = time.monotonic(), ""
    before = _peak_bytes()
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(folder, whole)
        outcome = "read"
    except (DriftscopeError, Refused) as error:
        outcome, told = "refused", str(error)
    except Wrong as error:
        outcome, told = "wrong", str(error)
    except Hang:
        outcome = "hang"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, told = "fault", "".join(traceback.format_exception(error))
    if outcome in ("read", "refused") and _peak_bytes() > max(before, PEAK_BYTES):
        outcome = "memory"
    return Ending(kind.name, number, outcome, told, time.monotonic() - started)


def table(endings: Iterable[Ending]) -> str:
    """How many inputs of each kind ended how, in Markdown."""
    counts = Counter((one.kind, one.outcome) for one in endings)
    kinds = [kind.name for kind in KINDS if any(name == kind.name for name, _ in counts)]
    lines = ["| kind | inputs | " + " | ".join(OUTCOMES) + " |", "|---" * (2 + len(OUTCOMES)) + "|"]
    for name in [*kinds, "all"]:
        found = [
            sum(n for (k, o), n in counts.items() if name in (k, "all") and o == outcome)
            for outcome in OUTCOMES
        ]
        lines.append(f"| {name} | {sum(found)} | " + " | ".join(map(str, found)) + " |")
    return "\n".join(lines)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
