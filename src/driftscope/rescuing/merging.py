"""Several adapted models of one base become one: soups, Model Stock, task arithmetic, TIES.

Every recipe is a formula on the weights, in float64; adapters are merged first. What comes out is
judged like any point between two models: by estimated retention and, with labels, by a classifier
that is fitted anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from driftscope.adapt.storage import write_hub_layout
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import merged, text_fingerprint
from driftscope.blending import floating_weights, refuse_other_architecture
from driftscope.data.given import Images, warn_of
from driftscope.data.prompts import prompt_rules
from driftscope.errors import ConfigError, ModelError, did_you_mean
from driftscope.estimate import Estimate, Pool, make_pool
from driftscope.files import followed, whole_folder
from driftscope.records import write_json
from driftscope.related_models import ordered_models
from driftscope.report.merge_page import write_merge_page
from driftscope.rescuing.judge import judging, referee_of
from driftscope.rescuing.target import Accuracy, Target, open_target

Recipe = Literal["uniform", "greedy", "stock", "arithmetic", "ties"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
MERGE_FILE = "merge.json"
ARITHMETIC_SCALE, TIES_KEPT = 0.3, 0.2
"""Task arithmetic's usual factor; the share of a task vector's entries that TIES keeps."""

State = Mapping[str, Tensor]


# ---------------------------------------------------------------- formulas, in float64


def uniform_soup(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of the models' weights (Wortsman et al. 2022)."""
    return {name: torch.stack([one[name] for one in states]).mean(dim=0) for name in states[0]}


def model_stock(base: State, states: Sequence[State]) -> dict[str, Tensor]:
    """Between base and mean by the angle of the changes (Jang et al. 2024, 2403.19522).

    For every tensor t·mean + (1 − t)·base, with t = N cos θ / (1 + (N − 1) cos θ), θ the angle
    between two changes: its cosine is the mean over pairs. A t below 0, where changes point away
    from each other, counts as 0.
    """
    mean, count, found = uniform_soup(states), len(states), {}
    for name, start in base.items():
        changes = [(one[name] - start).flatten() for one in states]
        pairs = list(combinations(changes, 2))
        cosine = sum(float(_cosine(*pair)) for pair in pairs) / len(pairs)
        below = 1 + (count - 1) * cosine
        share = max(0.0, count * cosine / below) if below > 0 else 0.0
        found[name] = share * mean[name] + (1 - share) * start
    return found


def task_arithmetic(base: State, states: Sequence[State], scale: float) -> dict[str, Tensor]:
    """base + scale · Σ changes (Ilharco et al. 2023, 2212.04089)."""
    return {
        name: start + scale * sum((one[name] - start for one in states), torch.zeros_like(start))
        for name, start in base.items()
    }


def ties(base: State, states: Sequence[State], scale: float, kept: float) -> dict[str, Tensor]:
    """base + scale · the agreed change (Yadav et al. 2023, 2306.01708).

    Of every model's change the largest share `kept` of entries is left, over all weights together.
    An entry's sign is that of the sum; the change is the mean of the entries that are left and have
    that sign.
    """
    trimmed = [_trimmed({name: one[name] - base[name] for name in base}, kept) for one in states]
    found = {}
    for name, start in base.items():
        changes = torch.stack([one[name] for one in trimmed])
        sign = changes.sum(dim=0).sign()
        agrees = (changes.sign() == sign) & (changes != 0)
        total = torch.where(agrees, changes, 0.0).sum(dim=0)
        found[name] = start + scale * total / agrees.sum(dim=0).clamp_min(1)
    return found


def _trimmed(change: State, kept: float) -> dict[str, Tensor]:
    sizes = torch.cat([one.abs().flatten() for one in change.values()])
    count = max(1, round(kept * len(sizes)))
    threshold = sizes.kthvalue(len(sizes) - count + 1).values
    return {
        name: torch.where((one.abs() >= threshold) & (one != 0), one, 0.0)
        for name, one in change.items()
    }


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    length = one.norm() * other.norm()
    return one @ other / length if length > 0 else torch.zeros((), dtype=one.dtype)


