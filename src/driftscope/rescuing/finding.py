"""The search along each way, and the choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state, refuse_non_finite
from driftscope.blending import Blend
from driftscope.config import Way
from driftscope.data.given import Images, as_typed
from driftscope.data.prompts import prompt_rules
from driftscope.errors import ConfigError, ModelError, did_you_mean
from driftscope.estimate import class_lists, make_pool
from driftscope.related_models import ordered_models
from driftscope.rescuing import ways
from driftscope.rescuing.apart import measured_apart
from driftscope.rescuing.judge import (
    GRID,
    HALVINGS,
    Judge,
    outcome_on,
    too_few_judge,
    usual_of_pool,
)
from driftscope.rescuing.kinds import Chosen
from driftscope.rescuing.points import USUAL, WAYS, Point, chosen_of, last_that_keeps
from driftscope.rescuing.result import Rescue
from driftscope.rescuing.target import (
    Final,
    KeptClassifier,
    Target,
    answered,
    kept_classifier,
    open_target,
)
from driftscope.transfer import transfer_names
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.features import labelled_sets


def rescue(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    images: Images,
    pool: Images,
    classes: str | Path | Sequence[str] | None = None,
    *,
    keep_pct: float = 95,
    by: Sequence[Way] | Way = USUAL,
    transfer: str | Sequence[str] = (),
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
    max_images: int = 200,
    pool_images: int | Literal["auto"] | None = "auto",
    transfer_images: int | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Rescue:
    """The best model between two that keeps a retention budget, with confidence.

    Args:
        pretrained, adapted: as `compare` takes them. A run's folder gives its classifier, too.
        images: of the target. Where they are a labeled dataset, a classifier is fitted to its
            training split; one half of its test split chooses, the other half reports. Where they
            are unlabeled, agreement with the classifier beside the adapted model is wanted of
            them, and without one likeness of the embeddings.
        pool, classes, class_words, templates: as `compare` takes them; half of the pool is for the
            search, the other half judges.
        keep_pct: the budget: the lower end of the estimate's 90 % interval, from 1 to 100.
        by: `search` (a strength of its own for every row of a weight, found for this budget),
            `lines` (strengths that rise with depth), `wise` (one strength), `layers` (groups are
            tuned whole, one after the other, the least harmful first); of several the best point
            is chosen.
        transfer: labeled datasets on which the chosen model's retention is measured.
        max_images: how many images are read at most; with labels, up to twice this number from
            each split, and without them up to four times as many where a classifier answers.
        pool_images: how many are read at most; "auto" for as many as the budget needs
            (`judge.usual_of_pool`), None for all.
        transfer_images: how many are read at most of each dataset; None for all.
        device: where models given by name run.
        seed: of the search.

    Raises:
        ConfigError: a budget or a way that there is not.
        ModelError: the two do not belong together or are equal, the pool gives no estimate, or no
            point of any use keeps the budget.
    """
    chosen_ways, num_pool = _checked(keep_pct, by), _num_pool(pool_images, keep_pct)
    rules = prompt_rules(class_words, templates)
    before, after = ordered_models(pretrained, adapted, device)
    _refuse_other_size(before, after)
    refuse_non_finite(encoder_state(after))
    unlabeled = make_pool(before, pool, classes, rules, num_pool)
    given = labelled_sets(transfer_names(transfer), before, transfer_images, rules)
    rules.refuse_if_unused(class_lists(given, unlabeled))
    benchmarks = [measured_apart(one, unlabeled) for one in given]
    kept, notes = _fitting(kept_classifier(adapted), before.embedding_dim)
    target = open_target(images, before, max_images, [adapted], has_classifier=kept is not None)
    if kept is not None and target.labels is None:
        target = answered(target, after, kept)
    head, doubts = None, target.doubts
    if kept is not None and (notes := _told_of_other_classes(kept, target)) == ():
        head, doubts = kept.classifier, (*doubts, *_doubts_of_classes(kept, target))
    blend = Blend(before, after)
    if not blend.moves_images:
        chosen_ways, notes = ("wise",), (*notes, _TEXTS_ALONE)
    judge = Judge(before, after, unlabeled, target, head)
    found = _Found(blend, judge, keep_pct)
    for way in chosen_ways:
        found.look_along(way, seed)
    chosen, alike = found.best()
    chosen, classifier = judge.completed(chosen, blend)
    final = probe = None
    if target.labels is not None:
        final, probe, classifier = _final(target, blend, chosen, head)
    measured = {one.name: _measured(one, before, blend, chosen) for one in benchmarks}
    return Rescue(
        keep_pct=keep_pct,
        chosen=chosen,
        alike=alike,
        points=tuple(found.points),
        pretrained=found.pretrained,
        adapted=found.adapted,
        final=final,
        transfer=measured,
        notes=notes,
        target_doubts=doubts,
        classifier=classifier,
        probe=probe,
        class_names=target.class_names,
        origin=Chosen(before, adapted, blend, chosen.strengths),
        num_pool=len(unlabeled.pixels),
        num_pool_given=unlabeled.num_given,
        num_fitted=len(target.pixels) if target.labels is not None else 0,
        asked={
            "images": as_typed(images, "IMAGES"),
            "pool": as_typed(pool, "IMAGES"),
            "classes": as_typed(classes, "NAMES"),
        },
    )


class _Found:
    """The points that were looked at."""

    def __init__(self, blend: Blend, judge: Judge, keep_pct: float) -> None:
        self.blend, self.judge, self.keep_pct = blend, judge, keep_pct
        self.points: list[Point] = []
        self.pretrained, self.adapted = (self._whole("wise", end, blend.uniform) for end in (0, 1))

    def _whole(self, way: Way, scale: float, path: ways.Path) -> Point:
        point = self.judge.estimated(way, self.blend, scale, path(scale))
        return self.judge.completed(point, self.blend)[0]

    def look_along(self, way: Way, seed: int) -> None:
        """Points at some scales of a way, and closer ones to find the last that keeps the budget.

        The closer ones are judged by retention alone, but for the last.
        """
        path = ways.path_of(way, self.blend, self.judge, self.keep_pct, seed)
        seen = [replace(self.pretrained, way=way)]
        seen += [self._whole(way, scale, path) for scale in GRID]
        last = replace(self.adapted, way=way)
        if last.is_blend:
            last = self._whole(way, 1.0, path)
        self.points += [*seen, last]
        self.points += self._closer(way, path, [*seen, last])

    def _closer(self, way: Way, path: ways.Path, seen: Sequence[Point]) -> Iterator[Point]:
        known = {one.scale: one for one in seen}

        def ask(scale: float) -> Point:
            return self.judge.estimated(way, self.blend, scale, path(scale))

        found = last_that_keeps(self.keep_pct, known, ask, HALVINGS)
        if all(found.scale != one.scale for one in seen):
            yield self.judge.completed(found, self.blend)[0]

    def best(self) -> tuple[Point, tuple[Point, ...]]:
        """The best point that keeps the budget, and the others that are as good within noise.

        Raises:
            ModelError: there is none of any use.
        """
        if not self.blend.moves_images:
            return self._furthest(), ()
        kept = [
            one
            for one in self.points
            if one.keeps(self.keep_pct) and one.is_useful(self.pretrained)
        ]
        if not kept:
            raise self._nothing_keeps()
        return chosen_of(kept)

    def _furthest(self) -> Point:
        """The largest strength that keeps the budget: of a text tower alone nothing else counts."""
        point = max((one for one in self.points if one.keeps(self.keep_pct)), key=_scale_of)
        if point.scale == 0:
            raise self._nothing_keeps()
        return point

    def _nothing_keeps(self) -> ModelError:
        return ModelError(
            f"no useful strength keeps {self.keep_pct:g} % of the zero-shot ability: what "
            "keeps it is the pretrained model, or nearly so; give a smaller budget, or train "
            f"anew by a gentler method or rate{self._or_more_images()}"
        )

    def _or_more_images(self) -> str:
        """What else a pool that is too small for the budget lets one do."""
        pool = self.judge.pool
        read, given = len(pool.pixels), pool.num_given
        few = too_few_judge(len(self.judge.judging), self.keep_pct, read, given)
        return f". {few}".rstrip(".") if few else ""


def _scale_of(point: Point) -> float:
    return point.scale


def _final(
    target: Target, blend: Blend, chosen: Point, head: nn.Linear | None
) -> tuple[Final, nn.Linear, nn.Linear]:
    """What both ends and the chosen model are worth to the task; the probe, and the classifier."""
    whole = target.whole or target
    ends = (blend.uniform(0.0), blend.uniform(1.0), chosen.strengths)
    (first, probe), (tuned, _), (ours, classifier) = (
        whole.accuracy_of(blend.set(strengths), head) for strengths in ends
    )
    return Final(len(whole.pixels), first, tuned, ours), probe, classifier


def _checked(keep_pct: float, by: Sequence[Way] | Way) -> tuple[Way, ...]:
    if not 1 <= keep_pct <= 100:
        raise ConfigError(
            f"keep is {keep_pct:g}; give a budget in percent, from 1 to 100, such as 95"
        )
    named: tuple[Way, ...] = (by,) if isinstance(by, str) else tuple(by)
    for way in named:
        if way not in WAYS:
            raise ConfigError(f"there is no way {way!r}: {did_you_mean(way, WAYS)}")
    return tuple(way for way in WAYS if way in named) or USUAL


_TEXTS_ALONE = (
    "other ways than wise, as the text tower alone has changed: it has one strength, and what the "
    "model makes of the target's images is the same at each"
)


def _num_pool(pool_images: int | str | None, keep_pct: float) -> int | None:
    if not isinstance(pool_images, str):
        return pool_images
    if pool_images != "auto":
        raise ConfigError(
            f"pool_images is {pool_images!r}; give a whole number, 'auto' for as many as the "
            "budget needs, or None for all"
        )
    return usual_of_pool(keep_pct)


def _refuse_other_size(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    if before.image_size != after.image_size:
        raise ModelError(
            f"{before.source} reads images of {before.image_size} pixels and {after.source} of "
            f"{after.image_size}; only models of one size can be blended"
        )


def _fitting(
    kept: KeptClassifier | None, dim: int
) -> tuple[KeptClassifier | None, tuple[str, ...]]:
    """The classifier beside the adapted model if it reads such embeddings, and what is not."""
    if kept is None or kept.classifier.in_features == dim:
        return kept, ()
    return None, (
        f"the classifier beside the adapted model, which reads {kept.classifier.in_features} "
        f"numbers of an image, where the model gives {dim}",
    )


def _doubts_of_classes(kept: KeptClassifier, target: Target) -> tuple[str, ...]:
    """What is doubtful of a classifier whose classes nothing names."""
    if kept.class_names is not None or target.labels is None or target.labels.are_answers:
        return ()
    return (
        "nothing names the classes of the classifier beside the adapted model. It has as many as "
        f"{target.name}, and is taken to tell these in this order",
    )


def _told_of_other_classes(kept: KeptClassifier, target: Target) -> tuple[str, ...]:
    """That the classifier beside the adapted model is of no use here, if it is of none.

    Where the target's classes are not known, a search learns what it makes of the adapted model's
    embeddings.
    """
    labels = target.labels
    if labels is None or labels.are_answers or kept.is_of(labels.class_names):
        return ()
    return (
        f"the classifier beside the adapted model tells other classes than {target.name}, so it "
        "was not measured there",
    )


def _measured(
    benchmark: LabelledSet, before: VisionLanguageModel, blend: Blend, chosen: Point
) -> dict[str, Any]:
    """What the rescued and the adapted model have kept on a labeled benchmark, as JSON values."""
    first = outcome_on(benchmark, before, before)
    tuned, ours = (
        outcome_on(benchmark, before, blend.set(strengths))
        for strengths in (blend.uniform(1.0), chosen.strengths)
    )
    return {
        "pretrained": first.score.to_dict(),
        "adapted": benchmark.change(tuned, first),
        "rescued": ours.score.to_dict(),
        **benchmark.change(ours, first),
    }
