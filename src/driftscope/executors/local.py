"""Runs on this machine: spawned worker processes that share its cores, memory and GPUs.

A worker is one process with one pipe. It is told a spec and a folder, and tells steps and the
end. It lives as long as its parent: when the driver dies, however it dies, so do its workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from driftscope.config import RunSpec
from driftscope.executors.schedule import News
from driftscope.executors.work import RUN_ONE, carry_out
from driftscope.machine import available_bytes, usable_cores

WORKER_BYTES = 1_500_000_000
"""Memory a worker is reckoned with: torch, transformers and a small study's images in memory."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    busy: bool = False


class LocalPool:
    """Worker processes, started when first needed and replaced when they die.

    Args:
        num_workers: processes at a time; by default what cores, memory and GPUs allow.
        threads: CPU threads a worker, part of what bit-equal results depend on; by default the
            cores are divided among the workers.
        devices: such as `cpu` or `cuda:1`; workers are spread over them. By default every GPU.
        runs_per_device: runs on one GPU at a time.
        run_one: what carries out a run, as module:function.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        threads: int | None = None,
        devices: Sequence[str] = (),
        runs_per_device: int = 1,
        run_one: str = RUN_ONE,
    ) -> None:
        self.devices = list(devices) or visible_gpus()
        self.num_workers = num_workers or default_workers(self.devices, runs_per_device)
        self.threads = threads or max(1, usable_cores() // self.num_workers)
        self.run_one = run_one
        self._workers: dict[int, _Worker] = {}
        self._closed_slots: set[int] = set()

    def free_slots(self) -> list[int]:
        """Slots without a run; those given up for want of memory are not among them."""
        return [
            slot
            for slot in range(self.num_workers)
            if slot not in self._closed_slots
            and (slot not in self._workers or not self._workers[slot].busy)
        ]

    def device(self, slot: int) -> str | None:
        """Where the runs of a slot are computed: devices take turns."""
        return self.devices[slot % len(self.devices)] if self.devices else None

    def start(self, slot: int, spec: RunSpec, folder: Path) -> None:
        """Gives a run to the slot's worker, which is started if there is none."""
        if slot not in self._workers:
            self._workers[slot] = self._start_worker(slot)
        self._workers[slot].busy = True
        task = (spec.model_dump(mode="json"), str(folder))
        try:
            self._workers[slot].pipe.send(task)
        except OSError:  # it died while idle: no run is to blame
            self._bury(slot)
            self._workers[slot] = self._start_worker(slot)
            self._workers[slot].busy = True
            self._workers[slot].pipe.send(task)

    def wait(self, timeout: float | None) -> list[News]:
        """What the workers say; a closed pipe is a lost worker."""
        slots = {worker.pipe: slot for slot, worker in self._workers.items() if worker.busy}
        ready = wait(list(slots), timeout)
        return [self._hear(slots[pipe]) for pipe in ready if isinstance(pipe, Connection)]

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers.values():
            worker.process.terminate()
        for slot in list(self._workers):
            self._bury(slot)

    def _hear(self, slot: int) -> News:
        worker = self._workers[slot]
        try:
            kind, *rest = worker.pipe.recv()
        except (EOFError, OSError):
            return News(slot, "lost", self._bury(slot))
        if kind == "step":
            return News(slot, "step", steps_done=rest[0], steps_total=rest[1])
        worker.busy = False
        return News(slot, kind, rest[0])

    def _bury(self, slot: int) -> str:
        """Takes a dead worker away; says in words how it ended."""
        worker = self._workers.pop(slot)
        worker.process.join(timeout=10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        if code == -signal.SIGKILL and self._is_short_of_memory():
            # most likely the kernel's doing; one worker fewer beats losing runs in turn
            self._closed_slots.add(slot)
            return "the worker process was killed, with little memory left; one worker fewer now"
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return f"the worker process ended {how}"

    def _is_short_of_memory(self) -> bool:
        return bool(self._workers) and available_bytes() < WORKER_BYTES

    def _start_worker(self, slot: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self.threads, self.device(slot), self.run_one)
        process = context.Process(target=_work, args=arguments, daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        return _Worker(process, ours)


def default_workers(devices: Sequence[str] = (), runs_per_device: int = 1) -> int:
    """`runs_per_device` workers a GPU, else one a core; in both cases no more than fit in memory.

    Where there are no GPUs, `devices` is empty or names the CPU.
    """
    on_gpu = any(device.startswith("cuda") for device in devices)
    wanted = len(devices) * runs_per_device if on_gpu else usable_cores()
    return max(1, min(wanted, available_bytes() // WORKER_BYTES))


def visible_gpus() -> list[str]:
    """The CUDA devices this process may use, asked of the driver so that torch stays out."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [line for line in listed.splitlines() if line.startswith("GPU ")]
    if allowed is not None:  # as CUDA reads it: nothing counts from the first invalid entry on
        parts = map(str.strip, allowed.split(","))
        names = list(takewhile(lambda part: part and not part.startswith("-"), parts))
    return [f"cuda:{index}" for index in range(len(names))]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block ends; a process that is started in it never sees one.

    A terminal interrupts the whole group, also a worker that has only begun to import Python.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would let interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, threads: int, device: str | None, run_one: str) -> None:
    """A worker's life: until the pipe is closed, or the parent gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for variable in THREAD_VARIABLES:  # before torch is imported
        os.environ[variable] = str(threads)
    while True:
        try:
            values, folder = pipe.recv()
        except EOFError:
            return
        outcome = carry_out(
            values,
            Path(folder),
            run_one=run_one,
            device=device,
            on_step=lambda done, total: _tell(pipe, ("step", done, total)),
        )
        _tell(pipe, outcome)


def _tell(pipe: Connection, news: tuple[object, ...]) -> None:
    try:
        pipe.send(news)
    except OSError:
        os._exit(1)  # nobody listens any more; everything on disk is whole at every moment


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
