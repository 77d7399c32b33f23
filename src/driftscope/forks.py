"""Pieces of work that do not depend on each other, on several cores where that is safe."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, TypeVar

from driftscope.machine import usable_cores

T = TypeVar("T")
R = TypeVar("R")

MANY_RUNS = 1_000
"""To read so many, to ask about them and to draw them takes seconds, so that processes pay."""
MOST_PROCESSES = 4
_DIE_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of Linux."""

_work: Callable[[Any], Any]
_items: Sequence[Any]


def spread(work: Callable[[T], R], items: Sequence[T], *, is_worth_it: bool) -> Iterator[R]:
    """What `map` gives, in its order; where it is worth it and safe, by forked processes.

    A forked process has what this one has in memory, so only results travel. What a process cannot
    finish, as where memory is short, is done here.

    Args:
        work: what is done with an item. It changes nothing but its result.
        items: what it is done with.
        is_worth_it: whether the work takes seconds, so that processes pay.
    """
    count = min(MOST_PROCESSES, len(items), usable_cores())
    given = 0
    if is_worth_it and count > 1 and _may_fork():
        with suppress(BrokenProcessPool):
            for result in _forked(work, items, count):
                given += 1
                yield result
    yield from map(work, items[given:])


def _forked(work: Callable[[T], R], items: Sequence[T], count: int) -> Iterator[R]:
    pool = ProcessPoolExecutor(
        count, multiprocessing.get_context("fork"), initializer=_begin, initargs=(work, items)
    )
    try:
        with warnings.catch_warnings():  # Python warns of threads; ours draw a line in a terminal
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(_nth, range(len(items)))
        yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """In a new process: Ctrl-C ends it without a word, and so does its parent's end."""
    global _work, _items
    _work, _items = work, items
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _nth(number: int) -> Any:
    return _work(_items[number])


def _may_fork() -> bool:
    """Whether a copy of this process works: torch's threads are not in it, and macOS forbids it."""
    return sys.platform == "linux" and "torch" not in sys.modules
