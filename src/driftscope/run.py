"""One run: the only place that joins model, data, method, training, probe and record."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope import records
from driftscope.adapt import AdaptedModel, adapt, save_adapted
from driftscope.config import FullFineTuning, RunSpec, run_id
from driftscope.data import labelled, open_dataset
from driftscope.data.splits import Splits, make_splits
from driftscope.models import VisionLanguageModel, encoder_state, load
from driftscope.probe import Drift, Reading, attention_maps, drift, read
from driftscope.records import Overlay, RunRecord
from driftscope.signals.weights import weight_drift
from driftscope.train import (
    SELECTED_FILE,
    OnStep,
    Training,
    TrainingImages,
    load_weights,
    num_correct,
    train,
)
from driftscope.transfer import TransferSet, ZeroShotScore, retention_pct, score, transfer_set

OVERLAY_IMAGES = 6
VERSIONS = ("driftscope", "torch", "transformers", "peft", "numpy", "safetensors")


@dataclass(frozen=True)
class Setting:
    """What all runs on one model, dataset and split share: read-only, computed once."""

    pretrained: VisionLanguageModel
    class_names: tuple[str, ...]
    images: TrainingImages
    probe_pixels: UInt8[Tensor, "probe 3 size size"]
    test_pixels: UInt8[Tensor, "test 3 size size"]
    test_labels: Int64[Tensor, "test"]
    splits: Splits
    fingerprints: dict[str, str]
    transfer: tuple[TransferSet, ...]
    reference: Reading
    pretrained_scores: dict[str, ZeroShotScore]
    encoder_weights: dict[str, Tensor]


def run_one(
    spec: RunSpec,
    folder: Path,
    *,
    device: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _event: None,
    on_step: OnStep = lambda _done, _total: None,
) -> RunRecord:
    """Carries out a run in its folder, or goes on with it, or returns it if it is done.

    Args:
        spec: what to do.
        folder: where; new, empty, or this spec's own.
        device: such as `cpu` or `cuda:0`; by default CUDA where there is any.
        on_epoch: told each epoch's event.
        on_step: told the steps done and in all.

    Raises:
        DriftscopeError: the spec cannot be carried out, or the folder is not this run's.
            Nothing is written then, but for `failure.json` once the run had begun.
    """
    records.refuse_foreign_folder(folder, spec)
    if records.is_done(folder):
        return records.load_run(folder)
    started = time.monotonic()
    setting = prepare(spec, device)
    with records.claimed(folder, spec):
        if records.is_done(folder):  # another process was faster
            return records.load_run(folder)
        try:
            _carry_out(spec, folder, setting, started, on_epoch, on_step)
        except Exception as error:
            with suppress(OSError):  # the disk may be what failed
                records.write_failure(folder, error)
            raise
        return records.load_run(folder)


def prepare(spec: RunSpec, device: str | None = None) -> Setting:
    """Everything of a run that does not depend on method, rate or training seed."""
    shared = spec.model_copy(
        update={"method": FullFineTuning(), "learning_rate": 1.0, "seed": 0, "epochs": 1}
    )
    return _prepare(shared, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@lru_cache(maxsize=1)
def _prepare(spec: RunSpec, device: str) -> Setting:
    pretrained = load(spec.model, device=device)
    size = pretrained.image_size
    train_set, test_set = open_dataset(spec.dataset, "train"), open_dataset(spec.dataset, "test")
    train_labels, class_names = labelled(train_set)
    test_labels, _ = labelled(test_set)
    splits = make_splits(spec, train_labels, test_labels)
    held_out, held_labels = (
        (test_set, test_labels) if splits.held_out_from_test else (train_set, train_labels)
    )
    probe_pixels = held_out.pixels(splits.probe, size)
    transfer = tuple(transfer_set(name, pretrained, spec.transfer_images) for name in spec.transfer)
    return Setting(
        pretrained=pretrained,
        class_names=class_names,
        images=TrainingImages(
            train_pixels=train_set.pixels(splits.train, size),
            train_labels=train_labels[splits.train],
            val_pixels=held_out.pixels(splits.val, size),
            val_labels=held_labels[splits.val],
        ),
        probe_pixels=probe_pixels,
        test_pixels=test_set.pixels(splits.test, size),
        test_labels=test_labels[splits.test],
        splits=splits,
        fingerprints={"train": train_set.fingerprint, "test": test_set.fingerprint},
        transfer=transfer,
        reference=read(pretrained, probe_pixels),
        pretrained_scores={one.name: one.score(pretrained) for one in transfer},
        encoder_weights=encoder_state(pretrained),
    )


# ---------------------------------------------------------------- the run itself


def _carry_out(
    spec: RunSpec,
    folder: Path,
    setting: Setting,
    started: float,
    on_epoch: Callable[[dict[str, Any]], None],
    on_step: OnStep,
) -> None:
    checkpoints = folder / records.CHECKPOINT_FOLDER
    adapted = adapt(setting.pretrained, spec.method, len(setting.class_names), spec.seed)

    def record_epoch(event: dict[str, Any]) -> None:
        records.append_event(folder, event)
        on_epoch(event)

    def record_resumed(events: list[dict[str, Any]]) -> None:
        records.rewrite_events(folder, events)  # a kill may have come between checkpoint and event

    def observe() -> dict[str, Any]:
        return _measure(adapted, setting)[1].to_dict()

    training_started = time.monotonic()
    training = train(
        adapted,
        setting.images,
        spec,
        checkpoints,
        observe=observe,
        on_resume=record_resumed,
        on_epoch=record_epoch,
        on_step=on_step,
    )
    trained = time.monotonic()
    points = _points(adapted, setting, training, spec, checkpoints)
    _keep_adapted(adapted, setting, folder, has_weights=points["selected"] is not None)
    records.write_json(
        folder / records.RESULT_FILE,
        {
            "schema": records.RESULT_SCHEMA,
            "run_id": run_id(spec),
            "status": "diverged" if training.diverged else "done",
            "spec": spec.model_dump(mode="json"),
            "protocol": spec.protocol,
            "class_names": setting.class_names,
            "parameters": adapted.num_parameters(),
            "pretrained": {
                "reading": setting.reference.to_dict(),
                "transfer": {name: s.to_dict() for name, s in setting.pretrained_scores.items()},
            },
            **points,
            "environment": _environment(setting),
            "wall_seconds": {
                "total": time.monotonic() - started,
                "training": trained - training_started,
            },
        },
    )
    _delete_checkpoints(checkpoints)


def _measure(adapted: AdaptedModel, setting: Setting) -> tuple[Reading, Drift]:
    reading = read(adapted.model, setting.probe_pixels)
    weights = weight_drift(setting.encoder_weights, encoder_state(adapted.model))
    return reading, drift(reading, setting.reference, weights=weights)


def _points(
    adapted: AdaptedModel, setting: Setting, training: Training, spec: RunSpec, checkpoints: Path
) -> dict[str, Any]:
    """The record at the last and at the selected epoch; the model is left at the selected one."""
    if training.selected_epoch is None:
        return {"selected": None, "last": None}
    last = _point(adapted, setting, training, training.epoch)
    if training.selected_epoch == training.epoch:
        selected = last
    else:
        load_weights(adapted, checkpoints / SELECTED_FILE, spec)
        selected = _point(adapted, setting, training, training.selected_epoch)
    test = score(
        spec.dataset,
        num_correct(adapted, setting.test_pixels, setting.test_labels),
        len(setting.test_labels),
    )
    return {
        "selected": {
            **selected,
            "test_accuracy_pct": test.accuracy_pct,
            "test_num_images": test.num_images,
            "test_wilson_pct": [test.wilson_low_pct, test.wilson_high_pct],
        },
        "last": last,
    }


def _point(
    adapted: AdaptedModel, setting: Setting, training: Training, epoch: int
) -> dict[str, Any]:
    reading, change = _measure(adapted, setting)
    transfer = {}
    for benchmark in setting.transfer:
        after = benchmark.score(adapted.model)
        retention = retention_pct(after, setting.pretrained_scores[benchmark.name])
        transfer[benchmark.name] = {**after.to_dict(), "retention_pct": retention}
    return {
        "epoch": epoch,
        "step": training.events[epoch - 1]["step"],
        "val_accuracy_pct": training.val_accuracy_pct(epoch),
        "reading": reading.to_dict(),
        "drift": change.to_dict(),
        "transfer": transfer,
    }


def _keep_adapted(
    adapted: AdaptedModel, setting: Setting, folder: Path, *, has_weights: bool
) -> None:
    if not has_weights:
        return
    save_adapted(adapted, setting.pretrained, folder / records.ADAPTED_FOLDER)
    records.write_overlay(folder, overlay(setting.pretrained, adapted.model, setting.probe_pixels))


def overlay(
    pretrained: VisionLanguageModel,
    adapted: VisionLanguageModel,
    pixels: UInt8[Tensor, "image 3 size size"],
) -> Overlay:
    """Attention maps of a few images, evenly spaced through the set, for looking at."""
    chosen = torch.linspace(0, len(pixels) - 1, min(OVERLAY_IMAGES, len(pixels))).long()
    few = pixels[chosen]
    return Overlay(
        images=few.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8),
        pretrained=attention_maps(pretrained, few),
        adapted=attention_maps(adapted, few),
    )


def _delete_checkpoints(checkpoints: Path) -> None:
    for path in checkpoints.glob("*"):
        path.unlink()
    checkpoints.rmdir()


def _environment(setting: Setting) -> dict[str, Any]:
    device = setting.pretrained.device
    return {
        "versions": {"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "data_fingerprints": {
            **setting.fingerprints,
            **{one.name: one.fingerprint for one in setting.transfer},
        },
        "split_hashes": setting.splits.hashes(),
    }


def _git_commit() -> str | None:
    """The commit of the source tree driftscope runs from; None for an installed wheel."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
