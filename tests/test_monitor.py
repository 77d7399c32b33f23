"""The monitor against `compare` on the same weights, and against trainings without one."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_clip
from filelock import FileLock
from monitored import (
    MERGING_ROUNDS,
    WORDS,
    Classifier,
    clip_of,
    monitor_of,
    moved,
    with_lora,
)
from PIL import Image
from torch import nn

import driftscope as ds
from driftscope.errors import (
    BusyError,
    ConfigError,
    DataError,
    DriftscopeError,
    ModelError,
    RecordError,
)
from driftscope.monitor import core, log
from driftscope.monitor.processes import is_main_process
from driftscope.reading_pass import read
from driftscope.records import is_claimed
from driftscope.sources.live import from_module


@pytest.fixture(scope="module")
def dropping_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP that drops attention in training, so that random numbers matter."""
    return make_tiny_clip(
        tmp_path_factory.mktemp("models") / "dropping",
        seed=0,
        attention_dropout=0.3,  # type: ignore[arg-type]
    )


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("adapter", [False, True])
def test_it_sees_what_compare_sees_of_the_same_checkpoint(
    adapter: bool, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    files = sorted(coloured_images.glob("test/*/*.png"))
    rows = [f"{file},a photo of a {file.parent.name}" for file in files]
    captioned = tmp_path / "captions.csv"
    captioned.write_text("\n".join(["path,caption", *rows]))
    sets = {"transfer": [str(coloured_images)], "retrieval": str(captioned)}
    monitor = monitor_of(tiny_clip, coloured_images, **sets)
    model = clip_of(tiny_clip)
    model = moved(with_lora(model) if adapter else model)
    seen = monitor.observe(model, step=5, epoch=1, val_accuracy_pct=70)
    model.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    compared = ds.compare(tiny_clip, tmp_path / "saved", coloured_images, **sets)
    scalars = seen.scalars()
    assert scalars["val_accuracy_pct"] == 70
    expected = compared.to_dict()["scalars"]
    assert expected.keys() <= scalars.keys()
    assert expected["weight_drift"] > 0
    for name, value in expected.items():
        assert scalars[name] == pytest.approx(value, rel=1e-4, abs=MERGING_ROUNDS), name
    assert seen.drift is not None
    assert seen.drift.cka_per_block == pytest.approx(compared.drift.cka_per_block, rel=1e-5)
    assert seen.retrieval == compared.retrieval
    assert ds.Observation.from_event(seen.to_event()).retrieval == compared.retrieval
    assert compared.to_dict()["retrieval"][str(captioned)]["image_to_text"]["num_queries"] == len(
        files
    )


def test_an_untrained_model_has_not_drifted_by_a_bit(
    tiny_clip: Path, coloured_images: Path
) -> None:
    seen = monitor_of(tiny_clip, coloured_images, vocabulary=WORDS).observe(
        clip_of(tiny_clip), step=0
    )
    scalars = seen.scalars()
    assert scalars["weight_drift"] == scalars["delta_entropy_pct"] == scalars["text_kl_nats"] == 0
    assert scalars["cka"] == pytest.approx(1)
    assert seen.alerts == ()


def test_the_pretrained_model_may_be_the_object_that_is_trained(
    tiny_clip: Path, coloured_images: Path
) -> None:
    model = clip_of(tiny_clip)
    ours = monitor_of(model, coloured_images, vocabulary=WORDS)  # type: ignore[arg-type]
    by_name = monitor_of(tiny_clip, coloured_images, vocabulary=WORDS)
    moved(model)
    assert ours.observe(model, step=1).scalars() == by_name.observe(model, step=1).scalars()


def test_a_text_tower_that_is_trained_scores_for_itself(
    tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, transfer=str(coloured_images))
    model = clip_of(tiny_clip)
    name = str(coloured_images)
    assert monitor.observe(model, step=1).transfer[name]["text_tower"] == "the pretrained one"
    with torch.no_grad():
        model.text_projection.weight.neg_()  # type: ignore[union-attr,operator]
    turned = monitor.observe(model, step=2)
    model.text_model.requires_grad_(False)  # type: ignore[union-attr,operator]
    model.text_projection.requires_grad_(False)  # type: ignore[union-attr,operator]
    frozen = monitor.observe(model, step=3)  # it scores for itself all the same
    for one in (turned, frozen):
        assert one.transfer[name]["text_tower"] == "its own"
        assert one.scalars()["zero_shot_pct"] < 100


def test_a_text_tower_that_moved_in_an_earlier_training_scores_for_itself_once_frozen(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model, name = clip_of(tiny_clip), str(coloured_images)
    with torch.no_grad():
        model.text_projection.weight.neg_()  # type: ignore[union-attr,operator]
    model.text_model.requires_grad_(False)  # type: ignore[union-attr,operator]
    model.text_projection.requires_grad_(False)  # type: ignore[union-attr,operator]
    monitor = monitor_of(tiny_clip, coloured_images, transfer=name)
    model.save_pretrained(tmp_path / "stage-two")  # type: ignore[operator]
    shutil.copy(tiny_clip / "preprocessor_config.json", tmp_path / "stage-two")
    after = ds.compare(tiny_clip, tmp_path / "stage-two", coloured_images, transfer=name)
    for step in (1, 2):
        seen = monitor.observe(model, step=step)
        assert seen.transfer[name]["text_tower"] == "its own"
        assert seen.scalars()["zero_shot_pct"] == after.scalars()["zero_shot_pct"] < 100


def test_probe_images_may_be_files_pixels_or_pictures(
    tiny_clip: Path, coloured_images: Path
) -> None:
    files = sorted((coloured_images / "test").rglob("*.png"))
    pictures = [Image.open(file) for file in files]
    pixels = torch.stack(
        [torch.from_numpy(np.asarray(one).copy()).permute(2, 0, 1) for one in pictures]
    )
    model = moved(clip_of(tiny_clip))
    seen = [
        monitor_of(tiny_clip, images).observe(model, step=1).scalars()
        for images in (coloured_images, pictures, pixels)
    ]
    assert seen[0] == seen[1] == seen[2]


def test_every_image_goes_through_the_encoder_once(tiny_clip: Path, coloured_images: Path) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, transfer=str(coloured_images))
    model = clip_of(tiny_clip)
    passed: list[int] = []
    model.vision_model.register_forward_hook(  # type: ignore[union-attr,operator]
        lambda _module, _args, out: passed.append(len(out.pooler_output))
    )
    monitor.observe(model, step=1)
    assert sum(passed) == 24  # the probe images are the transfer images, too


# ---------------------------------------------------------------- what it leaves alone


@pytest.mark.parametrize("adapter", [False, True])
def test_training_is_the_same_to_the_bit_with_and_without_it(
    adapter: bool, dropping_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    def train(monitored: bool) -> dict[str, Any]:
        torch.manual_seed(3)
        random.seed(4)
        np.random.seed(5)
        clip = clip_of(dropping_clip)
        model = Classifier(with_lora(clip, dropout=0.3) if adapter else clip).train()
        frozen = model.encoder.get_submodule(
            "base_model.model.text_model" if adapter else "text_model"
        )
        frozen.eval()  # a mode of its own, which must survive
        monitor = (
            monitor_of(
                dropping_clip,
                coloured_images,
                transfer=str(coloured_images),
                every=1,
                out=tmp_path / "out",
                keep_best=True,
                alerts=ds.Thresholds(max_embedding_drift=0.0),
                on_alert="stop",
            )
            if monitored
            else None
        )
        trained = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        for step in range(1, 5):
            noise = random.random() + float(np.random.rand())
            pixels = torch.randn(6, 3, 32, 32) + noise
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step % 2 == 0):
                loss = nn.functional.cross_entropy(model(pixels), torch.arange(6) % 3)
            loss.backward()
            if monitor is not None and step == 2:
                with torch.autocast("cpu", dtype=torch.bfloat16):  # gradients there, not yet used
                    monitor.observe(model, step=2, val_accuracy_pct=50.0)
                    assert torch.is_autocast_enabled("cpu")
            optimizer.step()
            optimizer.zero_grad()
            if monitor is not None:
                monitor.step(model, step=step, val_accuracy_pct=50.0 + step)
        if monitor is not None:
            assert len(monitor.history) >= 4
            monitor.report()
        return {
            "state": {name: one.clone() for name, one in model.state_dict().items()},
            "modes": [one.training for one in model.modules()],
            "hooks": [len(one._forward_hooks) for one in model.modules()],
            "attention": clip.config.vision_config._attn_implementation,  # type: ignore[union-attr]
            "asks": [one.requires_grad for one in model.parameters()],
            "random": (torch.get_rng_state().tolist(), random.getstate()),
            "numpy": np.random.get_state()[1].tolist(),  # type: ignore[union-attr,index]
        }

    plain, watched = train(False), train(True)
    states = plain.pop("state"), watched.pop("state")
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert plain == watched


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cudas_random_state_is_left_alone(tiny_clip: Path, coloured_images: Path) -> None:
    torch.cuda.manual_seed(3)
    expected = torch.rand(4, device="cuda")
    torch.cuda.manual_seed(3)
    monitor_of(tiny_clip, coloured_images).observe(clip_of(tiny_clip).cuda(), step=1)
    assert torch.equal(torch.rand(4, device="cuda"), expected)


def test_what_it_costs_is_counted_and_said(tiny_clip: Path, coloured_images: Path) -> None:
    lines: list[str] = []
    monitor = monitor_of(tiny_clip, coloured_images, echo=lines.append)
    seen = monitor.observe(clip_of(tiny_clip), step=7, epoch=1, val_accuracy_pct=61.25)
    assert 0 < seen.seconds <= monitor.cost_seconds
    assert 0 < monitor.cost_share_pct <= 100
    assert lines[0].startswith(
        "driftscope: step 7, epoch 1: validation accuracy 61.2 %, CKA 1.000, embedding drift 0.000"
    )
    assert lines[0].endswith("% of the time")
    monitor.close()
    assert any(line.startswith("driftscope: 1 observation took") for line in lines)


# ---------------------------------------------------------------- when it looks


def due_steps(monitor: ds.Monitor, model: nn.Module, calls: Iterator[dict[str, Any]]) -> list[Any]:
    seen = [monitor.step(model, **call) for call in calls]
    return [one.step for one in seen if one is not None]


@pytest.mark.parametrize(
    ("every", "calls", "expected"),
    [
        ("epoch", [{}, {}], [1, 2]),
        ("epoch", [{"step": s, "epoch": s // 3} for s in range(1, 8)], [1, 3, 6]),
        ("epoch", [{"step": s, "epoch": s / 3} for s in range(1, 8)], [3, 6]),
        (3, [{} for _ in range(7)], [3, 6]),
        (3, [{"step": s} for s in (2, 4, 5, 10)], [4, 10]),
        ([2, 5], [{"step": s} for s in range(1, 8)], [2, 5]),
        ([2, 5], [{"step": s} for s in (1, 7, 8)], [7]),
        # a second training with the same monitor
        ("epoch", [{"step": s, "epoch": s / 2} for s in (2, 3, 4, 1, 2, 3, 4)], [2, 4, 2, 4]),
        ("epoch", [{"epoch": e} for e in (1.0, 2.0, 1.0, 2.0)], [1, 2, 3, 4]),
        (3, [{"step": s} for s in (3, 6, 1, 3, 6)], [3, 6, 3, 6]),
        ([2], [{"step": s} for s in (2, 9, 1, 2)], [2, 2]),
        ("epoch", [{"epoch": e} for e in (0.5, 1.0, 0.5, 1.0)], [2, 4]),
    ],
)
def test_it_looks_when_it_was_told_to(
    every: Any, calls: Any, expected: list[int], tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, every=every)
    assert due_steps(monitor, clip_of(tiny_clip), iter(calls)) == expected


def test_it_says_whether_a_look_is_due_without_looking(
    tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, every=10)
    assert not monitor.is_due(step=9)
    assert monitor.is_due(step=10)
    assert monitor.history == []


# ---------------------------------------------------------------- a restart


def watch(monitor: ds.Monitor, model: nn.Module, *steps: int) -> None:
    for step in steps:
        monitor.observe(moved(model, 0.05, seed=step), step=step, val_accuracy_pct=50.0 + step)


def test_a_restarted_training_goes_on_where_its_checkpoint_was(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    model = clip_of(tiny_clip)
    first = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    watch(first, model, 1, 2, 3)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"kind": "observation", "st')  # killed while it wrote
    again = monitor_of(tiny_clip, coloured_images, out=tmp_path, echo=lines.append)
    assert [one.to_event() for one in again.history] == [one.to_event() for one in first.history]
    watch(again, model, 3, 4)  # its checkpoint was of step 2
    assert [one.step for one in again.history] == [1, 2, 3, 4]
    assert "going on from step 2" in lines[0]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    seen = [event["step"] for event in events if event["kind"] == "observation"]
    assert seen == [1, 2, 3, 4]
    assert again.best is not None


def test_a_training_from_the_start_in_the_same_folder_replaces_the_former(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = clip_of(tiny_clip)
    watch(monitor_of(tiny_clip, coloured_images, out=tmp_path), model, 1, 2, 3)
    again = monitor_of(tiny_clip, coloured_images, out=tmp_path, every=1)
    assert again.is_due(step=1)
    watch(again, model, 1)
    assert [one.step for one in again.history] == [1]


@pytest.mark.parametrize(
    ("former", "step", "epoch", "kept"),
    [
        ([(10, 1), (20, 2), (30, 3)], 100, 1, []),  # longer epochs: it was another training
        ([(10, 1), (20, 2), (30, 3)], 25, 3, [10, 20]),
        ([(10, 0.5), (20, 1.0), (30, 1.5)], 40, 2.0, [10, 20, 30]),
        ([(10, None), (20, None)], 20, None, [10]),
    ],
)
@pytest.mark.parametrize("process", ["another", "the same"])
def test_what_a_training_does_not_have_behind_it_is_forgotten(
    process: str,
    former: list[tuple[int, float | None]],
    step: int,
    epoch: float | None,
    kept: list[int],
    tiny_clip: Path,
    coloured_images: Path,
    tmp_path: Path,
) -> None:
    model = clip_of(tiny_clip)
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    for at, epochs in former:
        monitor.observe(model, step=at, epoch=epochs)
    if process == "another":
        monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    elif step == former[-1][0]:
        kept = [at for at, _ in former]  # the same step again is no step back
    monitor.observe(model, step=step, epoch=epoch)
    assert [one.step for one in monitor.history] == [*kept, step]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    seen = [event["step"] for event in events if event["kind"] == "observation"]
    assert seen == [*kept, step]


def test_a_second_training_with_the_same_monitor_knows_nothing_of_the_first(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(
        tiny_clip,
        coloured_images,
        out=tmp_path,
        every=2,
        keep_best=True,
        alerts=ds.Thresholds(max_embedding_drift=0.0),
        on_alert="stop",
        echo=lines.append,
    )
    first = moved(clip_of(tiny_clip))
    monitor.step(first, step=2, epoch=1.0, val_accuracy_pct=90.0)
    assert monitor.should_stop
    second = moved(clip_of(tiny_clip), seed=2)
    assert monitor.step(second, step=1, epoch=0.5) is None
    assert not monitor.should_stop
    assert (monitor.history, monitor.alerts, monitor.best) == ([], [], None)
    seen = monitor.step(second, step=2, epoch=1.0, val_accuracy_pct=50.0)
    assert monitor.should_stop  # told again, and kept again
    assert monitor.history == [seen]
    assert sum("the model at the stop is kept" in line for line in lines) == 2
    for folder in (tmp_path / "stopped", monitor.best_folder):
        kept = ds.load(folder).module.state_dict()  # type: ignore[arg-type]
        assert all(torch.equal(kept[name], value) for name, value in second.state_dict().items())


def test_a_training_that_is_said_to_start_is_a_new_one_whatever_its_steps(
    tiny_clip: Path, coloured_images: Path
) -> None:
    model, monitor = clip_of(tiny_clip), monitor_of(tiny_clip, coloured_images)
    for step in (0, 10, 20):
        monitor.observe(model, step=step)
    monitor.start(model, step=10)
    assert [one.step for one in monitor.history] == [0, 10]
    monitor.start(model)
    assert [one.step for one in monitor.history] == [0]
    with pytest.raises(ModelError, match="holds no model"):
        monitor.start(nn.Linear(2, 2))


@pytest.mark.parametrize("is_said", [False, True])
def test_the_models_of_a_former_training_go_with_its_observations(
    is_said: bool, tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "out": tmp_path,
        "alerts": ds.Thresholds(max_embedding_drift=0.0),
        "on_alert": "stop",
    }
    first = monitor_of(tiny_clip, coloured_images, keep_best=True, **options)
    first.observe(moved(clip_of(tiny_clip)), step=200, val_accuracy_pct=90.0)
    assert first.best_folder is not None
    assert (tmp_path / "stopped").exists()
    again = monitor_of(tiny_clip, coloured_images, **options)
    assert again.best_folder == first.best_folder  # it may go on from there
    model = clip_of(tiny_clip)
    if is_said:
        again.start(model)
    else:
        again.step(model, step=1)
    assert not (tmp_path / "stopped").exists()
    again.observe(model, step=200, val_accuracy_pct=90.0)
    assert again.best is not None
    assert again.best_folder is None


def test_a_training_taken_up_in_the_middle_has_the_models_of_what_is_behind_it(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model, options = clip_of(tiny_clip), {"out": tmp_path, "keep_best": True}
    selection = ds.Selection(within_points=10)
    first = monitor_of(tiny_clip, coloured_images, selection=selection, **options)
    watch(first, model, 1, 2)
    (tmp_path / "stopped").mkdir()
    again = monitor_of(tiny_clip, coloured_images, selection=selection, **options)
    again.start(model, step=1)
    assert [one.name for one in (tmp_path / "candidates").iterdir()] == ["step-1"]
    assert (tmp_path / "stopped").exists()


def test_a_folder_without_observations_loses_nothing(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    (tmp_path / "stopped").mkdir()  # it is another program's
    monitor_of(tiny_clip, coloured_images, out=tmp_path).start(clip_of(tiny_clip))
    assert (tmp_path / "stopped").exists()


def test_a_copy_of_a_monitor_writes_where_it_does(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    monitor.observe(clip_of(tiny_clip), step=1)
    assert pickle.dumps(monitor)
    copied = copy.deepcopy(monitor)
    copied.observe(clip_of(tiny_clip), step=2)
    assert [one.step for one in copied.history] == [1, 2]
    assert (tmp_path / "events.jsonl").read_text().count('"kind": "observation"') == 2


def test_a_closed_monitor_gives_its_folder_back_and_claims_it_to_write_again(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, echo=lines.append)
    monitor.observe(clip_of(tiny_clip), step=1)
    assert is_claimed(tmp_path)
    monitor.close()
    monitor.close()
    assert not is_claimed(tmp_path)
    with FileLock(tmp_path / ".lock"):  # another process has it now
        monitor.observe(clip_of(tiny_clip), step=2)
    refused = f"driftscope: cannot write to {tmp_path} (another process's monitor is writing"
    assert sum(line.startswith(refused) for line in lines) == 1
    monitor.observe(clip_of(tiny_clip), step=3)
    assert is_claimed(tmp_path)
    assert monitor_of(tiny_clip, coloured_images, out=tmp_path).history[-1].step == 3


def test_a_loop_that_counts_no_steps_starts_anew_each_time_and_says_so(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    for is_second in (False, True):
        monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, echo=lines.append)
        monitor.step(clip_of(tiny_clip))
        monitor.step(clip_of(tiny_clip))
        assert [one.step for one in monitor.history] == [1, 2]
        said = f"driftscope: an earlier training in {tmp_path} is replaced, seen up to step 2"
        assert lines.count(said) == is_second


def test_the_state_travels_with_a_checkpoint(tiny_clip: Path, coloured_images: Path) -> None:
    model = clip_of(tiny_clip)
    first = monitor_of(tiny_clip, coloured_images)
    watch(first, model, 1, 2)
    state = json.loads(json.dumps(first.state_dict()))
    second = monitor_of(tiny_clip, coloured_images)
    second.load_state_dict(state)
    assert [one.scalars() for one in second.history] == [one.scalars() for one in first.history]
    assert first.best is not None
    assert second.best is not None
    assert second.best.step == first.best.step
    other = monitor_of(tiny_clip, torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(RecordError, match="another training's"):
        other.load_state_dict(state)
    with pytest.raises(RecordError, match="no state of a monitor"):
        other.load_state_dict({})


def test_a_checkpoint_from_before_its_own_observation_takes_the_rest_from_the_folder(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = clip_of(tiny_clip)
    first = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    watch(first, model, 2)
    state = json.loads(json.dumps(first.state_dict()))  # of step 4, not yet observed
    watch(first, model, 4, 6)
    again = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    again.load_state_dict(state)
    again.start(model, step=4)
    assert [one.step for one in again.history] == [2, 4]
    uncounted = monitor_of(tiny_clip, coloured_images, out=tmp_path, every=1)
    uncounted.load_state_dict(state)
    uncounted.step(model)
    assert [one.step for one in uncounted.history] == [2, 3]


def test_a_checkpoint_replaces_what_a_folder_holds_of_another_training(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = clip_of(tiny_clip)
    first = monitor_of(tiny_clip, coloured_images)
    watch(first, model, 2)
    other = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    watch(other, model, 2, 4)
    other.load_state_dict(first.state_dict())
    assert [one.step for one in other.history] == [2]
    assert other.history[0].scalars() == first.history[0].scalars()


def test_another_trainings_folder_is_refused(
    tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor_of(tiny_clip, coloured_images, out=tmp_path)
    with pytest.raises(RecordError, match="another training's observations"):
        monitor_of(other_tiny_clip, coloured_images, out=tmp_path)
    first, *_ = (tmp_path / "events.jsonl").read_text().splitlines()
    fewer = {**json.loads(first), "transfer": [{"name": "birds"}]}
    (tmp_path / "events.jsonl").write_text(json.dumps(fewer) + "\n")
    with pytest.raises(RecordError, match=r"its transfer is \[\('birds', None, None\)\]"):
        monitor_of(tiny_clip, coloured_images, out=tmp_path)
    (tmp_path / "events.jsonl").write_text('{"kind": "epoch"}\n')
    with pytest.raises(RecordError, match="is not a monitor's"):
        monitor_of(tiny_clip, coloured_images, out=tmp_path)


def test_a_measured_number_that_comes_out_otherwise_is_no_other_training(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"transfer": str(coloured_images), "out": tmp_path}
    monitor_of(tiny_clip, coloured_images, **options).observe(clip_of(tiny_clip), step=1)
    header, *others = (tmp_path / "events.jsonl").read_text().splitlines()
    stored = json.loads(header)
    stored["transfer"][0]["pretrained_zero_shot_pct"] -= 1e-9  # on another device, say
    (tmp_path / "events.jsonl").write_text("\n".join([json.dumps(stored), *others]) + "\n")
    assert len(monitor_of(tiny_clip, coloured_images, **options).history) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), "CUDA out of memory."),
    ],
)
def test_a_full_disk_or_memory_ends_no_training(
    error: Exception,
    words: str,
    tiny_clip: Path,
    coloured_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise error

    lines: list[str] = []
    monitor = monitor_of(
        tiny_clip, coloured_images, out=tmp_path, keep_best=True, echo=lines.append
    )
    monkeypatch.setattr(monitor._log, "append", full)
    monkeypatch.setattr(core, "keep_model", full)
    seen = monitor.observe(clip_of(tiny_clip), step=1, val_accuracy_pct=5.0)
    assert seen.drift is not None
    assert f"cannot write to {tmp_path} ({words})" in lines[0]


# ---------------------------------------------------------------- the report


def test_the_report_holds_the_latest_the_best_and_every_look(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    model = clip_of(tiny_clip)
    monitor = monitor_of(tiny_clip, coloured_images, transfer=str(coloured_images))
    watch(monitor, model, 1, 2, 3)
    page = monitor.report(tmp_path / "new")
    assert page == tmp_path / "new" / "report.html"
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (report["schema"], report["kind"]) == (1, "monitor")
    assert report["scalars"] == report["latest"]["scalars"] == monitor.history[-1].scalars()
    assert monitor.best is not None
    assert report["best"]["step"] == monitor.best.step
    assert [one["step"] for one in report["history"]] == [1, 2, 3]
    text = page.read_text()
    for words in ("Over training", "Layer by layer at step 3", "latest (step 3)", "cannot tell"):
        assert words in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_the_attention_shown_is_that_of_a_read_by_itself(
    tiny_clip: Path, coloured_images: Path
) -> None:
    model = moved(clip_of(tiny_clip))
    monitor = monitor_of(tiny_clip, coloured_images)
    monitor.observe(model, step=1)
    overlay = monitor._reference.overlay(monitor._shown[1])
    pixels = torch.from_numpy(overlay.images).permute(0, 3, 1, 2)
    apart = read(from_module(model), pixels, shown=range(len(pixels))).shown_rows
    assert apart is not None
    np.testing.assert_allclose(
        overlay.adapted.reshape(apart.shape), apart.numpy(), atol=1e-5, rtol=1e-4
    )


def test_a_comparison_tells_its_scalars_by_the_same_names(
    tiny_clip: Path, coloured_images: Path
) -> None:
    told = ds.compare(tiny_clip, tiny_clip, coloured_images, transfer=[str(coloured_images)])
    stored = json.loads(json.dumps(told.to_dict()))
    assert stored["kind"] == "comparison"
    assert stored["scalars"]["retention_pct"] == 100
    assert stored["scalars"]["delta_late_entropy_pct"] == 0


# ---------------------------------------------------------------- what cannot be meant


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"every": 0}, ConfigError, "every is 0; give 'epoch', a number of steps"),
        ({"every": "step"}, ConfigError, "every is 'step'"),
        ({"every": []}, ConfigError, "every is \\[\\]"),
        ({"every": 0.5}, ConfigError, "every is 0.5"),
        ({"every": None}, ConfigError, "every is None"),
        ({"on_alert": "shout"}, ConfigError, "on_alert is 'shout'; give 'warn', 'stop'"),
        ({"keep_best": True}, ConfigError, "give out, too"),
        (
            {"alerts": ds.Thresholds(min_retention_pct=80)},
            ConfigError,
            "min_retention_pct is 80, but retention is neither measured nor estimated; give",
        ),
        (
            {"selection": ds.Selection(by="retention_pct")},
            ConfigError,
            "the selection is by retention_pct, but .* transfer='concepts100'",
        ),
        ({"vocabulary": "some"}, ConfigError, "vocabulary is 'general', a list of texts or None"),
        ({"transfer": "nowhere"}, DataError, "no dataset 'nowhere'"),
        ({"max_images": 3}, DataError, "at least 4"),
        ({"transfer": "terrain", "transfer_images": 0}, DataError, "0 images of a dataset"),
        ({"train_images": 3}, DataError, "train_images must be a dataset's name"),
        ({"transfer": 5}, ConfigError, "transfer is 5; give a labeled dataset's name or folder"),
        ({"transfer": ["terrain", 5]}, ConfigError, "transfer is .*a list of them"),
        ({"transfer": {"terrain": 5}}, ConfigError, "transfer is .*a list of them"),
        ({"vocabulary": 5}, ConfigError, "a list of texts or None, got 5"),
        ({"vocabulary": []}, ConfigError, r"a list of texts or None, got \[\]"),
        ({"vocabulary": [1, 2]}, ConfigError, r"a list of texts or None, got \[1, 2\]"),
        ({"alerts": {"min_retention_pct": 90}}, ConfigError, r"alerts is .*driftscope\.Thresholds"),
        ({"selection": {"patience": 3}}, ConfigError, r"selection is .*driftscope\.Selection"),
        ({"max_images": "64"}, ConfigError, "max_images is '64'; give a whole number"),
        ({"max_images": True}, ConfigError, "max_images is True"),
        ({"transfer_images": 1.5}, ConfigError, "transfer_images is 1.5"),
        ({"maps": "yes"}, ConfigError, "maps is 'yes'; give True or False"),
        ({"echo": "print"}, ConfigError, "echo is 'print'; give a function"),
        ({"model_path": 3}, ConfigError, "model_path is 3; give a path of names"),
        ({"out": 3}, ConfigError, "out is 3; give a folder's path"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_sentence(
    options: dict[str, Any],
    kind: type[DriftscopeError],
    words: str,
    tiny_clip: Path,
    coloured_images: Path,
) -> None:
    with pytest.raises(kind, match=words):
        monitor_of(tiny_clip, coloured_images, **options)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(8, 3, 32, 32), "uint8 .* not normalised; got float32"),
        (torch.zeros(8, 32, 32, 3, dtype=torch.uint8), r"got uint8 \[8, 32, 32, 3\]"),
        (torch.zeros(3, 3, 32, 32, dtype=torch.uint8), "images holds 3 image"),
        (["one", "two"], "a list of PIL images, got a sequence of str"),
        ({"images": []}, "a list of PIL images, got dict"),
        ([Image.new("RGB", (32, 32))] * 5 + ["six"], "got a sequence of str"),
    ],
)
def test_probe_images_that_are_none_are_one_sentence(
    images: Any, words: str, tiny_clip: Path
) -> None:
    with pytest.raises(DataError, match=words):
        monitor_of(tiny_clip, images)


def test_an_accuracy_that_is_no_percentage_is_refused(
    tiny_clip: Path, coloured_images: Path
) -> None:
    with pytest.raises(ConfigError, match="val_accuracy_pct is 101"):
        monitor_of(tiny_clip, coloured_images).observe(clip_of(tiny_clip), val_accuracy_pct=101)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"val_accuracy_pct": "71"}, "val_accuracy_pct is '71'"),
        ({"val_accuracy_pct": math.nan}, "val_accuracy_pct is nan"),
        ({"val_accuracy_pct": torch.ones(2)}, r"val_accuracy_pct is tensor\(\[1., 1.\]\)"),
        ({"step": "one"}, "step is 'one'; give a whole number of steps, 0 or more"),
        ({"step": 1.5}, "step is 1.5"),
        ({"step": -1}, "step is -1"),
        ({"epoch": "one"}, "epoch is 'one'; give a number of epochs"),
    ],
)
def test_what_is_no_number_is_refused(
    call: dict[str, Any], words: str, tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images)
    with pytest.raises(ConfigError, match=words):
        monitor.step(clip_of(tiny_clip), **call)
    assert monitor.history == []


def test_all_probe_images_are_read_where_no_most_is_given(
    tiny_clip: Path, coloured_images: Path
) -> None:
    pixels = torch.randint(0, 256, (70, 3, 32, 32), dtype=torch.uint8)
    counts = [
        monitor_of(tiny_clip, pixels, **options).state_dict()["monitor"]["num_images"]
        for options in ({}, {"max_images": None})
    ]
    assert counts == [64, 70]


def test_scalars_of_torch_and_numpy_are_numbers(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    clip, accuracy = clip_of(tiny_clip), torch.tensor(71.0)
    seen = monitor.step(clip, step=np.int64(3), epoch=np.int64(1), val_accuracy_pct=accuracy)  # type: ignore[arg-type]
    assert seen is not None
    assert (seen.step, seen.epoch, seen.val_accuracy_pct) == (3, 1, 71.0)
    assert monitor.step(clip, step=4, epoch=np.int64(1)) is None  # type: ignore[arg-type]
    monitor.report()
    assert monitor_of(tiny_clip, coloured_images, out=tmp_path).history == [seen]


def test_a_fraction_is_read_as_percent_and_said_once(
    tiny_clip: Path, coloured_images: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(tiny_clip, coloured_images, echo=lines.append)
    for step in (1, 2):
        monitor.observe(clip_of(tiny_clip), step=step, val_accuracy_pct=0.9)
    assert [line for line in lines if "is taken as" in line] == [
        "driftscope: val_accuracy_pct 0.9 is taken as 0.9 %; if it is a fraction, give 90"
    ]


def test_a_report_says_the_verdict_and_where_its_page_is(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, echo=lines.append)
    monitor.observe(moved(clip_of(tiny_clip)), step=1)
    lines.clear()
    page = monitor.report()
    told = json.loads((tmp_path / "report.json").read_text())
    assert lines == [f"driftscope: {told['advice']['verdict']} The page is {page}"]
    assert told["monitor"]["images_are_labeled"] is True
    assert told["monitor"]["split_of"] is None
    assert told["monitor"]["kept_model"] is None
    monitor.close()
    lines.clear()
    monitor.report()
    assert lines == [f"driftscope: The page is {page}"]


def test_a_stop_names_the_model_that_it_kept(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    alerts = ds.Thresholds(max_embedding_drift=0)
    monitor = monitor_of(
        tiny_clip, coloured_images, out=tmp_path, alerts=alerts, on_alert="stop", echo=None
    )
    monitor.observe(moved(clip_of(tiny_clip)), step=1)
    monitor.report()
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["monitor"]["kept_model"] == str(tmp_path / "stopped")


def test_a_model_of_another_architecture_is_refused(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    deeper = make_tiny_clip(tmp_path / "deeper", seed=0, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"different image towers: .*layers\.2.*absent against"):
        monitor_of(tiny_clip, coloured_images).observe(clip_of(deeper), step=1)


def test_a_model_of_another_image_size_is_refused_with_the_way_out(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    larger = make_tiny_clip(tmp_path / "larger", seed=0, image_size=64)
    monitor = monitor_of(tiny_clip, coloured_images)
    for look in (
        lambda: monitor.observe(clip_of(larger), step=1),
        lambda: monitor.start(clip_of(larger)),
    ):  # before an epoch is lost
        with pytest.raises(
            ModelError, match=r"17×32 against 65×32, .*32 pixels; give image_size=64"
        ):
            look()


def test_a_report_of_nothing_is_refused(tiny_clip: Path, coloured_images: Path) -> None:
    with pytest.raises(RecordError, match="has not read the model yet"):
        monitor_of(tiny_clip, coloured_images).report()


def test_a_monitor_never_writes_over_a_page_of_something_else(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "report.html"
    mine.write_text("<title>my own page</title>")
    with pytest.raises(RecordError, match="there already"):
        monitor_of(tiny_clip, coloured_images, out=tmp_path)  # before a training is begun
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path / "watched")
    monitor.observe(clip_of(tiny_clip), step=1)
    mine.rename(tmp_path / "watched" / "report.html")
    with pytest.raises(RecordError, match="there already"):
        monitor.report()


def test_a_report_of_a_model_that_could_never_be_read_says_why(
    tiny_clip: Path, coloured_images: Path
) -> None:
    monitor, clip = monitor_of(tiny_clip, coloured_images), clip_of(tiny_clip)
    with torch.no_grad():
        for parameter in clip.get_submodule("vision_model").parameters():
            parameter.fill_(math.nan)
    monitor.observe(clip, step=1)
    with pytest.raises(RecordError, match=r"at any of the 1 observations .*NaN"):
        monitor.report()


def test_only_the_first_process_of_several_writes(
    tiny_clip: Path,
    coloured_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    options = {"out": "watched", "on_alert": "stop", "alerts": ds.Thresholds(max_embedding_drift=0)}
    monitor = monitor_of(tiny_clip, coloured_images, **options)
    assert monitor.report() == Path("watched/report.html")  # though it has observed nothing
    monitor.observe(moved(clip_of(tiny_clip)), step=1)
    assert monitor.should_stop
    monitor.report()
    monitor.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_writes_to_is_refused(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_PATIENCE_SECONDS", 0)
    (tmp_path / "events.jsonl").write_text('{"kind": "epoch"}\n')
    with FileLock(tmp_path / ".lock"), pytest.raises(BusyError, match="give another folder as out"):
        monitor_of(tiny_clip, coloured_images, out=tmp_path)
    (tmp_path / "events.jsonl").unlink()
    first = monitor_of(tiny_clip, coloured_images, out=tmp_path)
    again = monitor_of(tiny_clip, coloured_images, out=tmp_path)  # as a notebook's cell does
    assert first.history == again.history == []


@pytest.mark.parametrize(
    ("environment", "is_main"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_the_first_process_is_told_by_whatever_launched_it(
    environment: dict[str, str], is_main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is is_main
    for rank in (0, 1):  # which knows better
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert is_main_process() is (rank == 0)


def test_a_process_that_only_reports_knows_the_stop_and_the_cost_of_those_before(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "out": tmp_path,
        "on_alert": "stop",
        "alerts": ds.Thresholds(max_embedding_drift=1e-4),
    }
    first = monitor_of(tiny_clip, coloured_images, **options)
    seen = first.observe(moved(clip_of(tiny_clip)), step=1)
    for _ in range(2):
        again = monitor_of(tiny_clip, coloured_images, **options)
        page = again.report().read_text()
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["stopped"] == first.stop_reason
        assert report["cost_seconds"] == pytest.approx(seen.seconds)
        assert report["cost_share_pct"] is None
        assert "% of its time" not in page.replace("\u00a0", " ")
        assert not again.should_stop
    again.observe(clip_of(tiny_clip), step=2)  # it went on, and nothing holds any more
    again.report()
    assert json.loads((tmp_path / "report.json").read_text())["stopped"] is None


def test_what_is_done_after_the_training_is_none_of_its_time(
    tiny_clip: Path, coloured_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images)
    monitor.observe(clip_of(tiny_clip), step=1)
    share = monitor.cost_share_pct
    later = time.perf_counter() + 3600
    monkeypatch.setattr("time.perf_counter", lambda: later)
    assert monitor.cost_share_pct == share > 0
    assert monitor.step(clip_of(tiny_clip), step=2, epoch=0.5) is None
    assert monitor.cost_share_pct < share


def test_alerts_of_before_a_restart_are_in_the_report(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    clip = moved(clip_of(tiny_clip))
    limit = ds.Thresholds(max_embedding_drift=0)
    for step in (1, 2):
        monitor = monitor_of(tiny_clip, coloured_images, out=tmp_path, alerts=limit)
        monitor.observe(clip, step=step)
    assert [alert.step for alert in monitor.alerts if alert.kind == "large_drift"] == [1]
    monitor.report()
    assert "large_drift" in (tmp_path / "report.json").read_text()
