"""Training: one visible loop, paired across methods, resumable to the bit.

All randomness of an epoch (order, flips, dropout) comes from the run's seed and the epoch's
number. So runs of one seed see the same images in the same order whatever the method or rate,
and an epoch repeated after a crash is the same epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional

from driftscope.adapt import (
    AdaptedModel,
    derived_seed,
    restore_trainable,
    seeded,
    trainable_state,
)
from driftscope.config import RunSpec, run_id
from driftscope.errors import RecordError
from driftscope.models import evaluating

LAST_FILE = "last.safetensors"
SELECTED_FILE = "selected.safetensors"


@dataclass(frozen=True)
class TrainingImages:
    """The target task in memory: uint8 pixels at the model's size, and class indices."""

    train_pixels: UInt8[Tensor, "train 3 size size"]
    train_labels: Int64[Tensor, "train"]
    val_pixels: UInt8[Tensor, "val 3 size size"]
    val_labels: Int64[Tensor, "val"]


@dataclass
class Training:
    """What has happened so far: the epochs' events, which one is selected, how it ended."""

    events: list[dict[str, Any]] = field(default_factory=list)
    selected_epoch: int | None = None
    diverged: bool = False

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 before the first."""
        return int(self.events[-1]["epoch"]) if self.events else 0

    def val_accuracy_pct(self, epoch: int) -> float:
        """Validation accuracy at an epoch."""
        return float(self.events[epoch - 1]["val_accuracy_pct"])


Observe = Callable[[], dict[str, Any]]
"""Reads whatever is to be recorded of the model at the end of an epoch."""
OnStep = Callable[[int, int], None]
"""Told the steps done and the steps in all."""


def train(
    adapted: AdaptedModel,
    images: TrainingImages,
    spec: RunSpec,
    checkpoints: Path,
    *,
    observe: Observe = dict,
    on_resume: Callable[[list[dict[str, Any]]], None] = lambda _events: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _event: None,
    on_step: OnStep = lambda _done, _total: None,
) -> Training:
    """Trains to the last epoch, from the checkpoint in `checkpoints` if there is one.

    At the end `adapted` holds the last epoch's weights, and `checkpoints` those of the
    selected epoch (highest validation accuracy, the earliest of equals) and of the last.
    A non-finite loss ends the training as diverged, with the weights of the last good epoch.
    """
    optimizer = torch.optim.AdamW(
        adapted.trainable().values(), lr=spec.learning_rate, weight_decay=spec.weight_decay
    )
    training = resume(adapted, optimizer, spec, checkpoints)
    on_resume(training.events)
    while training.epoch < spec.epochs and not training.diverged:
        epoch = training.epoch + 1
        with seeded(adapted.model.device, spec.seed, "epoch", epoch):
            loss, accuracy = _train_epoch(adapted, optimizer, images, spec, epoch, on_step)
        if not math.isfinite(loss):
            training.diverged = True
            break
        event = {
            "kind": "epoch",
            "epoch": epoch,
            "step": epoch * steps_per_epoch(spec, images),
            "train_loss": loss,
            "train_accuracy_pct": accuracy,
            "val_accuracy_pct": accuracy_pct(adapted, images.val_pixels, images.val_labels),
            **observe(),
        }
        _note_epoch(training, event, adapted, optimizer, spec, checkpoints)
        on_epoch(event)
    if training.diverged and training.epoch:
        load_weights(adapted, checkpoints / LAST_FILE, spec)
    return training


def steps_per_epoch(spec: RunSpec, images: TrainingImages) -> int:
    """Optimizer steps in an epoch; the last batch may be smaller."""
    return math.ceil(len(images.train_labels) / spec.batch_size)


def learning_rate_at(step: int, total_steps: int, spec: RunSpec) -> float:
    """The rate of step 0…total−1: linear warmup, then cosine to 0 (paper 4.2)."""
    warmup = round(spec.warmup_fraction * total_steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def accuracy_pct(adapted: AdaptedModel, pixels: Tensor, labels: Tensor) -> float:
    """Classification accuracy of encoder and classifier, in percent."""
    return 100 * num_correct(adapted, pixels, labels) / len(labels)


def num_correct(adapted: AdaptedModel, pixels: Tensor, labels: Tensor) -> int:
    """How many images the adapted model classifies rightly."""
    embeddings = adapted.model.embed_images(pixels)
    with evaluating(adapted.classifier):
        predicted = adapted.classifier(embeddings).argmax(dim=-1).cpu()
    return int(torch.sum(predicted == labels))


def _train_epoch(
    adapted: AdaptedModel,
    optimizer: torch.optim.Optimizer,
    images: TrainingImages,
    spec: RunSpec,
    epoch: int,
    on_step: OnStep,
) -> tuple[float, float]:
    """Mean loss and accuracy (percent) over the epoch's images; (nan, nan) where it diverged."""
    device = adapted.model.device
    adapted.model.clip.train()
    adapted.classifier.train()
    per_epoch = steps_per_epoch(spec, images)
    order, flips = _order_and_flips(spec, len(images.train_labels), epoch)
    loss_sum, correct = 0.0, 0
    for index, batch in enumerate(torch.split(order, spec.batch_size)):
        step = (epoch - 1) * per_epoch + index
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, spec.epochs * per_epoch, spec)
        pixels = images.train_pixels[batch].to(device)
        if spec.horizontal_flip:
            pixels = torch.where(flips[batch].to(device), pixels.flip(-1), pixels)
        labels = images.train_labels[batch].to(device)
        logits = adapted.logits(pixels)
        loss = functional.cross_entropy(logits, labels)
        if not torch.isfinite(loss):
            return math.nan, math.nan
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if spec.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(adapted.trainable().values(), spec.clip_norm)
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        correct += int((logits.detach().argmax(dim=-1) == labels).sum())
        on_step(step + 1, spec.epochs * per_epoch)
    return loss_sum / len(order), 100 * correct / len(order)


