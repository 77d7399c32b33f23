"""What interventions do to a training: parts go back to W₀, stay there, or are held small.

Each does one thing at a stated time and leaves everything else as it was, to the bit: a reset
right after an optimizer step, a bound after every step, a restoration around every look at the
model. What is frozen has never moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from driftscope.adapt import AdaptedModel, restore_trainable
from driftscope.adapt.parts import trained_parts
from driftscope.config import RunSpec
from driftscope.config.interventions import Freeze, LossAdaptiveRate, MaxNorm, Reset, Restore
from driftscope.errors import ConfigError, ModelError

INTERVENTION_EVENT = "intervention"


def freeze(adapted: AdaptedModel, spec: RunSpec) -> None:
    """Takes what the spec freezes out of what is trained; before the optimizer is made.

    Raises:
        ModelError: there is nothing of it to freeze, or nothing of the encoder is left to train.
    """
    for one in spec.interventions:
        if isinstance(one, Freeze):
            for parameter in trained_parts(adapted, one).values():
                parameter.requires_grad_(False)
            if adapted.encoder_is_frozen:
                raise ModelError(
                    f"{one.label} leaves nothing of the encoder to train; use linear_probe"
                )


@dataclass(frozen=True)
class _Back:
    """The way of a part back to W₀.

    Attributes:
        label: the intervention's.
        start: the part's trained weights by name, before the first step.
        after_step: when; 0 for whenever the model is looked at.
    """

    label: str
    start: Mapping[str, Tensor]
    after_step: int = 0

    @classmethod
    def of(cls, adapted: AdaptedModel, spec: Reset | Restore, after_step: int = 0) -> _Back:
        parts = trained_parts(adapted, spec)
        start = {name: one.detach().clone() for name, one in parts.items()}
        return cls(spec.label, start, after_step)

    def go(self, trained: Mapping[str, nn.Parameter]) -> float:
        """Puts the part back; the Frobenius norm of what its weights had moved by."""
        squares = [
            (trained[name].detach().double() - before.double()).square().sum()
            for name, before in self.start.items()
        ]
        with torch.no_grad():
            for name, before in self.start.items():
                trained[name].copy_(before)
        return float(torch.stack(squares).sum().sqrt())


@dataclass(eq=False)
class Interventions:
    """The interventions of one training.

    Args:
        adapted: the model before its first step, with what is frozen already so.
        spec: the run's.
        steps_per_epoch: optimizer steps.
        refit_classifier: fits the linear classifier to the encoder as it now is.

    Raises:
        ModelError: the model or its method has not what an intervention acts on.
        ConfigError: a reset comes at the last step or later, so that no training follows.
    """

    adapted: AdaptedModel
    spec: RunSpec
    steps_per_epoch: int
    refit_classifier: Callable[[], None]
    _bounded: int = field(default=0, init=False)
    _factors: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        kinds = self.spec.interventions
        self._resets = [
            _Back.of(self.adapted, one, one.step_of(self.steps_per_epoch))
            for one in kinds
            if isinstance(one, Reset)
        ]
        self._restored = [_Back.of(self.adapted, one) for one in kinds if isinstance(one, Restore)]
        self._bounds = [one for one in kinds if isinstance(one, MaxNorm)]
        self._rates = [one for one in kinds if isinstance(one, LossAdaptiveRate)]
        total = self.spec.epochs * self.steps_per_epoch
        for back in self._resets:
            if back.after_step >= total:
                raise ConfigError(
                    f"{back.label} comes after step {back.after_step}, but the run has {total} "
                    "steps and training must go on after it; give an earlier time"
                )

    def rate_factor(self, loss: float) -> float:
        """What the learning rate of a step is multiplied by, from its batch's loss; in (0, 1]."""
        if not self._rates:
            return 1.0
        shares = (one.loss_nats / loss for one in self._rates if loss > one.loss_nats)
        factor = math.sqrt(min(shares, default=1.0))
        self._factors.append(factor)
        return factor

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
        """What is done after an optimizer step, and what tells it, without its place."""
        events = []
        for back in self._resets:
            if back.after_step == step:
                moved = back.go(self.adapted.trainable())
                self._forget_momentum(back, optimizer)
                events.append(_event(back.label, undone_norm=moved))
        for bound in self._bounds:
            self._bounded += _shrink_to(self.adapted, bound.share)
        if step % self.steps_per_epoch == 0:
            events += [_event(one.label, num_shrunk=self._bounded) for one in self._bounds]
            events += [_event(one.label, mean_factor=fmean(self._factors)) for one in self._rates]
            self._bounded, self._factors = 0, []
        return events

    def _forget_momentum(self, back: _Back, optimizer: torch.optim.Optimizer) -> None:
        trained = self.adapted.trainable()
        for name in back.start:
            optimizer.state[trained[name]]["exp_avg"].zero_()

    @contextmanager
    def in_force(self) -> Iterator[list[dict[str, Any]]]:
        """The model as it is looked at: what is to be restored at W₀. Training goes on without.

        Gives what tells it, without its place.
        """
        if not self._restored:
            yield []
            return
        reached = {name: one.detach().clone() for name, one in self.adapted.trainable().items()}
        try:
            yield self.restore()
        finally:
            restore_trainable(self.adapted, reached)

    def restore(self) -> list[dict[str, Any]]:
        """Puts what is to be restored to W₀ for good, and tells it."""
        trained = self.adapted.trainable()
        events = [_event(back.label, undone_norm=back.go(trained)) for back in self._restored]
        if events:
            self.refit_classifier()
        return events


def _event(label: str, **facts: float) -> dict[str, Any]:
    return {"kind": INTERVENTION_EVENT, "intervention": label, **facts}


def _shrink_to(adapted: AdaptedModel, share: float) -> int:
    """Shrinks each layer's (α/r)·BA to `share` of its base's norm, by B; how many it had to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    num_shrunk = 0
    with torch.no_grad():
        for layer in adapted.model.plain.modules():
            if not isinstance(layer, BaseTunerLayer):
                continue
            tuner: Any = layer
            for name in tuner.active_adapters:
                a, b = tuner.lora_A[name].weight, tuner.lora_B[name].weight
                # ‖BA‖² = ⟨BᵀB, AAᵀ⟩: two matrices of the rank's size
                norm = ((b.T @ b) * (a @ a.T)).sum().clamp_min(0).sqrt() * tuner.scaling[name]
                most = share * tuner.get_base_layer().weight.norm()
                if norm > most:
                    b.mul_(most / norm)
                    num_shrunk += 1
    return num_shrunk
