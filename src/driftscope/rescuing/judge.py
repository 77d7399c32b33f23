"""What every point between two models is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Self

from torch import nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import text_fingerprint
from driftscope.blending import TEXT, Blend, Strength
from driftscope.config import Way
from driftscope.data import PixelSource
from driftscope.errors import DataError, ModelError
from driftscope.estimate import MIN_POOL_IMAGES, Pool, Referee
from driftscope.rescuing.points import Point
from driftscope.rescuing.target import Target
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.scores import Outcome

GRID = (0.2, 0.4, 0.6, 0.8)
HALVINGS = 4
_LEAST_POOL, _MOST_POOL, _ENOUGH_MAY_CHANGE = 400, 2000, 10


def enough_images(keep_pct: float) -> int:
    """How large a pool a budget needs: 10 of the half that judges may lose their answer.

    With fewer, a blend that does little harm cannot be told from one that breaks the budget. It is
    400 images at least, up to a budget of 95 %, and 2,000 at most, from 99 %.
    """
    enough = 2 * _ENOUGH_MAY_CHANGE * 100 / max(100 - keep_pct, 1)
    return min(_MOST_POOL, max(_LEAST_POOL, math.ceil(enough)))


class Judge:
    """Half of the pool, and the target's images.

    Args:
        before, after: both models.
        pool: unlabeled images; every other one is left to searches.
        target: what the model was adapted to.
        kept_head: the classifier that was trained with the adapted model, if it tells the target's
            classes or these are not known.

    Raises:
        ModelError: retention cannot be estimated on the pool.
    """

    def __init__(
        self,
        before: VisionLanguageModel,
        after: VisionLanguageModel,
        pool: Pool,
        target: Target,
        kept_head: nn.Linear | None,
    ) -> None:
        self.pool, self.target, self.kept_head = pool, target, kept_head
        self.judging, self.searching = judging(pool), pool.pixels[0::2]
        self.before = before
        self.referee = referee_of(before, pool)
        self.tuned = after.embed_images(target.pixels).float().cpu()
        self.teacher = kept_head
        if kept_head is None and target.labels is not None:
            self.teacher = target.fitted(self.tuned)
        self._known: dict[tuple[object, ...], Point] = {}

    def estimated(
        self, way: Way, blend: Blend, scale: float, strengths: Mapping[str, Strength]
    ) -> Point:
        """One point, read with its own text tower where that moved.

        What has one strength a group is remembered: a search looks along WiSE-FT's way, too.
        """
        asked = (blend, way, scale, *strengths.items())
        by_group = not any(isinstance(one, Mapping) for one in strengths.values())
        if by_group and asked in self._known:
            return self._known[asked]
        model = blend.set(strengths)
        texts = self.pool.texts_of(model) if strengths.get(TEXT) else None
        found = model.embed_images(self.judging).float().cpu()
        point = Point(way, scale, dict(strengths), self.referee.estimate(found, texts))
        if by_group:
            self._known[asked] = point
        return point

    def on_fewer(self, most: int) -> Self:
        """A judge by at most so many of the images, evenly spaced, if they give an estimate."""
        places = range(0, len(self.judging), math.ceil(len(self.judging) / most))
        referee = self.referee.part(places)
        if len(places) == len(self.judging) or referee.withheld:
            return self
        fewer = copy(self)
        fewer.judging, fewer.referee = self.judging[:: places.step], referee
        fewer._known = {}
        return fewer

    def completed(self, point: Point, blend: Blend) -> tuple[Point, nn.Linear | None]:
        """The point with what it has kept of the target, and a classifier fitted to it anew."""
        model = blend.set(point.strengths)
        found = model.embed_images(self.target.pixels).float().cpu()
        likeness = float(functional.cosine_similarity(found, self.tuned).mean())
        point = replace(point, likeness=likeness)
        if self.target.labels is None:
            return point, None
        accuracy, classifier = self.target.accuracy_of(model, self.kept_head, found)
        return replace(point, accuracy=accuracy), classifier


def outcome_on(
    benchmark: LabelledSet, before: VisionLanguageModel, model: VisionLanguageModel
) -> Outcome:
    """A model's score on a labeled benchmark, read with its own text tower where that moved."""
    embedded = {
        name: model.embed_images(pixels).float().cpu()
        for name, pixels in benchmark.image_sets().items()
    }
    own = text_fingerprint(before) != text_fingerprint(model)
    return benchmark.outcome_from(embedded, model, has_own_texts=own)


def judging(pool: Pool) -> PixelSource:
    """The half of a pool that judges."""
    return pool.pixels[1::2]


def referee_of(before: VisionLanguageModel, pool: Pool) -> Referee:
    """What the pretrained model makes of that half.

    Raises:
        DataError: the half is too small.
        ModelError: retention cannot be estimated on it.
    """
    if len(judging(pool)) < MIN_POOL_IMAGES:
        raise DataError(
            f"the pool {pool.name} gives {len(pool.pixels)} images; one half of them judges, and "
            f"an estimate needs {MIN_POOL_IMAGES}: give {2 * MIN_POOL_IMAGES} or more"
        )
    referee = Referee.of(pool, before.embed_images(judging(pool)).float().cpu())
    if referee.withheld:
        raise ModelError(
            f"retention cannot be estimated on {pool.name}, so no budget can be kept: "
            f"{referee.withheld}"
        )
    return referee
