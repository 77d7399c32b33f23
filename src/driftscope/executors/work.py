"""What a worker does with one run, whatever pool it belongs to."""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from driftscope import records
from driftscope.config import RunSpec, parse_run_spec
from driftscope.errors import BusyError, RecordError
from driftscope.files import inner_folder, read_bytes, write_whole
from driftscope.records.watched_schema import WorkerSaid

RUN_ONE = "driftscope.run:run_one"
"""What carries out a run, as module:function, so that a driver need not import torch."""
SIGN_OF_LIFE_SECONDS = 2.0
_FULL_WORDS = ("No space left on device", "Disk quota exceeded")

Outcome: TypeAlias = tuple[Literal["done", "failed", "busy", "full", "unable"], str]
OnStep: TypeAlias = Callable[[int, int], None]


def carry_out(
    values: Mapping[str, Any],
    folder: Path,
    *,
    run_one: str = RUN_ONE,
    device: str | None = None,
    on_step: OnStep = lambda _done, _total: None,
) -> Outcome:
    """Carries out a run in a study, and says how it ended. Never raises an `Exception`.

    A failure is recorded in the run folder, but for three that are none of the run's own: the
    folder is being written by another process, a full disk, and a study folder that this machine
    does not see.
    """
    spec = parse_run_spec(values)
    if not folder.parent.is_dir():
        root = folder.parent.parent
        return "unable", (
            f"{platform.node()} sees no folder {root}; give --out a path that all machines share"
        )
    try:
        # the study folder may be moved under us: make the run's folder in it, never a new one
        inner_folder(folder.parent, folder.name)
    except RecordError as error:
        return "failed", str(error)
    except OSError as error:
        return ("full" if is_disk_full(error) else "failed"), str(error)
    try:
        with _signs_of_life(folder) as alive:

            def step(done: int, total: int) -> None:
                alive.step(done, total)
                on_step(done, total)

            _function(run_one)(spec, folder, device=device, on_step=step)
    except BusyError as error:
        return "busy", str(error)
    except Exception as error:
        if is_disk_full(error):
            with suppress(OSError):
                (folder / records.FAILURE_FILE).unlink(missing_ok=True)
            return "full", f"{type(error).__name__}: {error}"
        record_failure(spec, folder, error)
        return "failed", f"{type(error).__name__}: {error}"
    return "done", ""


def record_failure(spec: RunSpec, folder: Path, error: Exception) -> None:
    """Leaves the reason in the run folder, in the place of any former one."""
    if not folder.parent.exists():
        return
    with suppress(OSError, RecordError), records.claimed(folder, spec):
        records.write_failure(folder, error)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a full disk or an exhausted quota.

    Some libraries say so in words only.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(seen) for words in _FULL_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def sign_of_life_file(folder: Path) -> Path:
    """Where the worker of a run says what it is doing."""
    return folder.parent.parent / records.PROGRESS_FOLDER / f"{folder.name}.json"


def read_steps(folder: Path) -> tuple[int, int] | None:
    """Steps done and steps in all, as the run's worker last said; None where it says nothing."""
    try:
        said = WorkerSaid.model_validate_json(read_bytes(sign_of_life_file(folder)))
    except (OSError, ValueError):
        return None
    return said.steps_done, said.steps_total


@dataclass
class _Alive:
    file: Path
    steps: tuple[int, int] = (0, 0)
    ended: threading.Event = field(default_factory=threading.Event)

    def step(self, done: int, total: int) -> None:
        self.steps = (done, total)

    def tell_until_ended(self) -> None:
        while True:
            self.tell()
            if self.ended.wait(SIGN_OF_LIFE_SECONDS):
                return

    def tell(self) -> None:
        said = {
            "worker": f"{platform.node()}:{os.getpid()}",
            "steps_done": self.steps[0],
            "steps_total": self.steps[1],
        }
        # a sign of life is worth no failure: full disk, moved folder
        with suppress(OSError, RecordError):
            write_whole(self.file, json.dumps(said).encode(), durable=False)


@contextmanager
def _signs_of_life(folder: Path) -> Iterator[_Alive]:
    """Renews the run's sign of life in a thread, from here to the end; then takes it away."""
    alive = _Alive(sign_of_life_file(folder))
    with suppress(OSError, RecordError):
        inner_folder(alive.file.parent.parent, alive.file.parent.name)
    thread = threading.Thread(target=alive.tell_until_ended, daemon=True)
    thread.start()
    try:
        yield alive
    finally:
        alive.ended.set()
        thread.join()
        with suppress(OSError):
            alive.file.unlink(missing_ok=True)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
