"""The Ray pool on a local cluster of two nodes: the same behaviour as the local pool, and results.

Ray takes seconds to start, so one cluster serves all tests; the last one kills a node of it. A lock
lets one cluster exist at a time, whatever processes pytest is spread over.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import RUN_ONE, finished, order
from filelock import FileLock
from test_executors import (
    ends,
    epochs_by_process,
    ids,
    readings,
    real_tasks,
    start_driver,
    tasks_of,
    wait_until,
)

from driftscope import records
from driftscope.config import run_id
from driftscope.executors.local import LocalPool
from driftscope.executors.schedule import execute

pytest.importorskip("ray", reason="Ray is not installed: pip install 'driftscope[ray]'")

from driftscope.executors.ray import RayPool

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, the first of which keeps the cluster's books."""
    with (
        FileLock(Path(tempfile.gettempdir()) / "driftscope-ray-tests.lock"),
        pytest.MonkeyPatch.context() as environment,
    ):
        # workers must find fake_runs; and Ray's sockets need names of at most 107 bytes
        environment.setenv("PYTHONPATH", os.pathsep.join(_python_path()))
        place = Path(tempfile.mkdtemp(prefix="ds-ray-", dir="/tmp"))
        try:
            yield from _cluster(place)
            wait_until(lambda: not processes_with_files_below(place))
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _python_path() -> list[str]:
    return [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]


def _cluster(place: Path) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    of_node = {"num_cpus": 1, "object_store_memory": 10**8}
    head = {**of_node, "include_dashboard": False, "temp_dir": str(place)}
    # where Ray notes the latest cluster; with a temp_dir of one's own it does not make the folder
    (Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray").mkdir(exist_ok=True)
    one = Cluster(initialize_head=True, head_node_args=head)
    try:
        one.add_node(**of_node)
        ray.init(address=one.address, log_to_driver=False, logging_level="ERROR")
        yield one
    finally:
        ray.shutdown()
        one.shutdown()


def processes_with_files_below(place: Path) -> list[int]:
    """All of Ray's processes have their logs open."""

    def holds(process: Path) -> bool:
        try:
            return any(str(file.readlink()).startswith(str(place)) for file in process.iterdir())
        except OSError:  # ended, or another user's
            return False

    return [int(fds.parent.name) for fds in Path("/proc").glob("[0-9]*/fd") if holds(fds)]


def pool(**options: Any) -> RayPool:
    return RayPool("auto", device="cpu", **{"run_one": RUN_ONE, **options})


def test_real_runs_on_two_nodes_equal_those_of_the_local_pool_bit_for_bit(
    cluster: Any, tiny_run: dict[str, object], tmp_path: Path
) -> None:
    here, there = (real_tasks(tmp_path / place, tiny_run) for place in ("local", "ray"))
    on_ray = ends(list(execute(there, RayPool("auto", device="cpu"))))
    on_local = ends(list(execute(here, LocalPool(1, threads=1, devices=["cpu"]))))
    assert all(update.done for update in [*on_ray.values(), *on_local.values()])
    folders = ([folder for _, folder in tasks] for tasks in (here, there))
    ours, theirs = (readings(list(places)) for places in folders)
    assert ours == theirs
    for (_, ours_at), (_, theirs_at) in zip(here, there, strict=True):
        weights = [next((at / "adapted").glob("*.safetensors")) for at in (ours_at, theirs_at)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_failures_are_recorded_and_killed_workers_runs_go_on(cluster: Any, tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    order(tmp_path, SEEDS[0], 2, "fail")
    order(tmp_path, SEEDS[1], 2, "kill")
    updates = list(execute(tasks, pool()))
    ended = ends(updates)
    failed, killed, other = ids(tasks)
    assert ended[failed].failure == "ValueError: as ordered"
    assert ended[killed].done
    assert ended[other].done
    assert [update.run_id for update in updates if update.remark] == [killed]
    (_, first), (_, second), (three, third) = epochs_by_process(tasks[1][1])
    assert first == second != third
    assert three == 3
    assert sorted(finished(tmp_path)) == sorted([killed, other])


def test_no_more_runs_than_asked_for_are_under_way(cluster: Any, tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    open_runs: set[str] = set()
    most = 0
    for update in execute(tasks, pool(max_runs=1)):
        (open_runs.discard if update.ended else open_runs.add)(update.run_id)
        most = max(most, len(open_runs))
    assert most == 1
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))


def test_a_killed_drivers_runs_end_with_it_and_the_same_command_finishes_the_study(
    cluster: Any, tmp_path: Path
) -> None:
    root = tmp_path / "study"
    (root / "runs").mkdir(parents=True)
    tasks = tasks_of(root)
    holds = [order(root, seed, 2, "hold") for seed in SEEDS]
    driver = start_driver(root, ray=cluster.address)
    wait_until(lambda: sum(len(records.read_events(folder)) == 2 for _, folder in tasks) == 2)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(records.is_claimed(folder) for _, folder in tasks))
    assert finished(root) == []
    for hold in holds:
        hold.unlink()
    start_driver(root, ray=cluster.address).communicate()  # its report needs real runs
    assert sorted(finished(root)) == sorted(ids(tasks))
    for spec, folder in tasks:
        assert [epoch for epoch, _ in epochs_by_process(folder)] == [1, 2, 3], run_id(spec)
    assert not list(root.glob("runs/*/failure.json"))


def test_a_node_that_vanishes_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    holds = [order(tmp_path, seed, 2, "hold") for seed in SEEDS]
    lost: list[str] = []
    ended = {}
    for update in execute(tasks, pool()):
        begun = sum(len(records.read_events(folder)) == 2 for _, folder in tasks)
        if holds and begun == 2:
            (victim,) = cluster.worker_nodes
            cluster.remove_node(victim, allow_graceful=False)
            # its worker outlives it for a moment, in which a quick run would still be done
            wait_until(lambda: sum(records.is_claimed(folder) for _, folder in tasks) == 1)
            for hold in holds:
                hold.unlink()
            holds = []
        if update.remark:
            lost.append(update.run_id)
        if update.ended:
            ended[update.run_id] = update
    assert not cluster.worker_nodes
    assert len(lost) == 1
    assert all(update.done for update in ended.values())
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))
    for spec, folder in tasks:
        assert [epoch for epoch, _ in epochs_by_process(folder)] == [1, 2, 3], run_id(spec)