def _order_and_flips(spec: RunSpec, num_images: int, epoch: int) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(derived_seed(spec.seed, "order", epoch))
    order = torch.randperm(num_images, generator=generator)
    flips = torch.rand(num_images, 1, 1, 1, generator=generator) < 0.5
    return order, flips


# ---------------------------------------------------------------- checkpoints


def resume(
    adapted: AdaptedModel, optimizer: torch.optim.Optimizer, spec: RunSpec, checkpoints: Path
) -> Training:
    """Puts weights and optimizer back from the last checkpoint; a fresh start where there is none.

    Raises:
        RecordError: the checkpoint is damaged or another run's.
    """
    path = checkpoints / LAST_FILE
    if not path.exists():
        return Training()
    tensors, metadata = _read_checkpoint(path, spec)
    restore_trainable(adapted, _under("weight.", tensors))
    moments = {name: _under(f"{name}.", tensors) for name in ("exp_avg", "exp_avg_sq")}
    for name, parameter in adapted.trainable().items():
        optimizer.state[parameter] = {
            "step": tensors["step"].clone(),
            **{key: moments[key][name].to(parameter.device) for key in moments},
        }
    return Training(json.loads(metadata["events"]), int(metadata["selected_epoch"]))


def load_weights(adapted: AdaptedModel, path: Path, spec: RunSpec) -> None:
    """Puts the trainable weights of a checkpoint file into the model."""
    tensors, _ = _read_checkpoint(path, spec)
    restore_trainable(adapted, _under("weight.", tensors))


def _note_epoch(
    training: Training,
    event: dict[str, Any],
    adapted: AdaptedModel,
    optimizer: torch.optim.Optimizer,
    spec: RunSpec,
    checkpoints: Path,
) -> None:
    """Takes an epoch into the record: selects it if it is the best, then checkpoints.

    A crash between the two files is harmless: the epoch is repeated and writes them alike.
    """
    training.events.append(event)
    weights = {f"weight.{name}": tensor for name, tensor in trainable_state(adapted).items()}
    metadata = {"run_id": run_id(spec), "epoch": str(event["epoch"])}
    best = training.selected_epoch
    if best is None or event["val_accuracy_pct"] > training.val_accuracy_pct(best):
        training.selected_epoch = int(event["epoch"])
        _write_checkpoint(checkpoints / SELECTED_FILE, weights, metadata)
    tensors = dict(weights)
    for name, parameter in adapted.trainable().items():
        state = optimizer.state[parameter]
        tensors["step"] = state["step"].cpu()
        tensors |= {f"{key}.{name}": state[key].cpu() for key in ("exp_avg", "exp_avg_sq")}
    metadata |= {
        "events": json.dumps(training.events),
        "selected_epoch": str(training.selected_epoch),
    }
    _write_checkpoint(checkpoints / LAST_FILE, tensors, metadata)


def _write_checkpoint(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Whole or not at all, with a digest of its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        save_file(contiguous, temporary, {**metadata, "digest": _digest(contiguous)})
        with Path(temporary).open("rb") as file:
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_checkpoint(path: Path, spec: RunSpec) -> tuple[dict[str, Tensor], dict[str, str]]:
    way_out = f"delete {path.parent} to start this run anew"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RecordError(f"the checkpoint {path} is damaged ({error}); {way_out}") from None
    if metadata.get("run_id") != run_id(spec):
        raise RecordError(
            f"the checkpoint {path} belongs to run {metadata.get('run_id')}, not {run_id(spec)}; "
            f"{way_out}"
        )
    if metadata.get("digest") != _digest(tensors):
        raise RecordError(f"the checkpoint {path} is damaged (its digest is wrong); {way_out}")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
