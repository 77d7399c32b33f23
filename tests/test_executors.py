"""Every pool behaves alike; and nothing is lost, done twice or half-written, whatever happens.

The runs here are light stand-ins that obey orders (`fake_runs`); one test per pool does real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fake_runs
import pytest
from drive_fake_study import fake_pool
from fake_runs import RUN_ONE, finished, order
from pools import InThisProcess
from typer.testing import CliRunner

from driftscope import machine, records
from driftscope.cli import app
from driftscope.cli.study import RunPlace
from driftscope.config import RunSpec, parse_run_spec, run_id
from driftscope.errors import RecordError
from driftscope.executors import local
from driftscope.executors.local import LocalPool
from driftscope.executors.schedule import MAX_LOSSES, Pool, Task, Update, execute
from driftscope.executors.work import carry_out, is_disk_full, read_steps, sign_of_life_file
from driftscope.study import run_folder

SEEDS = (1, 2, 3)


def local_pool(**options: object) -> Pool:
    return LocalPool(2, threads=1, devices=["cpu"], run_one=RUN_ONE, **options)  # type: ignore[arg-type]


@pytest.fixture
def pool() -> Iterator[Pool]:
    one = local_pool()
    yield one
    one.close()


def tasks_of(root: Path, seeds: Sequence[int] = SEEDS, **values: object) -> list[Task]:
    specs = [fake_runs.spec(seed, **values) for seed in seeds]
    return [(spec, run_folder(root, spec)) for spec in specs]


def ids(tasks: Sequence[Task]) -> list[str]:
    return [run_id(spec) for spec, _ in tasks]


def ends(updates: Sequence[Update]) -> dict[str, Update]:
    """The last word on each run; each may be said once."""
    ended = [update for update in updates if update.ended]
    assert len({update.run_id for update in ended}) == len(ended)
    return {update.run_id: update for update in ended}


def epochs_by_process(folder: Path) -> list[tuple[int, int]]:
    return [(event["epoch"], event["pid"]) for event in records.read_events(folder)]


def test_every_run_is_done_once_and_its_steps_are_told(tmp_path: Path, pool: Pool) -> None:
    tasks = tasks_of(tmp_path)
    updates = list(execute(tasks, pool))
    assert {name: update.done for name, update in ends(updates).items()} == dict.fromkeys(
        ids(tasks), True
    )
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))
    steps = [(u.steps_done, u.steps_total) for u in updates if u.steps_total]
    assert sorted(steps) == sorted([(epoch, 3) for epoch in (1, 2, 3)] * len(tasks))
    assert list((tmp_path / "progress").iterdir()) == []


def test_a_run_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, pool: Pool) -> None:
    tasks = tasks_of(tmp_path)
    order(tmp_path, SEEDS[0], 2, "fail")
    ended = ends(list(execute(tasks, pool)))
    failed, *others = ids(tasks)
    assert ended[failed].failure == "ValueError: as ordered"
    assert all(ended[name].done for name in others)
    failure = records.read_json(tasks[0][1] / records.FAILURE_FILE)
    assert failure["message"] == "as ordered"
    assert "Traceback" in failure["traceback"]


def test_a_killed_workers_run_goes_on_from_where_it_was(tmp_path: Path, pool: Pool) -> None:
    tasks = tasks_of(tmp_path)
    order(tmp_path, SEEDS[1], 2, "kill")
    updates = list(execute(tasks, pool))
    assert all(update.done for update in ends(updates).values())
    assert [u.run_id for u in updates if u.remark] == [ids(tasks)[1]]
    assert "signal 9" in next(u.remark for u in updates if u.remark)
    (one, first), (two, second), (three, third) = epochs_by_process(tasks[1][1])
    assert (one, two, three) == (1, 2, 3)
    assert first == second != third
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))


def test_a_run_that_kills_its_worker_each_time_fails_in_the_end(tmp_path: Path, pool: Pool) -> None:
    tasks = tasks_of(tmp_path)
    order(tmp_path, SEEDS[0], 0, "kill always")
    ended = ends(list(execute(tasks, pool)))
    assert f"{MAX_LOSSES} workers were lost" in (ended[ids(tasks)[0]].failure or "")
    assert (tasks[0][1] / records.FAILURE_FILE).exists()
    assert sorted(finished(tmp_path)) == sorted(ids(tasks)[1:])


def test_a_run_that_gets_further_with_each_worker_it_loses_is_done_in_the_end(
    tmp_path: Path, pool: Pool
) -> None:
    tasks = tasks_of(tmp_path, SEEDS[:1])
    for epoch in (1, 2, 3):
        order(tmp_path, SEEDS[0], epoch, "kill always")
    updates = list(execute(tasks, pool))
    assert len([update for update in updates if update.remark]) == MAX_LOSSES
    assert ends(updates)[ids(tasks)[0]].done


def test_a_full_disk_stops_the_study_and_counts_as_nobodys_failure(
    tmp_path: Path, pool: Pool
) -> None:
    tasks = tasks_of(tmp_path)
    full = order(tmp_path, SEEDS[0], 2, "full")
    with pytest.raises(RecordError, match="the disk is full"):
        list(execute(tasks, pool))
    assert not (tasks[0][1] / records.FAILURE_FILE).exists()
    full.unlink()
    left = [task for task in tasks if not records.is_done(task[1])]
    assert all(u.done for u in ends(list(execute(left, local_pool()))).values())
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))
    assert [epoch for epoch, _ in epochs_by_process(tasks[0][1])] == [1, 2, 3]


def test_a_full_disk_is_known_by_its_words_and_through_other_errors() -> None:
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError(28, "No space left on device")
    assert is_disk_full(wrapped)
    assert is_disk_full(Exception("I/O error: No space left on device (os error 28)"))
    assert is_disk_full(Exception("I/O error: Disk quota exceeded (os error 122)"))
    assert not is_disk_full(ValueError("a full disc is round"))


def test_closing_early_ends_the_workers_and_leaves_runs_to_be_resumed(
    tmp_path: Path, pool: Pool
) -> None:
    tasks = tasks_of(tmp_path)
    holds = [order(tmp_path, seed, 2, "hold") for seed in SEEDS]
    updates = execute(tasks, pool)
    for update in updates:
        if update.steps_done == 2:
            break
    updates.close()  # as Ctrl-C does
    assert not any(records.is_claimed(folder) for _, folder in tasks)
    assert finished(tmp_path) == []
    assert list((tmp_path / "progress").glob("*.json")) == []
    for hold in holds:
        hold.unlink()
    assert all(u.done for u in ends(list(execute(tasks, local_pool()))).values())
    for _, folder in tasks:
        assert [epoch for epoch, _ in epochs_by_process(folder)] == [1, 2, 3]


def test_a_folder_that_is_moved_stops_the_study_and_the_rest_is_done_at_the_new_place(
    tmp_path: Path, pool: Pool
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    tasks = tasks_of(old)
    order(old, SEEDS[0], 2, "hold")

    def move_in_the_middle() -> None:
        for update in execute(tasks, pool):
            if update.run_id == ids(tasks)[0] and update.steps_done == 2:
                old.rename(new)
                (old / "orders").mkdir(parents=True)  # the run goes on, into nothing

    with pytest.raises(RecordError, match="moved or deleted"):
        move_in_the_middle()
    (new / "orders" / f"{SEEDS[0]}-2").unlink()
    assert not list(old.glob("runs/*/result.json"))
    there = tasks_of(new)
    left = [task for task in there if not records.is_done(task[1])]
    assert all(u.done for u in ends(list(execute(left, local_pool()))).values())
    assert sorted(finished(new)) == sorted(ids(there))


class Elsewhere(InThisProcess):
    """Its one machine has another file system: it sees none of the folders."""

    def __init__(self, root: Path) -> None:
        super().__init__(run_one=RUN_ONE)
        self.root = root

    def place_of(self, folder: Path) -> Path:
        return self.root / folder.name


def fail(task: Task, words: str) -> None:
    """Leaves what a run that failed leaves."""
    spec, folder = task
    folder.parent.mkdir(parents=True, exist_ok=True)
    with records.claimed(folder, spec):
        records.write_failure(folder, ValueError(words))


def test_a_run_that_fails_in_another_process_meanwhile_has_failed_here_too(tmp_path: Path) -> None:
    first, second, third = tasks = tasks_of(tmp_path)
    fail(third, "before")  # it is asked for in spite of that

    class Beside(InThisProcess):
        def start(self, slot: int, spec: RunSpec, folder: Path) -> None:
            super().start(slot, spec, folder)
            if folder == first[1]:
                fail(second, "elsewhere")

    pool = Beside(run_one=RUN_ONE)
    ended = ends(list(execute(tasks, pool)))
    assert pool.started == [first[1], third[1]]
    assert [ended[name].failure for name in ids(tasks)] == [None, "ValueError: elsewhere", None]


def test_a_failure_before_the_run_begins_takes_the_place_of_an_earlier_ones_reason(
    tmp_path: Path,
) -> None:
    ((spec, folder),) = tasks_of(tmp_path, SEEDS[:1])
    fail((spec, folder), "of last week")
    told = carry_out(spec.model_dump(mode="json"), folder, run_one="fake_runs:not_there")
    assert told == ("failed", records.read_failure(folder))
    assert "not_there" in told[1]


def test_no_sign_of_life_outlives_its_worker(tmp_path: Path) -> None:
    ((spec, folder),) = tasks_of(tmp_path, SEEDS[:1])
    sign = sign_of_life_file(folder)

    class Late(InThisProcess):
        def close(self) -> None:  # a worker renews its sign until it is ended
            sign.parent.mkdir(exist_ok=True)
            sign.write_text("{}")

    updates = execute([(spec, folder)], Late(run_one=RUN_ONE))
    next(updates)
    updates.close()
    assert not sign.exists()


def test_a_machine_that_does_not_see_the_folder_stops_the_study_and_no_run_failed(
    tmp_path: Path,
) -> None:
    tasks = tasks_of(tmp_path / "here")
    with pytest.raises(RecordError, match=r"sees no folder .*there; give --out a path that all"):
        list(execute(tasks, Elsewhere(tmp_path / "there" / "runs")))
    assert not list(tmp_path.rglob("failure.json"))
    assert not (tmp_path / "there").exists()


def test_clocks_that_jump_decide_nothing(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", time.time)  # to be put back
    fake_runs.let_clocks_jump()
    tasks = tasks_of(tmp_path)
    (order(tmp_path, SEEDS[0], 1, "kill").parent / "clock").touch()  # the workers' clocks too
    for folder in (folder for _, folder in tasks):  # files from a future that never was
        folder.mkdir(parents=True)
        os.utime(folder, (4e9, 4e9))
    assert all(update.done for update in ends(list(execute(tasks, pool))).values())
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))
    clocks = [records.read_json(folder / records.RESULT_FILE)["clock"] for _, folder in tasks]
    assert all(abs(clock - tmp_path.stat().st_mtime) > 86400 * 300 for clock in clocks)


# ---------------------------------------------------------------- several drivers


def start_driver(
    root: Path, seeds: Sequence[int] = SEEDS, *, ray: str | None = None
) -> subprocess.Popen[str]:
    """`driftscope study run` with fake runs, in a session of its own as a terminal makes one."""
    study = write_study(root.parent / "study.yaml", seeds)
    command = [sys.executable, str(Path(__file__).parent / "drive_fake_study.py")]
    arguments = ["study", "run", str(study), "--out", str(root), "--workers", "2"]
    return subprocess.Popen(
        [*command, *arguments, *(["--ray", ray] if ray else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def write_study(path: Path, seeds: Sequence[int]) -> Path:
    base = f"{{method: full_ft, learning_rate: 1e-3, epochs: {fake_runs.EPOCHS}}}"
    path.write_text(f"name: fake\nbase: {base}\naxes: {{seed: {list(seeds)}}}\n")
    return path


PATIENCE_SECONDS = 600
"""Only a test that hangs waits so long: a busy machine takes minutes to start a few processes."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study's folder with room beside it for the study's file."""
    (tmp_path / "study" / "runs").mkdir(parents=True)
    return tmp_path / "study"


