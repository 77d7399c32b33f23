import os
import signal
from pathlib import Path

import pytest

from driftscope.config import parse_run_spec, run_id
from driftscope.executors.local import Update, execute
from driftscope.records import load_run
from driftscope.study import run_folder


def drifts(root: Path, specs: list) -> list[dict]:
    return [load_run(run_folder(root, spec)).result["last"]["drift"] for spec in specs]


def test_local_workers_do_every_run_once_and_a_killed_one_costs_only_its_run(
    tiny_run: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    specs = [parse_run_spec({**tiny_run, "seed": seed}) for seed in (1, 2, 3)]
    tasks = [(spec, run_folder(tmp_path, spec)) for spec in specs]
    ended: dict[str, Update] = {}
    killed = ""
    for update in execute(tasks, num_workers=1):
        if update.steps_done and not killed:
            killed = update.run_id
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        if update.ended:
            assert update.run_id not in ended
            ended[update.run_id] = update
    assert set(ended) == {run_id(spec) for spec in specs}
    assert ended[killed].failure == "the worker process ended by signal 9"
    assert [update.done for name, update in ended.items() if name != killed] == [True, True]

    again = [task for task in tasks if run_id(task[0]) == killed]
    assert [update.done for update in execute(again, num_workers=1) if update.ended] == [True]

    from driftscope.run import run_one

    here = run_one(specs[0], tmp_path / "here")
    assert here.result["last"]["drift"] == drifts(tmp_path, specs[:1])[0]


def test_a_run_that_cannot_be_done_is_reported_and_the_others_go_on(
    tiny_run: dict[str, object], tmp_path: Path
) -> None:
    bad = parse_run_spec({**tiny_run, "dataset": str(tmp_path / "nothing")})
    good = parse_run_spec({**tiny_run, "epochs": 1})
    tasks = [(spec, run_folder(tmp_path, spec)) for spec in (bad, good)]
    ended = {update.run_id: update for update in execute(tasks, 1) if update.ended}
    assert "no dataset" in (ended[run_id(bad)].failure or "")
    assert ended[run_id(good)].done
