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
from driftscope.data import groups_of, labelled
from driftscope.data.duplicates import Duplicates, find_duplicates
from driftscope.data.prompts import PromptRules
from driftscope.data.residence import resident
from driftscope.data.splits import Splits, make_splits, open_train_and_test
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
from driftscope.transfer import (
    Outcome,
    RetrievalScore,
    RetrievalSet,
    TransferSet,
    corrupted_tests,
    retrieval_set,
    score,
    transfer_set,
)

OVERLAY_IMAGES = 6
VERSIONS = ("driftscope", "torch", "transformers", "peft", "numpy", "safetensors")


@dataclass(frozen=True)
class Setting:
    """What all runs on one model, dataset and split share: read-only, computed once."""

    pretrained: VisionLanguageModel
    class_names: tuple[str, ...]
    images: TrainingImages
    evaluator: Evaluator
    test_pixels: UInt8[Tensor, "test 3 size size"]
    test_labels: Int64[Tensor, "test"]
    splits: Splits
    fingerprints: dict[str, str]

    @property
    def origin(self) -> str:
        """A short hash of the model and the data: what a checkpoint's weights depend on."""
        parts = {
            "model": encoder_fingerprint(self.pretrained),
            "data": self.fingerprints,
            "splits": self.splits.hashes(),
            "transfer": {one.name: one.fingerprint for one in self.evaluator.transfer},
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def run_one(
    spec: RunSpec,
    folder: Path,
    *,
    device: str | None = None,
    on_event: OnEvent = lambda _event: None,
    on_step: OnStep = lambda _done, _total: None,
) -> RunRecord:
    """Carries out a run in its folder, or goes on with it, or returns it if it is done.

    Args:
        spec: what to do.
        folder: where; new, empty, or this spec's own.
        device: such as `cpu` or `cuda:0`; by default CUDA where there is any.
        on_event: told each event as it is recorded: epochs, probes between, a divergence.
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
            _carry_out(spec, folder, setting, started, on_event, on_step)
        except Exception as error:
            with suppress(OSError):  # the disk may be what failed
                records.write_failure(folder, error)
            raise
        return records.load_run(folder)


_NOT_OF_THE_SETTING = {
    "method": FullFineTuning(),
    "learning_rate": 1.0,
    **{
        name: RunSpec.model_fields[name].default
        for name in (
            "seed",
            "epochs",
            "batch_size",
            "weight_decay",
            "warmup_fraction",
            "clip_norm",
            "horizontal_flip",
            "decay_norms_and_biases",
            "label_smoothing",
            "micro_batches",
            "precision",
            "compile",
            "regularizers",
            "probe_at",
        )
    },
}
"""What a setting does not depend on, set alike so that runs that share a setting find it."""


def prepare(spec: RunSpec, device: str | None = None) -> Setting:
    """Everything of a run that does not depend on method, optimisation or training seed."""
    shared = spec.model_copy(update=_NOT_OF_THE_SETTING)
    return _prepare(shared, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@lru_cache(maxsize=1)
def _prepare(spec: RunSpec, device: str) -> Setting:
    pretrained = load(spec.model, device=device)
    size = pretrained.image_size
    train_set, test_set = open_train_and_test(spec.dataset, spec.data_seed)
    train_labels, class_names = labelled(train_set)
    test_labels, _ = labelled(test_set)
    splits = make_splits(spec, train_labels, test_labels, class_names=class_names)
    held_out, held_labels = (
        (test_set, test_labels) if splits.held_out_from_test else (train_set, train_labels)
    )
    rules = PromptRules(spec.templates, spec.class_words)
    transfer = tuple(
        transfer_set(name, pretrained, spec.transfer_images, rules) for name in spec.transfer
    )
    return Setting(
        pretrained=pretrained,
        class_names=class_names,
        images=TrainingImages(train_set.pixels(splits.train, size), train_labels[splits.train]),
        evaluator=make_evaluator(
            pretrained,
            probe_pixels=held_out.pixels(splits.probe, size),
            val_pixels=held_out.pixels(splits.val, size),
            val_labels=held_labels[splits.val],
            transfer=transfer,
        ),
        test_pixels=test_set.pixels(splits.test, size),
        test_labels=test_labels[splits.test],
        splits=splits,
        fingerprints={"train": train_set.fingerprint, "test": test_set.fingerprint},
    )


# ---------------------------------------------------------------- the run itself


def _carry_out(
    spec: RunSpec,
    folder: Path,
    setting: Setting,
    started: float,
    on_event: OnEvent,
    on_step: OnStep,
) -> None:
    checkpoints = Checkpoints(folder / records.CHECKPOINT_FOLDER, spec, setting.origin)

    def record_event(event: dict[str, Any]) -> None:
        records.append_event(folder, event)
        on_event(event)

    def record_resumed(events: list[dict[str, Any]]) -> None:
        records.rewrite_events(folder, events)  # a kill may have come between checkpoint and event

    training_started = time.monotonic()
    images = training_images(setting, spec)
    adapted = adapted_model(setting, spec, images, is_resumed=checkpoints.exist())
    reference = setting.evaluator.reference.reading
    training = train(
        adapted,
        replace(images, features=images.features if adapted.encoder_is_frozen else None),
        spec,
        checkpoints,
        lambda: setting.evaluator.evaluate(adapted),
        regularization=Regularization(
            spec, adapted, Pretrained(setting.pretrained, reference.per_layer("entropy"))
        ),
        on_resume=record_resumed,
        on_event=record_event,
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
                "reading": reference.to_dict(),
                "transfer": {
                    name: outcome.score.to_dict()
                    for name, outcome in setting.evaluator.pretrained_outcomes.items()
                },
            },
            **points,
            "environment": _environment(setting),
            "wall_seconds": {
                "total": time.monotonic() - started,
                "training": trained - training_started,
            },
        },
    )
    checkpoints.delete()


def training_images(setting: Setting, spec: RunSpec) -> TrainingImages:
    """The training images, with their features where the method trains a classifier on them."""
    if spec.method.kind not in ("linear_probe", "lp_ft"):
        return setting.images
    pixels = setting.images.pixels
    variants = [pixels, pixels.flip(-1)] if spec.horizontal_flip else [pixels]
    features = [cached_embeddings(setting.pretrained, variant) for variant in variants]
    return replace(setting.images, features=torch.stack(features))


def adapted_model(
    setting: Setting, spec: RunSpec, images: TrainingImages, *, is_resumed: bool = False
) -> AdaptedModel:
    """The model as the method's training finds it; LP-FT's head is trained already.

    Args:
        setting: what the run shares with others.
        spec: the run.
        images: its training images, with features where the method wants them.
        is_resumed: whether a checkpoint will replace all weights anyway.
    """
    embeddings = setting.evaluator.reference.reading.embeddings
    norm = 1.0 if embeddings is None else float(embeddings.norm(dim=-1).mean())

    def adapted_by(method: MethodSpec) -> AdaptedModel:
        return adapt(
            setting.pretrained,
            method,
            len(setting.class_names),
            spec.seed,
            class_names=setting.class_names,
            embedding_norm=norm,
        )

    adapted = adapted_by(spec.method)
    if isinstance(spec.method, LpFt) and not is_resumed:
        method = LinearProbe(head=spec.method.head)
        probe = adapted_by(method)
        fit_head(probe, images, _head_spec(spec, spec.method, method))
        head = {f"classifier.{n}": p for n, p in probe.linear_classifier().state_dict().items()}
        restore_trainable(adapted, {**trainable_state(adapted), **head})
    return adapted


def _head_spec(spec: RunSpec, method: LpFt, probe: LinearProbe) -> RunSpec:
    return spec.model_copy(
        update={
            "method": probe,
            "epochs": method.probe_epochs,
            "learning_rate": method.probe_learning_rate,
        }
    )


def _points(
    adapted: AdaptedModel,
    setting: Setting,
    training: Training,
    spec: RunSpec,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """The record at the last and at the selected epoch; the model is left at the selected one."""
    if training.selected is None or training.last is None:
        return {"selected": None, "last": None}
    if training.selected["epoch"] != training.last["epoch"]:
        checkpoints.load_selected(adapted)
    test = score(spec.dataset, _test_correct(adapted, setting), len(setting.test_labels))
    return {
        "selected": {
            **training.selected,
            "test_accuracy_pct": test.accuracy_pct,
            "test_num_images": test.num_images,
            "test_wilson_pct": [test.wilson_low_pct, test.wilson_high_pct],
        },
        "last": training.last,
    }


def _test_correct(adapted: AdaptedModel, setting: Setting) -> int:
    """How many test images are classified rightly; a frozen encoder's embeddings are cached."""
    if adapted.encoder_is_frozen:
        embeddings = cached_embeddings(setting.pretrained, setting.test_pixels)
    else:
        embeddings = adapted.model.embed_images(setting.test_pixels)
    return num_correct(adapted, embeddings, setting.test_labels)


def _keep_adapted(
    adapted: AdaptedModel, setting: Setting, folder: Path, *, has_weights: bool
) -> None:
    if not has_weights:
        return
    save_adapted(adapted, setting.pretrained, folder / records.ADAPTED_FOLDER)
    records.write_overlay(folder, overlay(setting.pretrained, adapted.model, setting.evaluator.images.probe_pixels))


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
            **{one.name: one.fingerprint for one in setting.evaluator.transfer},
            **{one.name: one.fingerprint for one in setting.retrieval},
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
