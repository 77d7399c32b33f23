"""Training: one visible loop, paired across methods, resumable to the bit.

All randomness of an epoch (order, flips, dropout) comes from the run's seed and the epoch's
number. So runs of one seed see the same images in the same order whatever the method or rate,
and an epoch repeated after a crash is the same epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from driftscope.adapt import AdaptedModel, derived_seed, seeded
from driftscope.backbones import find_image_tower
from driftscope.budget import Keeper, Look, fit_classifier
from driftscope.checkpoints import Checkpoints, Training
from driftscope.config import RunSpec
from driftscope.data import PixelRows
from driftscope.errors import ConfigError, NonFiniteError
from driftscope.image_views import mirrored
from driftscope.interventions import Interventions
from driftscope.reference import Embedded
from driftscope.regularize import Regularization


@dataclass(frozen=True)
class TrainingImages:
    """What is trained on: uint8 pixels at the model's size, and class indices.

    The pixels lie on the GPU, or stay in the cache that all processes map; each batch is gathered
    from there. `features` are the embeddings by an encoder that does not change, of each image as
    it is and flipped; a run that trains the classifier alone reads them in the pixels' place.
    """

    pixels: PixelRows
    labels: Int64[Tensor, " image"]
    features: Float[Tensor, "flip image dim"] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What one look at the model found: numbers for the history, and the whole record."""

    val_accuracy_pct: float
    scalars: dict[str, Any]
    record: dict[str, Any]


Evaluate = Callable[[Embedded | None], Evaluation]
"""Looks at the model; images of the pool that a look embedded just before need no second pass."""
OnEvent = Callable[[dict[str, Any]], None]
OnStep = Callable[[int, int], None]
"""Told the steps done and the steps in all."""


