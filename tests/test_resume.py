"""A run killed anywhere and taken up again ends as if nothing had happened."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import begun, equal, weights

from driftscope import checkpoints, records, run
from driftscope.checkpoints import Checkpoints
from driftscope.config import RunSpec, parse_run_spec
from driftscope.data.prompts import PromptRules
from driftscope.errors import RecordError
from driftscope.files import SCRATCH_PREFIX
from driftscope.prepared_run import prepare
from driftscope.reference import Embedded, make_reference
from driftscope.run import run_one
from driftscope.tensor_files import read_tensors, write_tensors
from driftscope.train import Evaluation, make_optimizer, train


def in_child(work: Callable[[], object]) -> int:
    """Runs something in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counting_calls(limit: int | None) -> list[int]:
    """Counts this process's function calls, Python's and C's; SIGKILL at the limit."""
    calls = [0]

    def count(_frame: object, event: str, _arg: object) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1
            if calls[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    return calls


def carry_out(spec: RunSpec, folder: Path, die_at_call: int | None = None) -> int:
    def work() -> None:
        calls = counting_calls(die_at_call)
        run_one(spec, folder)
        sys.setprofile(None)
        (folder.parent / "calls.txt").write_text(str(calls[0]))

    return in_child(work)


def outcome(folder: Path) -> tuple:
    """All that a run leaves, but for the seconds it took."""
    record = records.load_run(folder)
    result = record.result.model_dump(exclude={"wall_seconds"})
    del result["environment"]["git_commit"]  # somebody may commit while the test runs
    weights = {
        path.name: {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
        for path in (folder / records.ADAPTED_FOLDER).glob("*.safetensors")
    }
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return result, record.events, weights, files


@pytest.mark.parametrize(
    ("num_kills", "change"),
    [
        (
            20,
            {
                "method": "lora",
                "regularizers": [{"kind": "apr", "weight": 0.1}],
                "probe_at": [1, 4],
            },
        ),
        (5, {"method": "full_ft"}),
        (5, {"method": {"kind": "lp_ft", "probe_epochs": 2}}),
        (3, {"method": {"kind": "peft", "type": "OFT", "options": {"r": 0, "oft_block_size": 4}}}),
        (
            3,
            {
                "method": "lora",
                "probe_at": [1],
                "interventions": [
                    {"kind": "reset", "what": "attention", "blocks": [1], "step": 4},
                    {"kind": "restore", "what": "values_out", "blocks": [2]},
                    {"kind": "max_norm", "share": 0.001},
                    {"kind": "loss_adaptive_rate", "loss_nats": 0.5},
                ],
            },
        ),
    ],
    ids=[
        "lora with dropout, regularized, probed between",
        "full_ft",
        "lp_ft",
        "peft's OFT",
        "intervened",
    ],
)
def test_a_run_killed_at_random_points_and_resumed_ends_bit_identically(
    tiny_run: dict, tmp_path: Path, num_kills: int, change: dict
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3, **change})
    prepare(spec)  # children inherit it and begin at once
    assert carry_out(spec, tmp_path / "whole") == 0
    expected = outcome(tmp_path / "whole")
    num_calls = int((tmp_path / "calls.txt").read_text())

    generator = random.Random(0)
    kills, num_finished, folder = 0, 0, tmp_path / "killed0"
    while kills < num_kills:
        code = carry_out(spec, folder, generator.randint(1, num_calls))
        if code == -signal.SIGKILL:
            kills += 1
            continue
        assert code == 0
        assert outcome(folder) == expected
        num_finished += 1
        folder = tmp_path / f"killed{num_finished}"
    assert carry_out(spec, folder) == 0
    assert outcome(folder) == expected


def killed_in_epoch(number: int, spec: RunSpec, folder: Path) -> None:
    """Leaves a run folder as a process killed early in that epoch does."""

    def stop(event: dict) -> None:
        if event["kind"] == "epoch" and event["epoch"] == number - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: run_one(spec, folder, on_event=stop)) == -signal.SIGKILL