# ---------------------------------------------------------------- merging


@dataclass(frozen=True)
class Judged:
    """A model as it was judged; None what was not asked for."""

    name: str
    estimate: Estimate | None
    accuracy: Accuracy | None

    def to_dict(self) -> dict[str, Any]:
        """The judgement as JSON values."""
        return {
            "name": self.name,
            "estimate": self.estimate.to_dict() if self.estimate else None,
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
        }


@dataclass(frozen=True, eq=False)
class Merge:
    """A merged model with its ingredients.

    Attributes:
        recipe: how it was merged.
        base: the pretrained model, as it is called.
        ingredients: the models that are in it.
        judged: the base, every model that was given, and the merged one.
        model: the merged one.
    """

    recipe: Recipe
    base: str
    ingredients: tuple[str, ...]
    judged: tuple[Judged, ...]
    model: VisionLanguageModel = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The merge as JSON values."""
        return {
            "kind": "merge",
            "recipe": self.recipe,
            "base": self.base,
            "ingredients": list(self.ingredients),
            "judged": [one.to_dict() for one in self.judged],
        }

    def save(self, folder: Path | str) -> None:
        """Writes the model in hub layout, with `merge.json`, whole or not at all.

        Where retention and accuracy were judged the page `report.html` is beside them.
        """
        told = self.to_dict()
        with whole_folder(followed(folder)) as partial:
            write_hub_layout(self.model, partial)
            write_json(partial / MERGE_FILE, told)
            write_merge_page(told, partial)


def merge(
    models: Sequence[str | Path | VisionLanguageModel],
    base: str | Path | VisionLanguageModel,
    *,
    by: Recipe = "uniform",
    scale: float | None = None,
    kept: float = TIES_KEPT,
    pool: Images | None = None,
    classes: str | Path | Sequence[str] | None = None,
    images: Images | None = None,
    max_images: int = 200,
    pool_images: int | None = 400,
    device: str | None = None,
) -> Merge:
    """One model of several that were adapted from one base.

    Args:
        models: two or more, as `compare` takes an adapted one.
        base: the pretrained model of all.
        by: `uniform` or `greedy` soup, `stock` (Model Stock), `arithmetic`, `ties`.
        scale: what the joint change is multiplied by, in `arithmetic` (0.3) and `ties` (1).
        kept: the share of each change's entries that `ties` keeps.
        pool, classes: as `compare` takes them; retention is estimated.
        images: a labeled dataset of the target, which `greedy` needs: a model is added where that
            does not lower the accuracy of a classifier fitted anew.
        max_images: as for `rescue`.
        pool_images: how many are read at most; None for all.
        device: where models given by name run.

    Raises:
        ConfigError: fewer than two models, an unknown recipe, or one that lacks what it needs.
        ModelError: a model was adapted from another base, is of another architecture, or equals
            the base or another.
    """
    _check(models, by, scale, kept, images)
    pairs = [ordered_models(base, one, device) for one in models]
    before, adapted = pairs[0][0], [after for _, after in pairs]
    first = floating_weights(before)
    states = []
    for one in adapted:
        refuse_other_architecture(before, one)
        states.append(_doubled(floating_weights(one)))
    _refuse_equals([before, *adapted], [_doubled(first), *states])
    start, kinds = _doubled(first), {name: one.dtype for name, one in first.items()}
    target = None if images is None else open_target(images, before, max_images, models)
    if by == "greedy" and (target is None or target.labels is None):
        raise ConfigError(f"a greedy soup needs labels, and {images} has none; give a labeled set")
    warn_of(target.doubts if target else ())
    unlabeled = pool and make_pool(before, pool, classes, prompt_rules(None, None), pool_images)
    judge = _Judge(before, unlabeled or None, target)

    def built(state: State) -> VisionLanguageModel:
        module = copy.deepcopy(merged(before).module)
        own = dict(module.state_dict())
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor.to(kinds[name]))
        return replace(merged(before), module=module.eval(), source=f"{by} of {len(states)} models")

    judged = [judge(one) for one in (before, *adapted)]
    chosen = list(range(len(states)))
    if by == "greedy":
        chosen, result = _greedy(states, judged[1:], lambda state: judge(built(state)))
    else:
        result = _recipe(by, start, states, scale, kept)
    model = built(result)
    return Merge(
        recipe=by,
        base=before.source,
        ingredients=tuple(adapted[at].source for at in chosen),
        judged=(*judged, judge(model)),
        model=model,
    )


def _check(
    models: Sequence[object], by: str, scale: float | None, kept: float, images: object
) -> None:
    if len(models) < 2:
        raise ConfigError(f"{len(models)} model(s) cannot be merged; give two or more")
    if by not in RECIPES:
        raise ConfigError(f"there is no recipe {by!r}: {did_you_mean(by, RECIPES)}")
    if scale is not None and by not in ("arithmetic", "ties"):
        raise ConfigError(f"{by} has no scale; scale is for arithmetic and ties")
    if scale is not None and not math.isfinite(scale):
        raise ConfigError(f"scale is {scale}; give a number, such as 0.3")
    if not 0 < kept <= 1:
        raise ConfigError(f"kept is {kept:g}; give a share above 0 and at most 1, such as 0.2")
    if by == "greedy" and images is None:
        raise ConfigError("a greedy soup needs a labeled dataset of the target; give images")


def _refuse_equals(models: Sequence[VisionLanguageModel], states: Sequence[State]) -> None:
    """Raises ModelError where a model is the base (the first), or is given twice."""
    for (one, first), (other, second) in combinations(zip(models, states, strict=True), 2):
        if all(torch.equal(first[name], second[name]) for name in first):
            of_base = "the base" if one is models[0] else "another of the models"
            raise ModelError(
                f"{other.source} equals {of_base} ({one.source}) to the bit, so it adds nothing; "
                "give each adapted model once"
            )


def _recipe(
    by: Recipe, base: State, states: Sequence[State], scale: float | None, kept: float
) -> dict[str, Tensor]:
    if by == "stock":
        return model_stock(base, states)
    if by == "arithmetic":
        return task_arithmetic(base, states, ARITHMETIC_SCALE if scale is None else scale)
    if by == "ties":
        return ties(base, states, 1.0 if scale is None else scale, kept)
    return uniform_soup(states)


def _greedy(
    states: Sequence[State], judged: Sequence[Judged], judge: Callable[[State], Judged]
) -> tuple[list[int], State]:
    """The best model, then each next one that does not lower the accuracy of the soup."""

    def accuracy(one: Judged) -> float:
        return -1.0 if one.accuracy is None else one.accuracy.choosing_pct

    order = sorted(range(len(states)), key=lambda at: -accuracy(judged[at]))
    chosen, best = [order[0]], accuracy(judged[order[0]])
    for at in order[1:]:
        found = accuracy(judge(uniform_soup([states[one] for one in (*chosen, at)])))
        if found >= best:
            chosen, best = [*chosen, at], found
    return chosen, uniform_soup([states[at] for at in chosen])


class _Judge:
    """Retention by a pool, accuracy by labels; either where it is given."""

    def __init__(
        self, before: VisionLanguageModel, pool: Pool | None, target: Target | None
    ) -> None:
        self.own = text_fingerprint(before)
        self.target = target
        self.by_pool = None if pool is None else referee_of(before, pool)
        self.pool = pool

    def __call__(self, model: VisionLanguageModel) -> Judged:
        estimate = accuracy = None
        if self.pool is not None and self.by_pool is not None:
            texts = None if text_fingerprint(model) == self.own else self.pool.texts_of(model)
            found = model.embed_images(judging(self.pool)).float().cpu()
            estimate = self.by_pool.estimate(found, texts)
        if self.target is not None and self.target.labels is not None:
            accuracy, _ = self.target.accuracy_of(model, None)
        return Judged(model.source, estimate, accuracy)


def _doubled(state: State) -> dict[str, Tensor]:
    return {name: one.double() for name, one in state.items()}
