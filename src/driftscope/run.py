"""One run: the only place that joins model, data, method, training, probe and record."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope import records
from driftscope.adapt import AdaptedModel, adapt, restore_trainable, save_adapted, trainable_state
from driftscope.budget import Keeper, Schedule, first_fit_images, fit_classifier
from driftscope.budget_search import TrainedTask
from driftscope.checkpoints import Checkpoints, Training
from driftscope.config import RunSpec, run_id
from driftscope.config.variants import Flyp, LinearProbe, LpFt, MethodSpec
from driftscope.converged import not_converged
from driftscope.data import PixelSource
from driftscope.data.prompts import PromptRules
from driftscope.deprecation import keywords
from driftscope.errors import RecordError, one_line
from driftscope.files import inner_folder, named_path, remove_leftovers
from driftscope.interventions import Interventions, freeze
from driftscope.prepared_run import PreparedRun, num_correct, prepare, training_images
from driftscope.reading import Reading
from driftscope.reading_pass import read
from driftscope.records import RunRecord
from driftscope.records.schema import SCHEMA_VERSION
from driftscope.reference import evenly_spaced
from driftscope.reference_cache import CachedModel
from driftscope.regularize import Pretrained, Regularization
from driftscope.sources.preprocessor import assumed_pixels
from driftscope.train import (
    OnEvent,
    OnStep,
    TrainingImages,
    fit_head,
    learning_rate_at,
    steps_per_epoch,
    train,
)
from driftscope.transfer import corrupted_tests, score

if TYPE_CHECKING:
    from driftscope.rescuing.of_run import RunRescues
    from driftscope.rescuing.where_of_run import RunAttribution

VERSIONS = ("driftscope", "torch", "transformers", "peft", "numpy", "safetensors")


@keywords()
def run_one(
    spec: RunSpec,
    folder: Path | str,
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
    folder = named_path(folder)
    records.refuse_foreign_folder(folder, spec)
    if records.is_done(folder):
        _tidy(folder, spec)
        return records.load_run(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    prepared = prepare(spec, device)
    with records.claimed(folder, spec):
        if records.is_done(folder):  # another process was faster
            return records.load_run(folder)
        try:
            _tidy(folder, spec)
            _carry_out(spec, folder, prepared, started, on_event, on_step)
        except Exception as error:
            with suppress(OSError):  # the disk may be what failed
                records.write_failure(folder, error)
            if isinstance(error, OSError):
                raise RecordError(
                    f"the run in {folder} cannot go on ({one_line(error)}); its last "
                    "checkpoint is intact: put that right and run again to go on from it"
                ) from error
            raise
        return records.load_run(folder)


# ---------------------------------------------------------------- the run itself


def _carry_out(
    spec: RunSpec,
    folder: Path,
    prepared: PreparedRun,
    started: float,
    on_event: OnEvent,
    on_step: OnStep,
) -> None:
    checkpoints = Checkpoints(folder / records.CHECKPOINT_FOLDER, spec, prepared.origin)

    doubts = {"doubts": found} if (found := prepared.doubts()) else {}

    def record_event(event: dict[str, Any]) -> None:
        records.append_event(folder, {**event, **doubts})
        on_event(event)

    def record_resumed(events: list[dict[str, Any]]) -> None:
        # a kill may have come between checkpoint and event
        records.rewrite_events(folder, [{**event, **doubts} for event in events])

    training_started = time.monotonic()

    def elapsed() -> dict[str, float]:
        now = time.monotonic()
        return {"total": now - started, "training": now - training_started}

    rescues, attribution = _rescues(prepared, spec), _attribution(prepared, spec)
    images = training_images(prepared, spec)
    adapted = adapted_model(prepared, spec, images, is_resumed=checkpoints.exist())
    interventions = Interventions(
        adapted,
        spec,
        steps_per_epoch(spec, images),
        lambda: fit_classifier(adapted, images.pixels, images.labels),
    )
    training = train(
        adapted,
        replace(images, features=images.features if adapted.encoder_is_frozen else None),
        spec,
        checkpoints,
        lambda pool: prepared.evaluate(adapted, pool),
        regularization=Regularization(
            spec,
            adapted,
            Pretrained(prepared.pretrained, _entropies(prepared.reference.reading)),
        ),
        keeper=budget_keeper(adapted, prepared, spec),
        interventions=interventions,
        on_resume=record_resumed,
        elapsed=elapsed,
        on_event=record_event,
        on_step=on_step,
    )
    trained = elapsed()["training"]
    if training.selected is not None:
        _leave_selected(adapted, training, checkpoints)
        interventions.restore()
    points = _points(adapted, prepared, training, spec)
    has_weights = points["selected"] is not None
    _keep_adapted(adapted, prepared, folder, has_weights=has_weights)
    kept = [asdict(one) for one in rescues.kept_by(adapted)] if rescues and has_weights else []
    damage = attribution.told(adapted) if attribution and has_weights else None
    notes = assumed_pixels(prepared.pretrained) + _notes(adapted, prepared, images, points)
    records.write_result(
        folder,
        {
            "schema": SCHEMA_VERSION,
            "run_id": run_id(spec),
            "status": "diverged" if training.diverged else "done",
            "spec": spec.model_dump(mode="json"),
            "protocol": spec.protocol,
            "class_names": prepared.class_names,
            "parameters": adapted.num_parameters(),
            "pretrained": prepared.pretrained_record(),
            "prompts": {one.name: one.prompts() for one in prepared.reference.transfer},
            "text_vocabulary": prepared.reference.texts.described,
            "splits": prepared.splits.to_dict(),
            "duplicates": prepared.duplicates.to_dict(),
            **points,
            **({"notes": notes} if notes else {}),
            **({"rescues": kept} if rescues else {}),
            **({"attribution": damage} if damage else {}),
            "environment": _environment(prepared),
            "wall_seconds": training.with_earlier({**elapsed(), "training": trained}),
        },
    )
    checkpoints.delete()


def _rescues(prepared: PreparedRun, spec: RunSpec) -> RunRescues | None:
    """What tells how much the spec's ways of a rescue keep; None without any."""
    if not spec.ways:
        return None
    from driftscope.rescuing.of_run import RunRescues  # brings the pages along

    return RunRescues.of(spec, prepared)


