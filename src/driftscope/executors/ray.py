"""Runs on a Ray cluster, existing or local (`pip install 'driftscope[ray]'`).

Ray carries specs and outcomes, never weights or images: the run folders lie on a path that all
nodes share. Lost nodes and workers are told as such, so that `schedule` starts their runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from driftscope.config import RunSpec
from driftscope.errors import ConfigError
from driftscope.executors.local import THREAD_VARIABLES
from driftscope.executors.schedule import News
from driftscope.executors.work import RUN_ONE, Outcome, carry_out, read_steps

LOCAL = "local"
POLL_SECONDS = 0.5
"""How often the signs of life are read for progress."""


class RayPool:
    """Runs as Ray tasks, as many at a time as the cluster has room for.

    Args:
        address: of a cluster, `auto` for the one this machine belongs to, or `local` to start one.
        threads: CPUs a run, and its CPU threads: part of what bit-equal results depend on.
        gpus: GPUs a run, may be a fraction.
        max_runs: runs at a time at most; None for as many as fit.
        device: such as `cpu`; None for the GPU if the run has one.
        run_one: what carries out a run, as module:function.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str = LOCAL,
        *,
        threads: int = 1,
        gpus: float = 0.0,
        max_runs: int | None = None,
        device: str | None = None,
        run_one: str = RUN_ONE,
    ) -> None:
        self._ray = _imported()
        self._owns_connection = not self._ray.is_initialized()
        if self._owns_connection:
            self._connect(address)
        self.max_runs = max_runs
        self.threads, self.gpus = threads, gpus
        self._device, self._run_one = device, run_one
        self._tasks: dict[int, tuple[Any, Path]] = {}
        self._steps: dict[int, tuple[int, int]] = {}
        self._remote = self._ray.remote(
            num_cpus=threads,
            num_gpus=gpus,
            max_retries=0,  # what is done again is decided in one place: schedule
            runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )(_carry_out)

    def free_slots(self) -> list[int]:
        """Slots for runs that the cluster has room for; it may grow and shrink."""
        capacity = self._capacity()
        if self.max_runs is not None:
            capacity = min(capacity, self.max_runs)
        free = (slot for slot in range(capacity + len(self._tasks)) if slot not in self._tasks)
        return [slot for slot, _ in zip(free, range(capacity - len(self._tasks)), strict=False)]

    def start(self, slot: int, spec: RunSpec, folder: Path) -> None:
        """Submits a run."""
        values = spec.model_dump(mode="json")
        reference = self._remote.remote(values, str(folder.resolve()), self._run_one, self._device)
        self._tasks[slot] = (reference, folder)

    def wait(self, timeout: float | None) -> list[News]:
        """Outcomes, and progress where it moved; returns at least every half second."""
        references = {reference: slot for slot, (reference, _) in self._tasks.items()}
        limit = POLL_SECONDS if timeout is None else min(timeout, POLL_SECONDS)
        ended, _ = self._ray.wait(list(references), num_returns=1, timeout=limit)
        news = [self._outcome(references[reference]) for reference in ended]
        return news or self._progress()

    def close(self) -> None:
        """Cancels what runs, and leaves the cluster if this pool had joined it."""
        for reference, _ in self._tasks.values():
            with suppress(Exception):  # the node may be gone
                self._ray.cancel(reference, force=True)
        self._tasks.clear()
        if self._owns_connection:
            self._ray.shutdown()

    def _connect(self, address: str) -> None:
        try:
            self._ray.init(
                address=None if address == LOCAL else address,
                include_dashboard=False if address == LOCAL else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster at {address!r}: {error}; give --ray local to start one here"
            ) from None

    def _capacity(self) -> int:
        runs = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = has.get("CPU", 0) // self.threads
                if self.gpus:
                    fits = min(fits, has.get("GPU", 0) / self.gpus)
                runs += int(fits)
        return runs

    def _outcome(self, slot: int) -> News:
        reference, _ = self._tasks.pop(slot)
        self._steps.pop(slot, None)
        try:
            kind, message = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            first_line = str(error).strip().splitlines()[0]
            return News(slot, "lost", f"the worker was lost ({type(error).__name__}: {first_line})")
        return News(slot, kind, message)

    def _progress(self) -> list[News]:
        news = []
        for slot, (_, folder) in self._tasks.items():
            steps = read_steps(folder)
            if steps is not None and steps[1] and steps != self._steps.get(slot):
                self._steps[slot] = steps
                news.append(News(slot, "step", steps_done=steps[0], steps_total=steps[1]))
        return news


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "the Ray executor needs Ray; install it with: pip install 'driftscope[ray]'"
        ) from None
    return ray


def _carry_out(values: Mapping[str, Any], folder: str, run_one: str, device: str | None) -> Outcome:
    return carry_out(values, Path(folder), run_one=run_one, device=device)