@pytest.mark.parametrize("type_", ["BOFT", "LOHA", "LOKR", "HRA", "OSF", "FOURIERFT"])
def test_a_run_of_any_tuner_of_peft_goes_on_to_the_bit(
    tiny_run: dict, tmp_path: Path, type_: str
) -> None:
    options = {"FOURIERFT": {"n_frequency": 20, "init_weights": True}}.get(type_, {})
    method = {"kind": "peft", "type": type_, "options": options}
    spec = parse_run_spec({**tiny_run, "epochs": 2, "method": method})
    prepare(spec)
    assert carry_out(spec, tmp_path / "whole") == 0
    killed_in_epoch(2, spec, tmp_path / "resumed")
    assert carry_out(spec, tmp_path / "resumed") == 0
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "whole")


def test_a_resumed_run_repeats_no_finished_epoch(tiny_run: dict, tmp_path: Path) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 4})
    killed_in_epoch(4, spec, tmp_path / "run")
    steps: list[int] = []
    record = run_one(spec, tmp_path / "run", on_step=lambda done, _total: steps.append(done))
    assert steps == [7, 8]
    assert [event["epoch"] for event in record.events] == [1, 2, 3, 4]


def test_the_wall_seconds_of_a_resumed_run_are_those_of_all_its_processes(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 4})

    class Clock:
        """A process's clock on which an hour passes when an epoch has been reported."""

        def __init__(self) -> None:
            self.seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

        def epoch_over(self, event: dict) -> None:
            self.seconds += 3600.0 * (event["kind"] == "epoch")

    def interrupted(number: int) -> None:
        clock = Clock()
        monkeypatch.setattr(run, "time", clock)

        def stop(event: dict) -> None:
            clock.epoch_over(event)
            if event["epoch"] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        run_one(spec, tmp_path / "run", on_event=stop)

    for number in (2, 3):
        assert in_child(lambda number=number: interrupted(number)) == -signal.SIGKILL
    clock = Clock()
    monkeypatch.setattr(run, "time", clock)
    record = run_one(spec, tmp_path / "run", on_event=clock.epoch_over)
    # of the first process its first epoch's hour was kept, of the second nothing; one in the last
    assert record.result.wall_seconds.facts() == {"total": 7200.0, "training": 7200.0}