def test_ctrl_c_stops_in_a_sentence_and_the_same_command_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_of(root)
    holds = [order(root, seed, 2, "hold") for seed in SEEDS]
    driver = start_driver(root)
    wait_until(lambda: len(records.read_events(tasks[0][1])) == 2)
    os.killpg(driver.pid, signal.SIGINT)  # a terminal tells the whole group
    _, said = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 130
    assert "Stopped; the same command goes on from here." in " ".join(said.split())
    assert "Traceback" not in said
    assert not any(records.is_claimed(folder) for _, folder in tasks)
    assert not list(root.glob("runs/*/failure.json"))
    for hold in holds:
        hold.unlink()
    monkeypatch.setattr(RunPlace, "pool", fake_pool)
    CliRunner().invoke(app, driver.args[2:])  # its report needs real runs: its end says nothing
    assert sorted(finished(root)) == sorted(ids(tasks))
    assert [epoch for epoch, _ in epochs_by_process(tasks[0][1])] == [1, 2, 3]


def test_ctrl_c_does_not_reach_a_worker_that_has_only_been_started(tmp_path: Path) -> None:
    ((spec, folder),) = tasks_of(tmp_path, SEEDS[:1])
    folder.parent.mkdir()
    pool = LocalPool(1, threads=1, devices=["cpu"], run_one=RUN_ONE)
    pool.start(0, spec, folder)
    os.kill(pool._workers[0].process.pid or 0, signal.SIGINT)
    while not (ended := [news for news in pool.wait(None) if news.kind != "step"]):
        pass
    pool.close()
    assert [news.kind for news in ended] == ["done"]