@dataclass(frozen=True)
class _Task:
    """What stays the same from step to step."""

    adapted: AdaptedModel
    images: TrainingImages
    spec: RunSpec
    evaluate: Evaluate | None
    optimizer: torch.optim.Optimizer
    regularization: Regularization | None
    keeper: Keeper | None = None
    interventions: Interventions | None = None

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.spec, self.images)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What is optimised; to list it at every step would be a sixth of a linear probe."""
        return list(self.adapted.trainable().values())

    @property
    def total_steps(self) -> int:
        return self.spec.epochs * self.steps_per_epoch


def train(
    adapted: AdaptedModel,
    images: TrainingImages,
    spec: RunSpec,
    checkpoints: Checkpoints,
    evaluate: Evaluate,
    *,
    regularization: Regularization | None = None,
    keeper: Keeper | None = None,
    interventions: Interventions | None = None,
    on_resume: Callable[[list[dict[str, Any]]], None] = lambda _events: None,
    on_event: OnEvent = lambda _event: None,
    on_step: OnStep = lambda _done, _total: None,
    elapsed: Callable[[], dict[str, float]] = dict,
) -> Training:
    """Trains to the last epoch, from the checkpoint if there is one.

    At the end `adapted` holds the last epoch's weights, and `checkpoints` those of the
    selected epoch (highest validation accuracy, the earliest of equals) and of the last. Epochs
    that were not held to a budget which is looked after at the end alone are not selected.
    `keeper` holds the model to a retention budget, `interventions` undo or bound parts of what is
    trained; what they restore is so in the evaluations, not in the checkpoints. A loss, a gradient
    or an output that is not finite ends the training as diverged, with the weights of the last
    good epoch. `elapsed` tells the wall seconds of this process so far; a checkpoint keeps them,
    added to those of the processes before.

    Raises:
        ConfigError: an option does not fit the device or the number of steps.
        RecordError: a checkpoint cannot be read or written.
    """
    _check_options(adapted, images, spec)
    optimizer = make_optimizer(adapted, spec)
    task = _Task(adapted, images, spec, evaluate, optimizer, regularization, keeper, interventions)
    training = checkpoints.resume(adapted, optimizer)
    if keeper is not None:
        keeper.resume(training.events)
    on_resume(training.events)

    def note(event: dict[str, Any]) -> None:
        training.events.append(event)
        on_event(event)

    if spec.compile:
        # a graph for each size of batch: else the first smaller batch would make one for all sizes,
        # and a resumed process, which has not met that batch yet, would run other kernels
        find_image_tower(adapted.model.module).module.compile(dynamic=False)
    while training.epoch < spec.epochs:
        epoch = training.epoch + 1
        try:
            with seeded(adapted.model.device, spec.seed, "epoch", epoch):
                means = _train_epoch(task, epoch, note, on_step)
            means |= _keep_budget(task, epoch, note)
            pool = keeper.seen if keeper else None
            seen = _evaluated(task, evaluate, epoch, epoch * task.steps_per_epoch, note, pool)
        except NonFiniteError as error:
            training.diverged = True
            note({"kind": "diverged", "epoch": epoch, "reason": str(error)})
            break
        place = {"epoch": epoch, "step": epoch * task.steps_per_epoch}
        accuracy = {"val_accuracy_pct": seen.val_accuracy_pct}
        event = {"kind": "epoch", **place, **means, **accuracy, **seen.scalars}
        training.events.append(event)
        training.last = {**place, **accuracy, **seen.record}
        best = training.selected
        is_held = keeper is None or keeper.is_due_after_epoch(place["step"])
        if is_held and (best is None or seen.val_accuracy_pct > best["val_accuracy_pct"]):
            training.selected = training.last
        checkpoints.save(adapted, optimizer, training, training.with_earlier(elapsed()))
        on_event(event)
    if training.diverged and training.epoch:
        checkpoints.load_last(adapted)
        if keeper is not None and training.selected is None:
            training.selected = training.last = _held(task, keeper, evaluate, training.epoch, note)
    return training


def fit_head(adapted: AdaptedModel, images: TrainingImages, spec: RunSpec) -> None:
    """Trains a classifier for all epochs of a spec, without evaluation or checkpoint.

    The first stage of LP-FT. A loss that is not finite is left to the second stage to notice.
    """
    task = _Task(adapted, images, spec, None, make_optimizer(adapted, spec), None)
    for epoch in range(1, spec.epochs + 1):
        try:
            with seeded(adapted.model.device, spec.seed, "head", epoch):
                _train_epoch(task, epoch, lambda _event: None, lambda _done, _total: None)
        except NonFiniteError:
            return


def make_optimizer(adapted: AdaptedModel, spec: RunSpec) -> torch.optim.AdamW:
    """AdamW over everything trainable; norms and biases are decayed as the spec says."""
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for name, parameter in adapted.trainable().items():
        # peft's learned scales have two dimensions, and no decay toward 0 suits a scale of 1
        is_matrix = parameter.ndim > 1 and ".ia3_l." not in name
        (decayed if is_matrix or spec.decay_norms_and_biases else spared).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": spec.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    fused = adapted.model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=fused)


def steps_per_epoch(spec: RunSpec, images: TrainingImages) -> int:
    """Optimizer steps in an epoch; the last batch may be smaller."""
    return math.ceil(len(images.labels) / spec.batch_size)


def learning_rate_at(step: int, total_steps: int, spec: RunSpec) -> float:
    """The rate of step 0…total−1: linear warmup, then cosine to 0 (paper 4.2)."""
    warmup = round(spec.warmup_fraction * total_steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def probe_steps(spec: RunSpec, total_steps: int) -> frozenset[int]:
    """The steps after which the model is evaluated, besides the ends of epochs.

    Raises:
        ConfigError: a listed step lies beyond the last.
    """
    if spec.probe_at == "epoch":
        return frozenset()
    if spec.probe_at == "log":
        return frozenset(2**power for power in range(total_steps.bit_length()))
    if isinstance(spec.probe_at, int):
        return frozenset(range(spec.probe_at, total_steps + 1, spec.probe_at))
    beyond = [step for step in spec.probe_at if step > total_steps]
    if beyond:
        raise ConfigError(
            f"probe_at lists step {beyond[0]}, but the run has {total_steps} steps; "
            "list steps from 1 up to that"
        )
    return frozenset(spec.probe_at)


# ---------------------------------------------------------------- an epoch


def _train_epoch(task: _Task, epoch: int, note: OnEvent, on_step: OnStep) -> dict[str, float]:
    """Trains on every image once; the means over images of loss, accuracy and penalty."""
    spec, labels, evaluate = task.spec, task.images.labels, task.evaluate
    order, flips = _order_and_flips(spec, len(labels), epoch)
    probed = probe_steps(spec, task.total_steps) if evaluate else frozenset()
    task.adapted.train()
    loss_sum = penalty_sum = 0.0
    correct = 0
    for index, batch in enumerate(torch.split(order, spec.batch_size)):
        step = (epoch - 1) * task.steps_per_epoch + index + 1
        loss, penalty, hits = _train_step(task, batch, flips, step)
        loss_sum += loss * len(batch)
        penalty_sum += penalty * len(batch)
        correct += hits
        _intervene(task, epoch, step, note)
        on_step(step, task.total_steps)
        ends_epoch = step % task.steps_per_epoch == 0  # looked at and evaluated anyway
        if task.keeper and task.keeper.is_due(step) and not ends_epoch:
            _look(task, task.keeper, epoch, step, note)
        if evaluate and step in probed and not ends_epoch:
            seen = _evaluated(task, evaluate, epoch, step, note)
            place = {"kind": "probe", "epoch": epoch, "step": step, "train_loss": loss}
            note({**place, "val_accuracy_pct": seen.val_accuracy_pct, **seen.scalars})
    means = {"train_loss": loss_sum / len(order), "train_accuracy_pct": 100 * correct / len(order)}
    if task.regularization is not None and task.regularization.is_active:
        means["penalty"] = penalty_sum / len(order)
    return means


def _keep_budget(task: _Task, epoch: int, note: OnEvent) -> dict[str, float]:
    """Keeps the budget at an epoch's end if a look is due; what the history holds of it."""
    step = epoch * task.steps_per_epoch
    if task.keeper is None or not task.keeper.is_due_after_epoch(step):
        return {}
    is_last = epoch == task.spec.epochs
    look = _shrunk(task, task.keeper, epoch, step, note, is_last=is_last)
    return {"budget_strength": look.strength, "rate_factor": look.rate_factor}


