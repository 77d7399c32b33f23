"""Runs on this machine: spawned worker processes, threads divided among them.

A worker is one process with one pipe. It is told a spec and a folder, and tells steps and the
end. A worker that dies (killed, out of memory) fails its run and is replaced; the study goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from driftscope.config import RunSpec, run_id

Task = tuple[RunSpec, Path]


@dataclass(frozen=True)
class Update:
    """News of one run: how far it is, that it is done, or why it failed."""

    run_id: str
    worker: int
    steps_done: int = 0
    steps_total: int = 0
    done: bool = False
    failure: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the run is over, well or not."""
        return self.done or self.failure is not None


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    run_id: str | None = None


def execute(
    tasks: Sequence[Task], num_workers: int, threads: int = 1, device: str | None = None
) -> Iterator[Update]:
    """Carries out runs, `num_workers` at a time, and yields what happens as it happens.

    Closing the iterator (or Ctrl-C) ends the workers; runs on their way can be resumed.

    Args:
        tasks: specs with their folders.
        num_workers: processes at a time.
        threads: CPU threads a worker; part of what bit-equal results depend on.
        device: such as `cuda:0`; None for the default.
    """
    waiting = list(reversed(tasks))
    workers = {
        index: _start_worker(threads, device) for index in range(min(num_workers, len(tasks)))
    }
    try:
        for worker in workers.values():
            _give(worker, waiting)
        while any(worker.run_id for worker in workers.values()):
            busy = {worker.pipe: i for i, worker in workers.items() if worker.run_id}
            for pipe in wait(list(busy)):
                index = busy[pipe]  # type: ignore[index]
                update = _hear(workers[index], index)
                yield update
                if update.failure is not None and not workers[index].process.is_alive():
                    workers[index] = _start_worker(threads, device)
                if update.ended:
                    _give(workers[index], waiting)
    finally:
        for worker in workers.values():
            worker.process.terminate()
            worker.process.join()


def default_workers() -> int:
    """One worker a core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(threads: int, device: str | None) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, threads, device), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, waiting: list[Task]) -> None:
    if not waiting:
        worker.run_id = None
        return
    spec, folder = waiting.pop()
    worker.run_id = run_id(spec)
    worker.pipe.send((spec.model_dump(mode="json"), str(folder)))


def _hear(worker: _Worker, index: int) -> Update:
    run = worker.run_id or ""
    try:
        kind, *news = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        reason = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return Update(run, index, failure=f"the worker process ended {reason}")
    if kind == "step":
        return Update(run, index, steps_done=news[0], steps_total=news[1])
    if kind == "done":
        return Update(run, index, done=True)
    return Update(run, index, failure=str(news[0]))


def _work(pipe: Connection, threads: int, device: str | None) -> None:
    """A worker's life: it ends when the parent closes the pipe or terminates it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    import torch

    from driftscope.config import parse_run_spec
    from driftscope.run import run_one

    torch.set_num_threads(threads)
    while True:
        try:
            values, folder = pipe.recv()
        except EOFError:
            return
        try:
            run_one(
                parse_run_spec(values),
                Path(folder),
                device=device,
                on_step=lambda done, total: pipe.send(("step", done, total)),
            )
            pipe.send(("done",))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
