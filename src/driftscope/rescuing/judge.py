"""What every point between two models is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Self

from torch import nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import text_fingerprint
from driftscope.blending import TEXT, Blend, Strength
from driftscope.config import Way
from driftscope.data import PixelSource
from driftscope.enough_images import enough_images, why_too_few
from driftscope.errors import DataError, ModelError
from driftscope.estimate import MIN_POOL_IMAGES, Pool, Referee
from driftscope.reference import evenly_spaced
from driftscope.rescuing.points import Point
from driftscope.rescuing.target import Target
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.scores import Outcome

GRID = (0.2, 0.4, 0.6, 0.8)
HALVINGS = 4
_LEAST_POOL, _MOST_POOL = 400, 2000
_FEWER_IMAGES = 200


def enough_of_pool(keep_pct: float) -> int | None:
    """How large a pool a budget needs, half of which judges; None where no pool is enough."""
    enough = enough_images(keep_pct)
    return None if enough is None else max(_LEAST_POOL, 2 * enough)


def usual_of_pool(keep_pct: float) -> int:
    """How many images of a pool are read for a budget, if nobody says how many.

    Of 100 % no number is enough: any image that gets another answer breaks it.
    """
    return min(enough_of_pool(keep_pct) or _MOST_POOL, _MOST_POOL)


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
        self.searching = pool.pixels[0::2]
        self.before = before
        self.referee = referee_of(before, pool)
        self.tuned = after.embed_images(target.pixels).float().cpu()
        self.teacher = kept_head
        if kept_head is None and target.labels is not None:
            self.teacher = target.fitted(self.tuned)
        self._known: dict[tuple[object, ...], Point] = {}

    @property
    def judging(self) -> PixelSource:
        """The images that judge."""
        return self.referee.pool.pixels

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

    @cached_property
    def by_fewer(self) -> Self:
        """A judge by at most 200 of the images, evenly spaced, if these give an estimate.

        It is for what need not be exact, such as where a search starts.
        """
        places = evenly_spaced(len(self.judging), _FEWER_IMAGES)
        if len(places) == len(self.judging):
            return self
        referee = self.referee.part(places)
        if referee.withheld:
            return self
        fewer = copy(self)
        fewer.referee, fewer._known = referee, {}
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


def too_few_judge(num_judging: int, keep_pct: float, num_read: int, num_given: int) -> str:
    """Why so many images are too few to judge a budget, and how to mend it; "" where they are not.

    Args:
        num_judging: the images that judge.
        keep_pct: the budget.
        num_read: how many were read of the pool.
        num_given: how many it has.
    """
    why, enough = why_too_few(num_judging, keep_pct), enough_of_pool(keep_pct)
    if not why or enough is None:
        return ""
    mended = f"Give a pool of {enough:,} images"
    if num_read < num_given:
        more = min(enough, num_given)
        mended = f"Read {more:,} of the {num_given:,} images of the pool (--pool-images {more})"
    return (
        f"{why} So a blend that does little harm cannot be told from one that breaks the budget. "
        f"{mended} to keep more of the task."
    )


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
    half = replace(pool, pixels=judging(pool))
    referee = Referee.of(half, before.embed_images(half.pixels).float().cpu())
    if referee.withheld:
        raise ModelError(
            f"retention cannot be estimated on {pool.name}, so no budget can be kept: "
            f"{referee.withheld}"
        )
    return referee