def _held(
    task: _Task, keeper: Keeper, evaluate: Evaluate, epoch: int, note: OnEvent
) -> dict[str, Any]:
    """The record of an epoch whose model is held to the budget only now, as no later one came."""
    step = epoch * task.steps_per_epoch
    _shrunk(task, keeper, epoch, step, note, is_last=True)
    seen = _evaluated(task, evaluate, epoch, step, note)
    place = {"epoch": epoch, "step": step, "val_accuracy_pct": seen.val_accuracy_pct}
    return {**place, **seen.record}


def _shrunk(
    task: _Task, keeper: Keeper, epoch: int, step: int, note: OnEvent, *, is_last: bool
) -> Look:
    """A look; after a shrink that no training follows the classifier is fitted anew."""
    look = _look(task, keeper, epoch, step, note)
    if look.strength < 1 and is_last:
        with _undisturbed(task):
            fit_classifier(task.adapted, task.images.pixels, task.images.labels)
    return look


def _look(task: _Task, keeper: Keeper, epoch: int, step: int, note: OnEvent) -> Look:
    with _undisturbed(task):
        look = keeper.look(step)
    note({**look.to_event(), "epoch": epoch})
    task.adapted.train()
    return look


def _train_step(
    task: _Task, batch: Int64[Tensor, " image"], flips: Tensor, step: int
) -> tuple[float, float, int]:
    """One optimizer step; the batch's mean loss, its penalty, and how many it had right."""
    spec, optimizer = task.spec, task.optimizer
    optimizer.zero_grad(set_to_none=True)
    loss_sum = penalty_sum = 0.0
    hits = 0
    for chosen in torch.chunk(batch, spec.micro_batches):
        share = len(chosen) / len(batch)
        loss, penalty, logits, labels = _forward(task, chosen, flips[chosen], step)
        total = loss if penalty is None else loss + penalty
        (share * total).backward()  # type: ignore[no-untyped-call]
        loss_sum += share * loss.item()
        penalty_sum += 0.0 if penalty is None else share * penalty.item()
        hits += int((logits.detach().argmax(dim=-1) == labels).sum())
    if not math.isfinite(loss_sum + penalty_sum):
        raise NonFiniteError(f"the loss is {loss_sum + penalty_sum} at step {step}")
    if spec.clip_norm is None:
        norm = get_total_norm([p.grad for p in task.parameters if p.grad is not None])
    else:
        norm = clip_grad_norm_(task.parameters, spec.clip_norm)
    if not torch.isfinite(norm):
        raise NonFiniteError(f"the gradient is not finite at step {step}")
    rate = learning_rate_at(step - 1, task.total_steps, spec) * _rate_factor(task, loss_sum)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss_sum, penalty_sum, hits