def test_a_killed_drivers_workers_die_with_it_and_the_next_driver_finishes(root: Path) -> None:
    tasks = tasks_of(root)
    holds = [order(root, seed, 2, "hold") for seed in SEEDS]
    driver = start_driver(root)
    wait_until(lambda: sum(records.is_claimed(folder) for _, folder in tasks) == 2)
    wait_until(lambda: len(records.read_events(tasks[0][1])) == 2)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(records.is_claimed(folder) for _, folder in tasks))
    assert finished(root) == []
    for hold in holds:
        hold.unlink()
    assert all(u.done for u in ends(list(execute(tasks, local_pool()))).values())
    assert sorted(finished(root)) == sorted(ids(tasks))
    assert [epoch for epoch, _ in epochs_by_process(tasks[0][1])] == [1, 2, 3]
    assert not (tasks[0][1] / records.FAILURE_FILE).exists()


def test_two_drivers_on_one_folder_do_each_run_once_and_take_over_from_each_other(
    root: Path, pool: Pool
) -> None:
    tasks = tasks_of(root, (1, 2, 3, 4, 5))
    order(root, 1, 2, "hold")
    other = start_driver(root, (1, 2, 3, 4, 5))
    wait_until(lambda: len(records.read_events(tasks[0][1])) == 2)  # the other has begun the first
    ended: dict[str, Update] = {}
    for update in execute(tasks, pool):
        if update.ended:
            ended[update.run_id] = update
        if len(ended) == 4 and other.poll() is None:  # all but the first, which the other holds
            assert ids(tasks)[0] not in ended
            (root / "orders" / "1-2").unlink()
            os.killpg(other.pid, signal.SIGKILL)
            other.communicate()
    assert sorted(ended) == sorted(ids(tasks))
    assert all(update.done for update in ended.values())
    assert sorted(finished(root)) == sorted(ids(tasks))


