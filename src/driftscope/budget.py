"""Training under a retention budget: looks that act.

Between steps the pretrained model judges the model in training on unlabeled images (`estimate.py`).
Where the budget is not kept, the trained change is shrunk towards W₀ until it is (`project`), or
the learning rate falls so far that the forecast of the end keeps it (`rate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from driftscope.adapt import AdaptedModel
from driftscope.adapt.trained_delta import TrainedDelta
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import mean_strength
from driftscope.budget_path import ChoicePath
from driftscope.budget_search import SearchedShrink, TrainedTask, kept_of_others
from driftscope.config import BudgetSpec
from driftscope.data import PixelRows
from driftscope.errors import ConfigError, ModelError, NonFiniteError
from driftscope.estimate import Estimate, Referee
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.reference import Embedded, evenly_spaced
from driftscope.signals.label_free import zero_shot_logits
from driftscope.transfer.features import linear_classifier

BUDGET_EVENT = "budget"
_TRIES, _MOST_TRIES = 2, 8
"""Shares looked at where one keeps the budget, and where none does. Before the end one is enough:
training goes on from there, and the next look finds what it left."""
_SCALES = 4
"""Scales looked at on the way from nothing to the searched strengths."""
_CLOSE_PCT = 1.0
"""A share that keeps the budget by no more than this is the largest one, near enough."""
_FIRST_FIT_SHARE, _LEAST_FIRST_FIT, _MOST_FIRST_FIT = 4, 200, 400
_LEAST_FALL = 0.5
"""Where both ways act, a look lets the rate fall to no less than this share of it."""

_Shrunk: TypeAlias = tuple[float, Estimate, Tensor]
"""The share of the change that is left, what it keeps, and the pool's embeddings there."""


