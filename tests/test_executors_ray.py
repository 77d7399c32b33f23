"""The Ray pool on a local cluster of two nodes: the same behaviour as the local pool, and results.

Ray takes seconds to start, so one cluster serves all tests; the last one kills a node of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import RUN_ONE, finished, order
from test_executors import ends, epochs_by_process, ids, readings, real_tasks, tasks_of

from driftscope import records
from driftscope.config import run_id
from driftscope.errors import ConfigError
from driftscope.executors.local import LocalPool
from driftscope.executors.schedule import execute

pytest.importorskip("ray", reason="Ray is not installed: pip install 'driftscope[ray]'")

from driftscope.executors.ray import RayPool

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each; a third, without any, keeps the cluster's books."""
    with pytest.MonkeyPatch.context() as environment:  # workers must find fake_runs
        environment.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield from _cluster()


def _cluster() -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    one = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8},
    )
    for _ in range(2):
        one.add_node(num_cpus=1, object_store_memory=10**8)
    ray.init(address=one.address, log_to_driver=False, logging_level="ERROR")
    yield one
    ray.shutdown()
    one.shutdown()


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


def test_a_node_that_vanishes_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    holds = [order(tmp_path, seed, 2, "hold") for seed in SEEDS]
    lost: list[str] = []
    ended = {}
    for update in execute(tasks, pool()):
        begun = sum(len(records.read_events(folder)) == 2 for _, folder in tasks)
        if holds and begun == 2:
            victim = cluster.worker_nodes.copy().pop()
            cluster.remove_node(victim, allow_graceful=False)
            for hold in holds:
                hold.unlink()
            holds = []
        if update.remark:
            lost.append(update.run_id)
        if update.ended:
            ended[update.run_id] = update
    assert len(cluster.worker_nodes) == 1
    assert len(lost) == 1
    assert all(update.done for update in ended.values())
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))
    for spec, folder in tasks:
        assert [epoch for epoch, _ in epochs_by_process(folder)] == [1, 2, 3], run_id(spec)


def test_a_cluster_that_is_not_there_is_answered_by_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    def refuse(**_options: object) -> None:
        raise ConnectionError("could not find any running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError, match="no Ray cluster at 'auto'"):
        RayPool("auto")