def test_the_lock_of_a_dead_process_hinders_nobody(tmp_path: Path, pool: Pool) -> None:
    tasks = tasks_of(tmp_path)
    for spec, folder in tasks:
        folder.mkdir(parents=True)
        (folder / records.LOCK_FILE).write_text("left behind")
        records.write_json(folder / records.SPEC_FILE, spec.model_dump(mode="json"))
    assert all(update.done for update in ends(list(execute(tasks, pool))).values())


# ---------------------------------------------------------------- this machine's cores and GPUs


def test_workers_take_turns_on_devices_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: 12)
    monkeypatch.setattr(local, "available_bytes", lambda: 1 << 60)
    pool = LocalPool(devices=["cuda:0", "cuda:1"], runs_per_device=3)
    assert (pool.num_workers, pool.threads) == (6, 2)
    assert [pool.device(slot) for slot in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert LocalPool(5, devices=["cpu"]).threads == 2
    assert LocalPool(30, devices=["cpu"]).threads == 1


def test_a_run_is_told_the_device_and_the_threads_of_its_worker(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, (1, 2))
    holds = [order(tmp_path, seed, 1, "hold") for seed in (1, 2)]  # so that each has its worker
    pool = LocalPool(2, threads=3, devices=["cuda:0", "cuda:1"], run_one=RUN_ONE)
    begun: set[str] = set()
    for update in execute(tasks, pool):
        begun |= {update.run_id} if update.steps_done == 1 else set()
        if len(begun) == 2:
            for hold in holds:
                hold.unlink(missing_ok=True)
    results = [records.read_json(folder / records.RESULT_FILE) for _, folder in tasks]
    assert [result["device"] for result in results] == ["cuda:0", "cuda:1"]
    assert {result["threads"] for result in results} == {"3"}


def test_no_more_workers_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: 64)
    monkeypatch.setattr(local, "available_bytes", lambda: 4 * local.WORKER_BYTES + 1)
    assert local.default_workers() == 4
    monkeypatch.setattr(local, "available_bytes", lambda: 1)
    assert local.default_workers() == 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("6400000000 100000", 64)],
)
def test_a_containers_share_of_the_cores_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)))
    assert local.usable_cores() == cores