@dataclass(frozen=True)
class Look:
    """What one look at the model in training found, and what was done.

    Attributes:
        step: optimizer steps done.
        found: the estimate before anything was done.
        kept: the estimate of the model that training goes on with.
        strength: share of the trained change that was left, in [0, 1]; 1 where nothing was done,
            and of searched strengths the mean over rows.
        rate_factor: what every later learning rate is multiplied by, in [0, 1].
    """

    step: int
    found: Estimate
    kept: Estimate
    strength: float
    rate_factor: float

    def __str__(self) -> str:
        """Such as "step 40: 33.7 % (27.0 to 40.4); shrunk to 0.25 of the change: 97.0 % (94 …)"."""
        told = f"step {self.step}: {_told(self.found)}"
        if self.strength < 1:
            told += f"; shrunk to {self.strength:.2f} of the change: {_told(self.kept)}"
        if self.rate_factor < 1:
            told += f"; learning rates times {self.rate_factor:.2g} from here on"
        return told

    def to_event(self) -> dict[str, Any]:
        """The look as a line of the run's events; retention in percent."""
        return {
            "kind": BUDGET_EVENT,
            "step": self.step,
            "found_retention_pct": self.found.retention_pct,
            "found_low_90_pct": self.found.low_90_pct,
            "kept_retention_pct": self.kept.retention_pct,
            "kept_low_90_pct": self.kept.low_90_pct,
            "budget_strength": self.strength,
            "rate_factor": self.rate_factor,
        }


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step before any fall: `rate_of` 0…total−1, and their number."""

    rate_of: Callable[[int], float]
    total_steps: int

    @cached_property
    def _sums(self) -> list[float]:
        """Of the rates before each step: a look may come at every one."""
        return list(accumulate(map(self.rate_of, range(self.total_steps)), initial=0.0))

    def spent(self, first: int, last: int) -> float:
        """Sum of the rates of the steps from `first` up to, and without, `last`."""
        return self._sums[last] - self._sums[first]


@dataclass(eq=False)
class Keeper:
    """Keeps one training within its budget.

    Args:
        current: the model in training, as it now is.
        trained: what is trained, by name, before the first step; with it the classifier, which goes
            back with the encoder and so still fits it.
        referee: the pretrained model's view of the pool.
        spec: the budget.
        schedule: of the learning rate; only `rate` and `both` need it.
        text_tower_is_frozen: whether the class prompts keep their pretrained embeddings.
        task: what searched strengths keep of the training; only they need it.

    Raises:
        ConfigError: the pool gives no estimate, or leaves too few images to a search.
        ModelError: the method's change cannot be shrunk.
    """

    current: Callable[[], VisionLanguageModel]
    trained: Mapping[str, nn.Parameter]
    referee: Referee
    spec: BudgetSpec
    schedule: Schedule | None = None
    text_tower_is_frozen: bool = True
    task: TrainedTask | None = None
    rate_factor: float = field(default=1.0, init=False)
    seen: Embedded | None = field(default=None, init=False)
    """What the last look embedded, by the model that it left."""

    def __post_init__(self) -> None:
        self._places = evenly_spaced(len(self.referee.logits), self.spec.images)
        whole, self.referee = self.referee, self.referee.part(self._places)
        if self.referee.withheld:
            raise ConfigError(
                f"a budget of {self.spec.retention_pct:g} % cannot be kept, for retention is not "
                f"estimated: {self.referee.withheld}"
            )
        self._delta = (
            None if self.spec.by == "rate" else TrainedDelta.of(self.trained, self.current().module)
        )
        self._search = None
        if self.spec.strengths == "searched" and self._delta is not None:
            if self.task is None:
                raise ConfigError("searched strengths need images of the task and a classifier")
            keep = kept_of_others(whole, self._places, self.spec.retention_pct)
            self._search = SearchedShrink(self._delta, keep, self.task)
        self._last = (0, 100.0)

    def resume(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Takes up the rate and the damage where the events of the training so far left them."""
        looks = [event for event in events if event.get("kind") == BUDGET_EVENT]
        if looks:
            self.rate_factor = float(looks[-1]["rate_factor"])
            self._last = (int(looks[-1]["step"]), float(looks[-1]["kept_low_90_pct"]))

    def is_due(self, step: int) -> bool:
        """Whether the budget is looked after within an epoch, after so many steps."""
        every = self.spec.every
        return isinstance(every, int) and step % every == 0

    def is_due_after_epoch(self, step: int) -> bool:
        """Whether it is looked after at the end of an epoch, after so many steps."""
        return self.spec.every != "end" or not self._goes_on_after(step)

    def look(self, step: int) -> Look:
        """Looks at the model, and acts where the budget is not kept.

        Raises:
            NonFiniteError: the model has diverged.
            ModelError: the budget is not kept even with nothing of the change left.
        """
        embeddings = self._embedded()
        cosines = self._cosines(embeddings)
        found = kept = self._judged(cosines)
        if self.spec.by != "project" and self.schedule is not None:
            self._let_rate_fall(self.schedule, step, found)
        strength = 1.0
        if self._delta is not None and _low(found) < self.spec.retention_pct:
            path = ChoicePath(self.referee, cosines)
            tries = 1 if self._goes_on_after(step) else _TRIES
            reached = self._delta.reached(self.trained)
            shrunk = self._shrink(self._delta, reached, path, tries)
            if self._search is not None:
                shrunk = self._shrink_by_rows(self._search, reached, shrunk, step)
            strength, kept, embeddings = shrunk
        self._last = (step, _low(kept))
        self.seen = Embedded(self._places, embeddings)
        return Look(step, found, kept, strength, self.rate_factor)

    def estimate(self) -> Estimate:
        """What the model keeps as it now is; raises `NonFiniteError` where it has diverged."""
        return self._judged(self._cosines(self._embedded()))

    def _embedded(self) -> Float[Tensor, "image dim"]:
        """The pool's images by the model as it now is."""
        embeddings = self.current().embed_images(self.referee.pool.pixels).float().cpu()
        if not bool(torch.isfinite(embeddings).all()):
            raise NonFiniteError("the pool's image embeddings have NaN or infinite values")
        return embeddings

    def _cosines(self, embeddings: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Of the pool's images to its classes."""
        pool = self.referee.pool
        is_frozen = self.text_tower_is_frozen
        texts = pool.text_embeddings if is_frozen else pool.texts_of(self.current())
        return zero_shot_logits(embeddings, texts, 1.0)

    def _judged(self, cosines: Float[Tensor, "image class"]) -> Estimate:
        return self.referee.judge(cosines.argmax(dim=1))

    def _goes_on_after(self, step: int) -> bool:
        """Whether training is known to have more steps."""
        return self.schedule is not None and step < self.schedule.total_steps

    def _shrink(
        self, delta: TrainedDelta, reached: Mapping[str, Tensor], path: ChoicePath, tries: int
    ) -> _Shrunk:
        """The largest share whose estimate keeps the budget, near enough; it is left so.

        With what it keeps, and the pool's embeddings there. `tries` are enough where one keeps it.
        """
        budget = self.spec.retention_pct
        good, bad, kept = 0.0, 1.0, None
        for tried in range(_MOST_TRIES):
            if tried >= tries and kept is not None:
                break
            share = path.largest(budget, good, bad)
            delta.set(self.trained, reached, share)
            embeddings = self._embedded()
            path.known[share] = self._cosines(embeddings)
            now = self._judged(path.known[share])
            if _low(now) < budget:
                bad = share
                continue
            good, kept = share, (now, embeddings)
            if _low(now) <= budget + _CLOSE_PCT:
                break
        delta.set(self.trained, reached, good)
        return (good, *(kept or self._with_nothing_left()))

    def _shrink_by_rows(
        self, search: SearchedShrink, reached: Mapping[str, Tensor], uniform: _Shrunk, step: int
    ) -> _Shrunk:
        """Shrinks what was reached by searched strengths where the task is served by that.

        Where no scale of them keeps the budget, or the task keeps more by the uniform share, the
        model is left by that one.
        """
        share = uniform[0]
        before = search.accuracy(self.current())
        search.delta.set(self.trained, reached, 1.0)
        found = search.strengths(self.current(), self.trained, reached, share, seed=step)
        shrunk = self._last_that_keeps(search.delta, reached, found)
        if shrunk is None or search.accuracy(self.current()) < before:
            search.delta.set(self.trained, reached, share)
            return uniform
        return shrunk

    def _last_that_keeps(
        self, delta: TrainedDelta, reached: Mapping[str, Tensor], found: Mapping[str, Tensor]
    ) -> _Shrunk | None:
        """Leaves strengths, times the largest scale that keeps the budget; None without one."""
        good, bad, best = 0.0, 2.0, None  # so that the first scale is 1
        for _ in range(_SCALES):
            scale = (good + bad) / 2
            rows = {name: scale * one for name, one in found.items()}
            delta.set(self.trained, reached, mean_strength(rows), rows)
            embeddings = self._embedded()
            now = self._judged(self._cosines(embeddings))
            if _low(now) < self.spec.retention_pct:
                bad = scale
                continue
            good, best = scale, (rows, now, embeddings)
            if scale == 1:
                break
        if best is None:
            return None
        rows, now, embeddings = best
        delta.set(self.trained, reached, mean_strength(rows), rows)
        return mean_strength(rows), now, embeddings

    def _with_nothing_left(self) -> tuple[Estimate, Tensor]:
        """The estimate where no share kept the budget, and nothing of the change is left."""
        embeddings = self._embedded()
        now = self._judged(self._cosines(embeddings))
        if _low(now) < self.spec.retention_pct:
            raise ModelError(
                f"the budget of {self.spec.retention_pct:g} % cannot be kept: with every trained "
                f"weight back where it was when the budget was made, {_told(now)} is left. Make "
                "the budget before the first step, and after requires_grad_ has said what is "
                "trained"
            )
        return now, embeddings

    def _let_rate_fall(self, schedule: Schedule, step: int, found: Estimate) -> None:
        last_step, before = self._last
        affordable = affordable_factor(
            left=_low(found) - self.spec.retention_pct,
            damage=before - _low(found),
            spent=self.rate_factor * schedule.spent(last_step, step),
            ahead=schedule.spent(step, schedule.total_steps),
        )
        least = 0.0 if self._delta is None else _LEAST_FALL * self.rate_factor
        self.rate_factor = min(self.rate_factor, max(affordable, least))


def affordable_factor(*, left: float, damage: float, spent: float, ahead: float) -> float:
    """What all rates ahead may be multiplied by, so that the end keeps the budget; in [0, 1].

    Damage is taken as linear in the sum of learning rates.

    Args:
        left: points of retention above the budget; none below 0.
        damage: points lost since the last look; nothing is forecast where none were.
        spent: the sum of learning rates since then.
        ahead: the sum of all rates to come, before any fall.
    """
    if damage <= 0 or spent <= 0 or ahead <= 0:
        return 1.0
    return min(1.0, max(0.0, left) * spent / (damage * ahead))


def _told(estimate: Estimate) -> str:
    numbers = (estimate.retention_pct, estimate.low_90_pct, estimate.high_90_pct)
    value, low, high = (METRICS[ESTIMATED].text(number) for number in numbers)
    return f"{value} % ({low} to {high})"


def _low(estimate: Estimate) -> float:
    return math.nan if estimate.low_90_pct is None else estimate.low_90_pct


def first_fit_images(num_training: int) -> int:
    """How many training images fit the classifier that a training under a budget starts with.

    A share of them, so that it costs the same part of every training; all of a small set.
    """
    share = math.ceil(num_training / _FIRST_FIT_SHARE)
    return min(num_training, _MOST_FIRST_FIT, max(_LEAST_FIRST_FIT, share))


def fit_classifier(
    adapted: AdaptedModel,
    pixels: PixelRows,
    labels: Int64[Tensor, " image"],
    at_most: int | None = None,
) -> None:
    """Fits the linear classifier to the encoder as it now is, on evenly spaced images.

    On all images, where those would leave out a class: it would start as one that never is.
    """
    if adapted.classifier is None:
        return
    places = list(evenly_spaced(len(labels), at_most))
    if set(labels[places].tolist()) != set(labels.tolist()):
        places = list(range(len(labels)))
    features = adapted.model.embed_images(pixels.select(places)).float().cpu()
    fitted = linear_classifier(features, labels[places].cpu(), len(adapted.classifier.bias))
    adapted.classifier.load_state_dict(fitted.state_dict())
