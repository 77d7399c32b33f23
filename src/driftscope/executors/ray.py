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
        runs_per_gpu: runs that share a GPU, where the cluster has any and `device` is not the CPU.
        max_runs: runs at a time at most; None for as many as fit.
        device: `cpu`, or None for a GPU if the cluster has any.
        run_one: what carries out a run, as module:function.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached, or none of its nodes has
            room for a run.
    """

    def __init__(
        self,
        address: str = LOCAL,
        *,
        threads: int = 1,
        runs_per_gpu: int = 1,
        max_runs: int | None = None,
        device: str | None = None,
        run_one: str = RUN_ONE,
    ) -> None:
        self._ray = _imported()
        self._owns_connection = not self._ray.is_initialized()
        if self._owns_connection:
            self._connect(address)
        self.max_runs = max_runs
        self.threads = threads
        on_gpu = device != "cpu" and any("GPU" in has for has in self._nodes())
        self.gpus = 1 / runs_per_gpu if on_gpu else 0.0
        self._device, self._run_one = None if on_gpu else "cpu", run_one
        self._tasks: dict[int, tuple[Any, Path]] = {}
        self._steps: dict[int, tuple[int, int]] = {}
        self._refuse_too_small_nodes()
        self._remote = self._ray.remote(
            num_cpus=threads,
            num_gpus=self.gpus,
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
        except (OSError, ValueError, RuntimeError) as error:
            if address == LOCAL:  # most often a folder too long for the names of its sockets
                raise ConfigError(
                    f"Ray cannot be started here: {error}; name it a short, writable folder with "
                    "RAY_TMPDIR, or leave out --ray"
                ) from None
            raise ConfigError(
                f"no Ray cluster at {address!r}: {error}; give --ray local to start one here"
            ) from None

    def _nodes(self) -> list[dict[str, float]]:
        """What each node that is alive has in all: `CPU`, `GPU`, …."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _capacity(self) -> int:
        return sum(map(self._room, self._nodes()))

    def _room(self, has: Mapping[str, float]) -> int:
        """How many runs an idle node has room for."""
        fits = has.get("CPU", 0.0) / self.threads
        if self.gpus:
            fits = min(fits, has.get("GPU", 0.0) / self.gpus)
        return int(fits + 1e-6)  # three thirds of a GPU are one

    def _refuse_too_small_nodes(self) -> None:
        """Waiting for room that no node has would be waiting for ever."""
        if self._capacity() > 0:
            return
        wanted = f"CPU: {self.threads}" + (f", GPU: {self.gpus:g}" if self.gpus else "")
        most = max((has.get("CPU", 0.0) for has in self._nodes()), default=0.0)
        self.close()
        raise ConfigError(
            f"no node of the Ray cluster has room for a run ({wanted}); the largest has "
            f"CPU: {most:g}. Give fewer --threads, --device cpu, or add nodes"
        )

    def _outcome(self, slot: int) -> News:
        reference, _ = self._tasks.pop(slot)
        self._steps.pop(slot, None)
        errors = self._ray.exceptions
        try:
            kind, message = self._ray.get(reference)
        except errors.RayTaskError as error:
            # a run's own errors are outcomes; this comes before it, where driftscope is missing
            last_line = str(error).strip().splitlines()[-1]
            return News(
                slot,
                "unable",
                f"a node of the Ray cluster cannot carry out runs ({last_line}); "
                "install there what is installed here",
            )
        except errors.RayError as error:
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