def _attribution(prepared: PreparedRun, spec: RunSpec) -> RunAttribution | None:
    """What tells where the run's damage sits; None where the spec does not ask."""
    if "where" not in spec.post:
        return None
    from driftscope.rescuing.where_of_run import RunAttribution  # brings the pages along

    return RunAttribution.of(spec, prepared)


def _tidy(folder: Path, spec: RunSpec) -> None:
    """Removes what a killed process may have left: half-written files, a done run's checkpoint."""
    remove_leftovers(folder)
    if records.is_done(folder):
        Checkpoints(folder / records.CHECKPOINT_FOLDER, spec).delete()


def adapted_model(
    prepared: PreparedRun, spec: RunSpec, images: TrainingImages, *, is_resumed: bool = False
) -> AdaptedModel:
    """The model as the method's training finds it; LP-FT's head is trained already.

    Under a budget a classifier that would start at random is fitted to the pretrained embeddings:
    its gradients would cost most of what a first epoch loses (Kumar et al. 2022).

    Args:
        prepared: what the run shares with others.
        spec: the run.
        images: its training images, with features where the method wants them.
        is_resumed: whether a checkpoint will replace all weights. Under a budget the classifier is
            made all the same, for a shrink takes it back to where it started.
    """
    embeddings = prepared.reference.reading.embeddings
    norm = 1.0 if embeddings is None else float(embeddings.norm(dim=-1).mean())

    def adapted_by(method: MethodSpec) -> AdaptedModel:
        return adapt(
            prepared.pretrained,
            method,
            len(prepared.class_names),
            spec.seed,
            class_names=prepared.class_names,
            rules=PromptRules(spec.templates, spec.class_words),
            embedding_norm=norm,
        )

    adapted = adapted_by(spec.method)
    is_needed = spec.budget is not None or not is_resumed
    if isinstance(spec.method, LpFt) and is_needed:
        method = LinearProbe(head=spec.method.head)
        probe = adapted_by(method)
        fit_head(probe, images, _head_spec(spec, spec.method, method))
        head = {f"classifier.{n}": p for n, p in probe.linear_classifier().state_dict().items()}
        restore_trainable(adapted, {**trainable_state(adapted), **head})
    elif spec.budget and _starts_at_random(adapted, spec.method):
        at_most = first_fit_images(len(images.labels))
        fit_classifier(adapted, images.pixels, images.labels, at_most)
    freeze(adapted, spec)
    return adapted


def _starts_at_random(adapted: AdaptedModel, method: MethodSpec) -> bool:
    """Whether an encoder is trained with a classifier that tells nothing yet."""
    if adapted.encoder_is_frozen or isinstance(method, Flyp):
        return False
    return method.head == "random"


def budget_keeper(adapted: AdaptedModel, prepared: PreparedRun, spec: RunSpec) -> Keeper | None:
    """What holds the run to its budget; None without one, or where the encoder cannot move."""
    referee = prepared.reference.referee
    if spec.budget is None or referee is None or adapted.encoder_is_frozen:
        return None
    total_steps = spec.epochs * steps_per_epoch(spec, prepared.images)
    return Keeper(
        lambda: adapted.model,
        adapted.trainable(),
        referee,
        spec.budget,
        Schedule(lambda step: learning_rate_at(step, total_steps, spec), total_steps),
        text_tower_is_frozen=adapted.class_tokens is None,
        task=_task_of_search(adapted, prepared.images),
    )