def _rate_factor(task: _Task, loss: float) -> float:
    """What the scheduled learning rate of a step is multiplied by."""
    by_budget = task.keeper.rate_factor if task.keeper else 1.0
    return by_budget * (task.interventions.rate_factor(loss) if task.interventions else 1.0)


def _forward(
    task: _Task, chosen: Tensor, flips: Tensor, step: int
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Mean loss and penalty of some images, their logits and labels."""
    adapted, spec, device = task.adapted, task.spec, task.adapted.model.device
    labels = task.images.labels[chosen].to(device)
    penalty = None
    if task.images.features is not None:
        embeddings = task.images.features[flips.long(), chosen].to(device)
        loss, logits = adapted.loss_and_logits(embeddings, labels, spec.label_smoothing)
        return loss, penalty, logits, labels
    pixels = mirrored(task.images.pixels[chosen].to(device), flips)
    regularization = task.regularization
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"),
        regularization.watching() if regularization else nullcontext(),
    ):
        embeddings = adapted.model.image_embeddings(pixels)
        loss, logits = adapted.loss_and_logits(embeddings, labels, spec.label_smoothing)
        if regularization is not None and regularization.is_active:
            penalty = regularization.penalty(pixels, embeddings, step)
    return loss, penalty, logits, labels


def _order_and_flips(spec: RunSpec, num_images: int, epoch: int) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(derived_seed(spec.seed, "order", epoch))
    order = torch.randperm(num_images, generator=generator)
    flips = torch.rand(num_images, generator=generator) < 0.5
    return order, flips if spec.horizontal_flip else torch.zeros_like(flips)


def _intervene(task: _Task, epoch: int, step: int, note: OnEvent) -> None:
    if task.interventions is not None:
        for event in task.interventions.after_step(step, task.optimizer):
            note({**event, "epoch": epoch, "step": step})


def _evaluated(
    task: _Task,
    evaluate: Evaluate,
    epoch: int,
    step: int,
    note: OnEvent,
    pool: Embedded | None = None,
) -> Evaluation:
    with _undisturbed(task):
        if task.interventions is None:
            return evaluate(pool)
        with task.interventions.in_force() as events:
            for event in events:
                note({**event, "epoch": epoch, "step": step})
            return evaluate(None if events else pool)  # by another model, where a part went back


@contextmanager
def _undisturbed(task: _Task) -> Iterator[None]:
    """Leaves the training as it was: random state, compiled graphs."""
    device = task.adapted.model.device
    uncompiled: AbstractContextManager[Any] = (
        torch.compiler.set_stance("force_eager") if task.spec.compile else nullcontext()
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), uncompiled:
        yield


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 gains anything; a CPU without its instructions takes 100 times longer."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda"


def _check_options(adapted: AdaptedModel, images: TrainingImages, spec: RunSpec) -> None:
    device = adapted.model.device
    if spec.precision == "bfloat16" and not _multiplies_bfloat16(device):
        raise ConfigError(
            "precision bfloat16 needs a CUDA device or a CPU with bfloat16 instructions "
            f"(avx512_bf16 or amx), but this run is on a {device.type} without; "
            "use precision: float32"
        )
    probe_steps(spec, spec.epochs * steps_per_epoch(spec, images))
