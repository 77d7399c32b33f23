"""What the Ray pool asks a cluster for, and how many runs it hands out: with a stand-in for Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs
import pytest

from driftscope.cli.study import RunPlace
from driftscope.errors import ConfigError
from driftscope.executors import ray as executor
from driftscope.executors.ray import RayPool


class FakeRay(SimpleNamespace):
    """A cluster of given nodes that accepts tasks and never ends one."""

    def __init__(self, *nodes: dict[str, float], initialized: bool = True) -> None:
        alive = [{"Alive": True, "Resources": has} for has in nodes]
        gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        super().__init__(alive=[*alive, gone], initialized=initialized, options={}, tasks=[])

    def is_initialized(self) -> bool:
        return self.initialized

    def nodes(self) -> list[dict[str, Any]]:
        return self.alive

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options
        return lambda _function: SimpleNamespace(remote=lambda *task: self.tasks.append(task))


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRay]:
    def cluster(*nodes: dict[str, float], **options: Any) -> FakeRay:
        fake = FakeRay(*nodes, **options)
        monkeypatch.setattr(executor, "_imported", lambda: fake)
        return fake

    return cluster


def test_a_run_takes_its_threads_and_its_share_of_a_gpu(on: Callable[..., FakeRay]) -> None:
    ray = on({"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0})
    pool = RayPool(threads=4, runs_per_gpu=3)
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (4, 1 / 3)
    assert ray.options["max_retries"] == 0
    assert ray.options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "4"
    assert len(pool.free_slots()) == 4  # 16 CPUs are room for four, two GPUs for six


def test_thirds_of_a_gpu_make_a_whole_one(on: Callable[..., FakeRay]) -> None:
    for runs_per_gpu in range(1, 50):
        on({"CPU": 64.0, "GPU": 1.0})
        assert len(RayPool(runs_per_gpu=runs_per_gpu).free_slots()) == runs_per_gpu


def test_on_the_cpu_no_gpu_is_asked_for(on: Callable[..., FakeRay]) -> None:
    for has, device in (({"CPU": 4.0}, None), ({"CPU": 4.0, "GPU": 1.0}, "cpu")):
        ray = on(has)
        pool = RayPool(device=device)
        assert ray.options["num_gpus"] == 0
        assert len(pool.free_slots()) == 4


def test_no_more_is_handed_out_than_there_is_room_and_a_grown_cluster_gets_more(
    on: Callable[..., FakeRay], tmp_path: Path
) -> None:
    ray = on({"CPU": 2.0})
    pool = RayPool()
    for seed, slot in enumerate(pool.free_slots()):
        pool.start(slot, fake_runs.spec(seed), tmp_path)
    assert pool.free_slots() == []
    assert len(ray.tasks) == 2
    ray.alive.append({"Alive": True, "Resources": {"CPU": 1.0}})
    assert pool.free_slots() == [2]


def test_a_cluster_without_room_for_any_run_is_answered_by_a_sentence(
    on: Callable[..., FakeRay],
) -> None:
    on({"CPU": 2.0}, {"CPU": 3.0})
    with pytest.raises(ConfigError, match=r"\(CPU: 4\); the largest has CPU: 3\. Give fewer"):
        RayPool(threads=4)
    on({"CPU": 1.0, "GPU": 0.0}, {"CPU": 0.0, "GPU": 1.0})
    with pytest.raises(ConfigError, match="CPU: 1, GPU: 1"):
        RayPool()


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class RuntimeEnvSetupError(RayError):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            RayTaskError("task_1 (pid=7)\n  …\nImportError: no driftscope"),
            "unable",
            "no driftscope",
        ),
        # a dying node cannot set up its environment, either: another one may
        (RuntimeEnvSetupError("Failed to set up.\nno agent"), "lost", "Failed to set up."),
        (RayError("the node died\nmore"), "lost", "RayError: the node died"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_node_that_can_carry_out_no_run_is_told_from_one_that_is_lost(
    on: Callable[..., FakeRay], tmp_path: Path, error: RayError, kind: str, words: str
) -> None:
    def get(_reference: object) -> None:
        raise error

    ray = on({"CPU": 1.0})
    ray.exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, RuntimeEnvSetupError=RuntimeEnvSetupError
    )
    ray.wait, ray.get = lambda references, **_options: (references, []), get
    pool = RayPool()
    pool.start(0, fake_runs.spec(1), tmp_path)
    (news,) = pool.wait(None)
    assert news.kind == kind
    assert words in news.message


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("auto", "no Ray cluster at 'auto': not there"),
        ("local", "cannot be started here: not ther"),
    ],
)
def test_a_cluster_that_is_not_there_is_answered_by_a_sentence(
    address: str, words: str, on: Callable[..., FakeRay]
) -> None:
    def refuse(**_options: object) -> None:
        raise OSError("not there")

    on(initialized=False).init = refuse
    with pytest.raises(ConfigError, match=words):
        RayPool(address)


def test_which_gpu_a_run_gets_is_rays_to_say(on: Callable[..., FakeRay]) -> None:
    ray = on({"CPU": 2.0, "GPU": 1.0})
    RunPlace(devices=("cuda",), runs_per_device=2, ray="auto").pool()
    assert ray.options["num_gpus"] == 0.5
    RunPlace(devices=("cpu",), runs_per_device=2, ray="auto").pool()
    assert ray.options["num_gpus"] == 0
    with pytest.raises(ConfigError, match="--device is cpu or cuda, not cuda:1"):
        RunPlace(devices=("cuda:1",), ray="auto").pool()