def test_at_most_one_generation_is_kept_besides_the_selected_one(
    tiny_run: dict, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 4})
    killed_in_epoch(4, spec, tmp_path / "run")
    kept = sorted(p.name for p in (tmp_path / "run" / records.CHECKPOINT_FOLDER).iterdir())
    record = run_one(spec, tmp_path / "run")
    before = max(record.events[:2], key=lambda event: event["val_accuracy_pct"])
    selected = checkpoints.SELECTED_FILE.format(epoch=before["epoch"])
    assert kept == [checkpoints.LAST_FILE, selected]
    assert not (tmp_path / "run" / records.CHECKPOINT_FOLDER).exists()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(damaged, "its digest is wrong"), (torn, "is damaged")],
    ids=["one bit", "half a file"],
)
def test_a_corrupt_checkpoint_is_refused_with_the_reason_and_the_way_out(
    tiny_run: dict, tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    killed_in_epoch(3, spec, tmp_path)
    folder = tmp_path / records.CHECKPOINT_FOLDER
    harm(folder / checkpoints.LAST_FILE)
    with pytest.raises(RecordError, match=reason) as refused:
        run_one(spec, tmp_path)
    assert f"delete {folder} to start this run anew" in str(refused.value)
    shutil.rmtree(folder)
    assert run_one(spec, tmp_path).result.status == "done"


def test_a_checkpoint_of_another_run_or_other_data_is_refused(
    tiny_run: dict, other_tiny_clip: Path, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    other = parse_run_spec({**tiny_run, "epochs": 3, "seed": 12})
    killed_in_epoch(3, spec, tmp_path / "one")
    killed_in_epoch(3, other, tmp_path / "two")
    folders = [tmp_path / name / records.CHECKPOINT_FOLDER for name in ("one", "two")]
    shutil.copytree(folders[1], folders[0], dirs_exist_ok=True)
    with pytest.raises(RecordError, match=r"not this run's: its run id is .*; delete"):
        run_one(spec, tmp_path / "one")

    model = tmp_path / "model"
    shutil.copytree(spec.model, model)
    moved = spec.model_copy(update={"model": str(model)})
    killed_in_epoch(3, moved, tmp_path / "three")
    shutil.copytree(other_tiny_clip, model, dirs_exist_ok=True)
    with pytest.raises(RecordError, match=r"not this run's: its model and data is .*; delete"):
        in_this_process_anew(moved, tmp_path / "three")


@pytest.mark.parametrize("part", ["visual_projection", "text_projection"])
def test_a_checkpoint_depends_on_both_towers(tiny_run: dict, part: str) -> None:
    shared = prepare(parse_run_spec(tiny_run))
    clip = deepcopy(shared.pretrained.module)
    with torch.no_grad():
        clip.get_submodule(part).weight.neg_()
    model = replace(shared.pretrained, module=clip)
    reference = make_reference(model, shared.reference.probe_pixels)
    changed = replace(shared, pretrained=model, reference=reference)
    assert changed.origin != shared.origin


def test_a_checkpoint_depends_on_the_names_that_a_pool_is_told_by(
    tiny_run: dict, coloured_images: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    asked = {"pool": str(coloured_images), "classes": str(names), "epochs": 3}
    spec = parse_run_spec({**tiny_run, **asked})
    killed_in_epoch(3, spec, tmp_path / "same")
    shutil.copytree(tmp_path / "same", tmp_path / "other")
    assert in_this_process_anew(spec, tmp_path / "same").result.status == "done"
    names.write_text("red\ngreen\nblue\ngrey\n")
    with pytest.raises(RecordError, match=r"not this run's: its model and data is .*; delete"):
        in_this_process_anew(spec, tmp_path / "other")


def test_a_checkpoint_depends_on_the_words_of_a_transfer_sets_classes(tiny_run: dict) -> None:
    shared = prepare(parse_run_spec(tiny_run))
    (benchmark,) = shared.reference.transfer
    said = replace(benchmark, rules=PromptRules(class_words=(("red", "crimson"),)))
    reference = replace(shared.reference, transfer=(said,))
    assert replace(shared, reference=reference).origin != shared.origin


def test_a_checkpoint_of_another_version_is_refused_with_the_way_out(
    tiny_run: dict, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    killed_in_epoch(3, spec, tmp_path)
    path = tmp_path / records.CHECKPOINT_FOLDER / checkpoints.LAST_FILE
    tensors, metadata = read_tensors(path)
    metadata["training"] = json.dumps({**json.loads(metadata["training"]), "seconds": 1.0})
    write_tensors(path, tensors, metadata)
    with pytest.raises(RecordError, match=r"another version of driftscope; delete .* run anew"):
        run_one(spec, tmp_path)


def in_this_process_anew(spec: RunSpec, folder: Path) -> records.RunRecord:
    from driftscope import prepared_run

    prepared_run._prepare.cache_clear()
    return run_one(spec, folder)


def full_at(number: int) -> Callable[[dict, Path, dict], None]:
    """Writes tensors, but finds the disk full when an epoch is kept for that time."""
    written: list[Path] = []

    def save(tensors: dict, path: Path, metadata: dict) -> None:
        from safetensors.torch import save_file

        if path.name == checkpoints.LAST_FILE:
            written.append(path)
            if len(written) == number:
                path.write_bytes(b"the first half")
                raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata)

    return save


def test_a_full_disk_stops_the_run_with_the_last_good_checkpoint_intact(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    expected = run_one(spec, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("driftscope.tensor_files.save_file", full_at(2))
        with pytest.raises(RecordError, match=r"no space left on device.*before is intact"):
            run_one(spec, tmp_path / "run")
    assert "No space left" in (tmp_path / "run" / records.FAILURE_FILE).read_text()
    assert not list((tmp_path / "run" / records.CHECKPOINT_FOLDER).glob(".*"))
    steps: list[int] = []
    resumed = run_one(spec, tmp_path / "run", on_step=lambda done, _total: steps.append(done))
    assert steps[0] == 3
    assert outcome(resumed.folder) == outcome(expected.folder)


def test_a_full_disk_leaves_the_weights_of_the_epoch_that_the_checkpoint_has_selected(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _, images, adapted = begun({**tiny_run, "epochs": 2})
    kept = Checkpoints(tmp_path, spec)
    seen: list[dict[str, torch.Tensor]] = []

    def improving(_pool: Embedded | None) -> Evaluation:
        seen.append(weights(adapted))
        return Evaluation(10.0 * len(seen), {}, {})

    monkeypatch.setattr("driftscope.tensor_files.save_file", full_at(2))
    with pytest.raises(RecordError, match="no space left"):
        train(adapted, images, spec, kept, improving)
    training = kept.resume(adapted, make_optimizer(adapted, spec))
    assert training.selected_epoch == 1
    kept.load_selected(adapted, training.selected_epoch)
    assert equal(weights(adapted), seen[0])


def test_a_limit_on_file_size_stops_the_run_in_one_sentence_and_it_can_go_on(
    tiny_run: dict, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    killed_in_epoch(2, spec, tmp_path)
    before = load_file(tmp_path / records.CHECKPOINT_FOLDER / checkpoints.LAST_FILE)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(RecordError, match=r"cannot be written .*the one before is intact"):
            run_one(spec, tmp_path)

    assert in_child(limited) == 0
    after = load_file(tmp_path / records.CHECKPOINT_FOLDER / checkpoints.LAST_FILE)
    assert before.keys() == after.keys()
    assert run_one(spec, tmp_path).result.status == "done"


@pytest.mark.parametrize(("epochs", "steps_left"), [(3, [3, 4, 5, 6]), (1, [])])
def test_a_run_whose_folder_is_moved_makes_none_in_the_old_place_and_goes_on_in_the_new(
    tiny_run: dict, tmp_path: Path, epochs: int, steps_left: list[int]
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": epochs})
    old, new = tmp_path / "old", tmp_path / "new"

    def move(event: dict) -> None:
        if event["epoch"] == 1:
            old.rename(new)

    with pytest.raises(RecordError):
        run_one(spec, old / "run", on_event=move)
    assert not old.exists()
    steps: list[int] = []
    record = run_one(spec, new / "run", on_step=lambda done, _total: steps.append(done))
    assert record.result.status == "done"
    assert steps == steps_left


def test_a_folder_that_is_moved_while_its_run_is_prepared_is_not_made_anew(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "run").mkdir(parents=True)
    monkeypatch.setattr(run, "prepare", lambda *given: (old.rename(new), prepare(*given))[1])
    with pytest.raises(FileNotFoundError):
        run_one(parse_run_spec(tiny_run), old / "run")
    assert not old.exists()


def test_what_a_killed_process_left_half_written_is_cleared_away(
    tiny_run: dict, tmp_path: Path
) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 3})
    killed_in_epoch(3, spec, tmp_path)
    for folder, name in ((tmp_path, "result.json"), (tmp_path / "checkpoint", "last.safetensors")):
        scratch = folder / f"{SCRATCH_PREFIX}0123abcd"
        scratch.mkdir()
        (scratch / name).write_text("half")
    run_one(spec, tmp_path)
    assert not [path for path in tmp_path.rglob(".*") if path.name != records.LOCK_FILE]


def test_a_checkpoint_left_beside_a_result_is_cleared_away(tiny_run: dict, tmp_path: Path) -> None:
    spec = parse_run_spec({**tiny_run, "epochs": 1})
    run_one(spec, tmp_path)
    (tmp_path / records.CHECKPOINT_FOLDER).mkdir()
    (tmp_path / records.CHECKPOINT_FOLDER / checkpoints.LAST_FILE).write_text("left")
    run_one(spec, tmp_path)
    assert not (tmp_path / records.CHECKPOINT_FOLDER).exists()