def test_a_worker_killed_for_want_of_memory_is_not_replaced(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "available_bytes", lambda: 1000)
    tasks = tasks_of(tmp_path)
    order(tmp_path, SEEDS[0], 1, "kill")
    order(tmp_path, SEEDS[1], 1, "hold")
    left = 0
    for update in execute(tasks, pool):
        if update.remark:
            left = len(pool.free_slots())
            assert "one worker fewer" in update.remark
            (tmp_path / "orders" / f"{SEEDS[1]}-1").unlink()
    assert left == 0
    assert sorted(finished(tmp_path)) == sorted(ids(tasks))


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: a)'\necho 'GPU 1: H100 (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.visible_gpus() == ["cuda:0", "cuda:1"]
    for allowed, count in (("1", 1), ("0,1", 2), ("", 0), ("-1", 0), ("1,-1,0", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        assert len(local.visible_gpus()) == count, allowed
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert local.visible_gpus() == []


def test_a_sign_of_life_says_who_and_how_far(tmp_path: Path, pool: Pool) -> None:
    ((spec, folder),) = tasks_of(tmp_path, (1,))
    hold = order(tmp_path, 1, 2, "hold")
    said: dict[str, object] = {}
    for update in execute([(spec, folder)], pool):
        if update.steps_done == 2:  # the run is held here, and its worker's thread tells so
            wait_until(lambda: read_steps(folder) == (2, 3))
            said = records.read_json(sign_of_life_file(folder))
            hold.unlink()
    assert ":" in str(said["worker"])
    assert not sign_of_life_file(folder).exists()


# ---------------------------------------------------------------- real runs


def readings(folders: Sequence[Path]) -> list[dict]:
    return [
        {"selected": result.selected, "last": result.last}
        for result in (records.read_result(folder) for folder in folders)
    ]


def real_tasks(root: Path, tiny_run: dict[str, object]) -> list[tuple[RunSpec, Path]]:
    specs = [parse_run_spec({**tiny_run, "seed": seed}) for seed in (1, 2)]
    return [(spec, run_folder(root, spec)) for spec in specs]


def test_real_runs_by_a_worker_equal_those_made_here_and_bad_ones_are_reported(
    tiny_run: dict[str, object], tmp_path: Path
) -> None:
    bad = parse_run_spec({**tiny_run, "dataset": str(tmp_path / "nothing")})
    tasks = [(bad, run_folder(tmp_path, bad)), *real_tasks(tmp_path, tiny_run)]
    ended = ends(list(execute(tasks, LocalPool(1, threads=1, devices=["cpu"]))))
    assert "no dataset" in (ended[run_id(bad)].failure or "")
    assert (tasks[0][1] / records.FAILURE_FILE).exists()
    assert [ended[name].done for name in ids(tasks[1:])] == [True, True]

    from driftscope.run import run_one

    here = run_one(tasks[1][0], tmp_path / "here", device="cpu")
    assert readings([here.folder]) == readings([tasks[1][1]])