def _task_of_search(adapted: AdaptedModel, images: TrainingImages) -> TrainedTask:
    """Training images, as many as fit a first classifier, and the classifier in training."""
    chosen = list(evenly_spaced(len(images.labels), first_fit_images(len(images.labels))))
    labels = images.labels[chosen].cpu()
    return TrainedTask(images.pixels.select(chosen), labels, adapted.linear_classifier)


def _head_spec(spec: RunSpec, method: LpFt, probe: LinearProbe) -> RunSpec:
    return spec.model_copy(
        update={
            "method": probe,
            "epochs": method.probe_epochs,
            "learning_rate": method.probe_learning_rate,
        }
    )


def _leave_selected(adapted: AdaptedModel, training: Training, checkpoints: Checkpoints) -> None:
    """Makes the model what it was at the end of the selected epoch."""
    if training.selected_epoch != training.epoch:
        checkpoints.load_selected(adapted, training.selected_epoch)


def _points(
    adapted: AdaptedModel,
    prepared: PreparedRun,
    training: Training,
    spec: RunSpec,
) -> dict[str, Any]:
    """The record at the last and at the selected epoch, whose model is `adapted`."""
    if training.selected is None or training.last is None:
        return {"selected": None, "last": None}
    if prepared.splits.held_out_from_test:  # validation was the test split: nothing new to see
        correct = round(training.selected["val_accuracy_pct"] / 100 * len(prepared.test_labels))
    else:
        correct = _test_correct(adapted, prepared, prepared.test_pixels, prepared.test_labels)
    test = score(spec.dataset, correct, len(prepared.test_labels))
    return {
        "selected": {
            **training.selected,
            "test_accuracy_pct": test.accuracy_pct,
            "test_num_images": test.num_images,
            "test_wilson_pct": [test.wilson_low_pct, test.wilson_high_pct],
            "robustness": _robustness(adapted, prepared, spec),
        },
        "last": training.last,
    }


def _test_correct(
    adapted: AdaptedModel,
    prepared: PreparedRun,
    pixels: PixelSource,
    labels: Int64[Tensor, " image"],
) -> int:
    """How many test images are classified rightly; a frozen encoder's embeddings are cached."""
    if adapted.encoder_is_frozen:
        embeddings = CachedModel(prepared.pretrained).embeddings(pixels)
    else:
        embeddings = adapted.model.embed_images(pixels)
    return num_correct(adapted, embeddings, labels)


def _robustness(adapted: AdaptedModel, prepared: PreparedRun, spec: RunSpec) -> dict[str, Any]:
    """Accuracy on the target task's test images under each corruption that the spec names."""
    tests = corrupted_tests(
        spec.dataset,
        spec.corruptions,
        prepared.test_pixels,
        prepared.test_labels,
        class_names=prepared.class_names,
        framing=prepared.pretrained.framing,
        severity=spec.corruption_severity,
        skip_bad_images=spec.skip_bad_images,
    )
    found = {}
    for test in tests:
        correct = _test_correct(adapted, prepared, test.pixels, test.labels)
        counted = score(test.corruption, correct, len(test.labels))
        found[test.corruption] = {
            "made": test.made,
            "severity": test.severity,
            "num_images": counted.num_images,
            "accuracy_pct": counted.accuracy_pct,
            "wilson_pct": [counted.wilson_low_pct, counted.wilson_high_pct],
            "notes": list(test.notes),
        }
    return found


def _keep_adapted(
    adapted: AdaptedModel, prepared: PreparedRun, folder: Path, *, has_weights: bool
) -> None:
    if not has_weights:
        return
    # in the run's folder, which may have been moved
    kept = inner_folder(folder, records.ADAPTED_FOLDER)
    save_adapted(adapted, prepared.pretrained, kept)
    few = prepared.reference.probe_pixels[list(prepared.reference.shown)]
    rows = read(adapted.model, few, shown=range(len(few))).shown_rows
    if (overlay := prepared.reference.overlay(rows)) is not None:
        records.write_overlay(folder, overlay)


def _notes(
    adapted: AdaptedModel, prepared: PreparedRun, images: TrainingImages, points: dict[str, Any]
) -> list[str]:
    """What is to be said of the training itself: a linear probe that was trained too little."""
    if points["selected"] is None or images.features is None or not adapted.encoder_is_frozen:
        return []
    held_out, bank = (one.float().cpu() for one in (prepared.untouched_val, images.features[0]))
    correct = num_correct(adapted, held_out, prepared.val_labels)
    said = not_converged(correct, held_out, prepared.val_labels, bank, images.labels)
    return [said] if said else []


def _entropies(reading: Reading) -> list[float]:
    """By layer; empty where attention is not read."""
    return reading.per_layer("entropy") if reading.num_layers else []


def _environment(prepared: PreparedRun) -> dict[str, Any]:
    device = prepared.pretrained.device
    return {
        "versions": {"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "data_fingerprints": prepared.fingerprints,
        "split_hashes": prepared.splits.hashes(),
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
