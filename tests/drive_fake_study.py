"""`driftscope` with fake runs in place of real ones: a process that tests can kill."""

from __future__ import annotations

import fake_runs

from driftscope.cli import main
from driftscope.cli.study import RunPlace
from driftscope.executors.local import LocalPool
from driftscope.executors.schedule import Pool


def fake_pool(place: RunPlace) -> Pool:
    if place.ray is None:
        return LocalPool(place.workers, threads=1, devices=["cpu"], run_one=fake_runs.RUN_ONE)
    from driftscope.executors.ray import RayPool

    return RayPool(place.ray, device="cpu", run_one=fake_runs.RUN_ONE)


if __name__ == "__main__":
    RunPlace.pool = fake_pool  # type: ignore[method-assign]
    main()
