import gc
import json
import select
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from filelock import FileLock
from typer.testing import CliRunner

import driftscope as ds
from driftscope.cli import app
from driftscope.cli.watch import bars_of
from driftscope.config import parse_run_spec
from driftscope.errors import RecordError
from driftscope.records import (
    EVENTS_FILE,
    LOCK_FILE,
    append_event,
    claimed,
    rewrite_events,
    write_failure,
    write_json,
)
from driftscope.records import events as records_events
from driftscope.records.live import TrainingFollower, TrainingStatus
from driftscope.run import run_one

runner = CliRunner()


def training_status(folder: Path) -> TrainingStatus:
    return TrainingFollower(folder).status()


def shown(folder: Path) -> str:
    result = runner.invoke(app, ["watch", str(folder)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def observe(folder: Path, step: int, *alerts: str, **numbers: float) -> None:
    told = [{"kind": "large_drift", "sentence": text, "step": step} for text in alerts]
    append_event(folder, {"kind": "observation", "step": step, "alerts": told, **numbers})


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[Path]:
    """The folder of a monitor whose process goes on."""
    append_event(
        tmp_path, {"kind": "monitor", "pretrained": "mini", "transfer": [{"name": "pets"}]}
    )
    observe(tmp_path, 10, embedding_drift=0.1, retention_pct=98.0)
    observe(tmp_path, 20, "drift is large", embedding_drift=0.4, retention_pct=70.0)
    with FileLock(tmp_path / LOCK_FILE):
        yield tmp_path


def test_a_monitored_training_is_followed_until_it_is_told_to_stop(monitored: Path) -> None:
    assert training_status(monitored).ended is None
    append_event(monitored, {"kind": "stop", "step": 20, "reason": "drift is large"})
    text = shown(monitored)
    assert "a training from mini, with zero-shot on pets" in text
    assert "retention █▁ 98.0 % 70.0 %" in text
    assert "step 20: drift is large" in text
    assert "stopped: drift is large" in text


def test_a_monitor_that_was_closed_is_done_unless_more_was_seen_since(monitored: Path) -> None:
    write_json(monitored / "report.json", {})  # in the middle: no end
    assert training_status(monitored).ended is None
    append_event(monitored, {"kind": "end", "step": 20})
    assert training_status(monitored).ended == "done"
    (monitored / "report.html").touch()
    assert training_status(monitored).ended == f"done; its report is {monitored / 'report.html'}"
    observe(monitored, 30)
    assert training_status(monitored).ended is None
    append_event(monitored, {"kind": "stop", "step": 30, "reason": "enough"})
    append_event(monitored, {"kind": "end", "step": 30})
    assert training_status(monitored).ended == "stopped: enough"


def test_a_monitor_whose_process_has_died_is_over(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    from driftscope import Monitor

    monitor = Monitor(tiny_clip, coloured_images, vocabulary=None, out=tmp_path, echo=None)
    assert training_status(tmp_path).ended is None
    del monitor
    gc.collect()
    assert training_status(tmp_path).ended == "its process has ended"


@pytest.mark.parametrize("is_run", [False, True])
def test_a_folder_that_one_may_only_read_is_followed(
    is_run: bool, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    append_event(tmp_path, {"kind": "monitor", "pretrained": "mini", "transfer": []})
    if is_run:
        write_json(tmp_path / "spec.json", parse_run_spec(tiny_run, "test").model_dump(mode="json"))
    observe(tmp_path, 10)
    (tmp_path / LOCK_FILE).mkdir()  # cannot be opened, not even by root
    assert training_status(tmp_path).ended is None


def test_an_alert_that_holds_on_is_told_once_however_its_numbers_change(monitored: Path) -> None:
    observe(monitored, 30, "drift is larger")
    assert training_status(monitored).alerts == [(20, "drift is large")]
    observe(monitored, 40)
    observe(monitored, 50, "drift is large again")
    assert training_status(monitored).alerts == [
        (20, "drift is large"),
        (50, "drift is large again"),
    ]


def test_what_was_found_before_training_is_told_once_over_all_restarts(tmp_path: Path) -> None:
    def begin(alerts: Any) -> None:
        append_event(tmp_path, {"kind": "monitor", "alerts": alerts})

    for count in (3, 2):
        alert = {"kind": "probe_in_training", "sentence": f"{count} of the images", "step": 0}
        begin([alert])
    begin(None)  # it was not given the training images
    assert training_status(tmp_path).alerts == [(0, "2 of the images")]
    begin([])  # it looked, and they are others now
    assert training_status(tmp_path).alerts == []


@pytest.mark.parametrize("line", ["5", "null", "[]", '"observation"'])
def test_a_line_that_is_no_object_is_one_sentence(line: str, monitored: Path) -> None:
    with (monitored / EVENTS_FILE).open("a") as file:
        file.write(f"{line}\n")
    result = runner.invoke(app, ["watch", str(monitored)])
    assert result.exit_code == 2
    assert "line 4 is damaged: it holds no JSON object" in " ".join(result.output.split())


def test_a_torn_last_line_does_not_disturb_the_view(monitored: Path) -> None:
    with (monitored / EVENTS_FILE).open("a") as file:
        file.write('{"kind": "observ')
    assert len(training_status(monitored).points) == 2


def test_a_run_is_running_while_a_process_holds_it_and_interrupted_when_none_does(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    spec, folder = parse_run_spec(tiny_run, "test"), tmp_path / "run"
    with claimed(folder, spec):
        append_event(folder, {"kind": "epoch", "epoch": 1, "step": 3, "train_loss": 2.0})
        status = training_status(folder)
        assert (status.ended, status.epochs, len(status.points)) == (None, spec.epochs, 1)
    assert "interrupted" in shown(folder)
    write_failure(folder, ValueError("loss is NaN"))
    assert "failed: ValueError: loss is NaN" in shown(folder)


def test_a_view_that_is_opened_before_the_training_waits_for_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "soon"
    pauses: list[float] = []

    def write_something(seconds: float) -> None:
        pauses.append(seconds)
        folder.mkdir(exist_ok=True)
        if len(pauses) > 1:
            append_event(folder, {"kind": "monitor", "pretrained": "mini", "transfer": []})
            append_event(folder, {"kind": "stop", "step": 1, "reason": "enough"})

    monkeypatch.setattr("time.sleep", write_something)
    (tmp_path / "soot").mkdir()
    told = shown(folder)
    assert "stopped: enough" in told
    assert "waits for the first file of a run, a study or a monitor. Ctrl-C ends this." in told
    assert f"Did you mean {tmp_path / 'soot'}?" in told
    assert len(pauses) == 2


def test_a_view_without_a_terminal_says_at_once_what_it_waits_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driftscope", "watch", "nowhere"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as view:
        assert view.stderr is not None
        is_told, _, _ = select.select([view.stderr], [], [], 60)
        told = view.stderr.readline() if is_told else ""
        view.kill()
    assert told.startswith("There is no folder nowhere yet; driftscope waits for")


def test_a_folder_without_a_training_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    result = runner.invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run, no study and no monitor's events" in " ".join(result.output.split())


def test_ctrl_c_ends_the_view_quietly(monitored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    result = runner.invoke(app, ["watch", str(monitored)])
    assert result.exit_code == 0
    assert "Stopped" not in result.output


def test_the_events_that_a_real_monitor_writes_are_understood(tmp_path: Path) -> None:
    from driftscope.monitor.log import HEADER, STOP
    from driftscope.monitor.observation import OBSERVATION, Observation

    event = Observation(step=7, epoch=1, val_accuracy_pct=50.0, drift=None).to_event()
    append_event(tmp_path, {"kind": HEADER, "pretrained": "mini", "transfer": []})
    append_event(tmp_path, event)
    assert json.loads((tmp_path / EVENTS_FILE).read_text().splitlines()[1])["kind"] == OBSERVATION
    assert training_status(tmp_path).points[0]["val_accuracy_pct"] == 50.0
    append_event(tmp_path, {"kind": STOP, "step": 7, "reason": "enough"})
    assert training_status(tmp_path).ended == "stopped: enough"


def test_a_course_keeps_its_last_value_however_long_it_is() -> None:
    assert bars_of([0, 7]) == "▁█"
    assert bars_of([3, 3, 3]) == "▁▁▁"
    assert len(bars_of(list(range(1000)))) <= 32
    assert bars_of([0.0] * 999 + [1.0])[-1] == "█"


@pytest.mark.parametrize("by", ["monitor", "run"])
def test_an_assumed_preparation_of_images_is_told_and_stands_below_the_numbers(
    by: str, tiny_clip: Path, tiny_run: dict[str, object], coloured_images: Path, tmp_path: Path
) -> None:
    model = tmp_path / "no-pixels"
    shutil.copytree(tiny_clip, model, ignore=lambda *_: ["preprocessor_config.json"])
    told = f"{model} has no preprocessor configuration: images are prepared as its family's"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        if by == "monitor":
            watching = ds.Monitor(model, coloured_images, echo=None, out=tmp_path / "out")
            watching.observe(ds.load(tiny_clip).module, step=1)
        else:
            spec = parse_run_spec({**tiny_run, "model": str(model)})
            assert run_one(spec, tmp_path / "out").result.notes[0].startswith(told)
        assert sum(str(one.message).startswith(told) for one in heard) == 1
        heard.clear()
        after = ds.compare(model, tiny_clip, coloured_images)
        assert not any(told in said for said in (*map(str, heard), *after.notes))
    assert [one.startswith(told) for one in training_status(tmp_path / "out").doubts] == [True]


def test_doubts_about_the_data_stand_below_the_numbers(monitored: Path) -> None:
    sets = {"pets": {"doubts": ["half of its names are no words"]}}
    told = {"transfer": sets, "retrieval": {"flickr": {"doubts": ["captions are cut"]}}}
    event = {"kind": "observation", "step": 30, "alerts": [], **told}
    append_event(monitored, {**event, "estimate": {"doubts": ["the pool is small"]}})
    append_event(monitored, {"kind": "end", "step": 30})
    text = shown(monitored)
    assert "doubtful: pets: half of its names are no words." in text
    assert "doubtful: flickr: captions are cut." in text
    assert "doubtful: the pool is small" in text


def test_a_look_reads_what_is_new_alone(monitored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    read_values = records_events.read_values

    def counted(path: Path, limit: object, start: int = 0) -> bytes:
        if path.name == EVENTS_FILE:
            starts.append(start)
        return read_values(path, limit, start)  # type: ignore[arg-type]

    monkeypatch.setattr(records_events, "read_values", counted)
    follower = TrainingFollower(monitored)
    assert follower.status() == replace(training_status(monitored), age_seconds=ANY)
    starts.clear()
    size = (monitored / EVENTS_FILE).stat().st_size
    observe(monitored, 30, "drift is larger", embedding_drift=0.5)
    with (monitored / EVENTS_FILE).open("a") as file:
        file.write('{"kind": "observation", "step": 40')  # a line that is being written
    assert [point["step"] for point in follower.status().points] == [10, 20, 30]
    assert follower.status().points == training_status(monitored).points
    assert starts[0] == size
    with (monitored / EVENTS_FILE).open("a") as file:
        file.write(', "alerts": []}\n')
    assert [point["step"] for point in follower.status().points] == [10, 20, 30, 40]
    rewrite_events(monitored, [{"kind": "observation", "step": 5, "alerts": []}])
    assert [point["step"] for point in follower.status().points] == [5]
    with (monitored / EVENTS_FILE).open("a") as file:
        file.write("damaged\n")
    with pytest.raises(RecordError, match="line 2 is damaged"):
        follower.status()


@pytest.mark.parametrize("what", ["the folder", "its events"])
def test_a_training_whose_folder_goes_is_told_in_a_sentence(monitored: Path, what: str) -> None:
    follower = TrainingFollower(monitored)
    assert follower.status().points
    if what == "the folder":
        shutil.rmtree(monitored)
    else:
        (monitored / "events.jsonl").unlink()
    with pytest.raises(RecordError, match=r"has gone, or its files have; give the folder of a"):
        follower.status()
