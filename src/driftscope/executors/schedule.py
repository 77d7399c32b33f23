"""What is run next, again, or not: one policy for every pool.

Nothing here trusts a clock: the order of events decides, and the run folders' locks.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from driftscope.config import RunSpec, run_id
from driftscope.errors import RecordError
from driftscope.executors.work import record_failure, sign_of_life_file
from driftscope.records import FAILURE_FILE, is_claimed, is_done, read_failure

Task: TypeAlias = tuple[RunSpec, Path]

MAX_LOSSES = 3
"""A run whose worker was lost so often, and never further on, may be what kills its workers."""
POLL_SECONDS = 0.5
"""How often a run that another process is writing is looked at again."""


@dataclass(frozen=True)
class News:
    """What a pool tells of the run in a slot.

    `lost`: its worker is gone without a word; `unable`: its machine could carry out no run at all.
    """

    slot: int
    kind: Literal["step", "done", "failed", "busy", "full", "unable", "lost"]
    message: str = ""
    steps_done: int = 0
    steps_total: int = 0


class Pool(Protocol):
    """Somewhere runs are carried out. Slots are numbered; a slot has one run at a time."""

    def free_slots(self) -> Sequence[int]:
        """Slots that could start a run now."""

    def start(self, slot: int, spec: RunSpec, folder: Path) -> None:
        """Starts a run in a free slot."""

    def wait(self, timeout: float | None) -> Sequence[News]:
        """What has happened; waits for something to happen, at most `timeout` seconds."""

    def close(self) -> None:
        """Ends all workers; what they were doing can be resumed."""


@dataclass(frozen=True)
class Update:
    """News of one run: how far it is, that it is done, why it failed, or a remark."""

    run_id: str
    worker: int
    steps_done: int = 0
    steps_total: int = 0
    done: bool = False
    failure: str | None = None
    remark: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the run is over, well or not."""
        return self.done or self.failure is not None


def execute(tasks: Sequence[Task], pool: Pool) -> Iterator[Update]:
    """Carries out runs and yields what happens as it happens.

    A run that another process writes is waited for, and taken over if that process dies; if it
    fails there, that is the end of it here too. A run whose worker is lost is started again, from
    its checkpoint, until `MAX_LOSSES` workers were lost without one getting further than before.
    Closing the iterator (or Ctrl-C) ends the workers; runs on their way can be resumed.

    Raises:
        RecordError: the disk is full, the study's folder has gone from its place, or a worker's
            machine can carry out no run.
    """
    return _Execution(tasks, pool).updates()


class _Execution:
    def __init__(self, tasks: Sequence[Task], pool: Pool) -> None:
        self.pool = pool
        self.waiting = deque(tasks)
        self.running: dict[int, Task] = {}
        self.losses: Counter[str] = Counter()
        self.furthest: Counter[str] = Counter()
        self.known_failures = {folder: _failure_there(folder) for _, folder in tasks}
        roots = {folder.parent for _, folder in tasks}
        for root in roots:
            root.mkdir(parents=True, exist_ok=True)
        self.places = {root: _place(root) for root in roots}

    def updates(self) -> Iterator[Update]:
        try:
            while self.waiting or self.running:
                self.refuse_moved()
                yield from self.hand_out()
                if not self.running:
                    if self.waiting:  # all of them are being written elsewhere
                        time.sleep(POLL_SECONDS)
                    continue
                # where a slot is free for a run that is busy elsewhere, look again soon
                idle = bool(self.waiting) and bool(self.pool.free_slots())
                for news in self.pool.wait(POLL_SECONDS if idle else None):
                    yield from self.hear(news)
        finally:
            self.pool.close()  # first: a worker renews its sign of life to its end
            for _, folder in self.running.values():
                with suppress(OSError):
                    sign_of_life_file(folder).unlink(missing_ok=True)

    def hand_out(self) -> Iterator[Update]:
        for slot in self.pool.free_slots():
            for _ in range(len(self.waiting)):
                task = self.waiting.popleft()
                spec, folder = task
                if is_done(folder):  # by another process, meanwhile
                    yield Update(run_id(spec), slot, done=True)
                elif is_claimed(folder):
                    self.waiting.append(task)
                elif _failure_there(folder) not in (None, self.known_failures[folder]):
                    yield Update(run_id(spec), slot, failure=read_failure(folder))
                else:
                    self.running[slot] = task
                    self.pool.start(slot, spec, folder)
                    yield Update(run_id(spec), slot)
                    break

    def hear(self, news: News) -> Iterator[Update]:
        spec, folder = self.running[news.slot]
        name = run_id(spec)
        if news.kind == "step":
            if news.steps_done > self.furthest[name]:
                self.furthest[name] = news.steps_done
                del self.losses[name]
            yield Update(name, news.slot, news.steps_done, news.steps_total)
            return
        del self.running[news.slot]
        if news.kind == "done":
            yield Update(name, news.slot, done=True)
        elif news.kind == "busy":
            self.waiting.append((spec, folder))
        elif news.kind == "full":
            raise RecordError(
                f"the disk is full ({news.message}); free some space, then the same command goes on"
            )
        elif news.kind == "unable":  # every run sent there would fail alike
            self.refuse_moved()
            raise RecordError(news.message)
        elif news.kind == "lost":
            yield self.after_loss(spec, folder, news)
        else:
            self.refuse_moved()  # the failure may only mean that the folder has gone
            yield Update(name, news.slot, failure=news.message)

    def after_loss(self, spec: RunSpec, folder: Path, news: News) -> Update:
        name = run_id(spec)
        with suppress(OSError):
            sign_of_life_file(folder).unlink(missing_ok=True)
        self.losses[name] += 1
        if self.losses[name] < MAX_LOSSES:
            self.waiting.appendleft((spec, folder))
            remark = f"{news.message}; the run goes on from its checkpoint"
            return Update(name, news.slot, remark=remark)
        failure = f"{news.message}; {MAX_LOSSES} workers were lost on this run"
        record_failure(spec, folder, RecordError(failure))
        return Update(name, news.slot, failure=failure)

    def refuse_moved(self) -> None:
        for root, place in self.places.items():
            if _place(root) != place:
                raise RecordError(
                    f"the study's folder {root.parent} has been moved or deleted; "
                    "the same command with --out at its new place goes on"
                )


def _failure_there(folder: Path) -> tuple[int, int] | None:
    """What tells a run's failure from a later one; None where there is none."""
    try:
        found = (folder / FAILURE_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _place(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another of the same name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
