"""From knowing the damage to undoing it: strengths of a fine-tuning that keep a retention budget.

Between the pretrained and the adapted model lie models that keep more of the one and of the other
(`blending.py`). A way gives a path of strengths from 0 up. The rescued model is the strongest point
of it whose estimated retention keeps the budget with the lower end of its interval. No label of
any kind is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from driftscope.adapt import export_merged
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import TEXT, Blend, ImagePath
from driftscope.comparison import related_models
from driftscope.data.given import Images, some_pixels
from driftscope.data.prompts import prompt_rules
from driftscope.errors import ConfigError, ModelError, did_you_mean
from driftscope.estimate import Estimate, Pool, Referee, make_pool
from driftscope.records import write_json

Way = Literal["search", "lines", "wise"]
WAYS: tuple[Way, ...] = get_args(Way)
RESCUE_FILE = "rescue.json"
_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_HALVINGS = 5
_STEPS, _BATCH, _RATE = 60, 48, 0.15
_USEFUL = 0.05
"""Below this likeness to the adapted model, beyond the pretrained one's, nothing was kept of it."""


@dataclass(frozen=True)
class Point:
    """One model between two.

    Attributes:
        way: how its strengths came about.
        scale: where it lies on the way, from 0 (pretrained) to 1.
        strengths: α of each group.
        estimate: of its retention, from the pool.
        likeness: of its image embeddings of the target to the adapted model's, mean cosine.
    """

    way: Way
    scale: float
    strengths: Mapping[str, float]
    estimate: Estimate
    likeness: float

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON values."""
        return {**asdict(self), "estimate": self.estimate.to_dict()}


@dataclass(frozen=True, eq=False)
class Rescue:
    """What came out: the chosen point, the ways that were tried, and the model itself.

    Attributes:
        keep_pct: the budget.
        chosen: the point that keeps it and is most like the adapted model.
        points: every point that was looked at.
        pretrained_likeness: what the pretrained model has of the adapted one's embeddings.
        model: the chosen model, a plain one.
    """

    keep_pct: float
    chosen: Point
    points: tuple[Point, ...]
    pretrained_likeness: float
    model: VisionLanguageModel = field(repr=False)

    def frontier(self) -> list[dict[str, Any]]:
        """A row a point: way, scale, estimated retention with its interval, likeness."""
        return [
            {
                "way": one.way,
                "scale": one.scale,
                "estimated_retention_pct": one.estimate.retention_pct,
                "low_90_pct": one.estimate.low_90_pct,
                "high_90_pct": one.estimate.high_90_pct,
                "likeness": one.likeness,
            }
            for one in self.points
        ]

    def sentence(self) -> str:
        """What was kept of both models."""
        one = self.chosen
        gained = one.likeness - self.pretrained_likeness
        share = 100 * gained / max(1 - self.pretrained_likeness, 1e-9)
        return (
            f"By {one.way} at scale {one.scale:.2f}: {one.estimate.sentence()} On the target "
            f"{share:.0f} % of the change of the image embeddings is kept (cosine to the adapted "
            f"model {one.likeness:.3f}, of the pretrained one {self.pretrained_likeness:.3f}). "
            "A classifier on these embeddings must be fitted again."
        )

    def to_dict(self) -> dict[str, Any]:
        """The rescue as JSON values."""
        return {
            "kind": "rescue",
            "keep_pct": self.keep_pct,
            "sentence": self.sentence(),
            "pretrained_likeness": self.pretrained_likeness,
            "chosen": self.chosen.to_dict(),
            "points": [one.to_dict() for one in self.points],
        }

    def save(self, folder: Path) -> None:
        """Writes the rescued model in hub layout, with `rescue.json` in the folder."""
        export_merged(self.model, folder)
        write_json(folder / RESCUE_FILE, self.to_dict())


def rescue(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    images: Images,
    pool: Images,
    classes: str | Path | Sequence[str] | None = None,
    *,
    keep_pct: float = 95,
    by: Sequence[Way] | Way = WAYS,
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
    max_images: int = 200,
    pool_images: int | None = 400,
    device: str | None = None,
    seed: int = 0,
) -> Rescue:
    """The strongest model between two that keeps a retention budget, with confidence.

    Args:
        pretrained, adapted: as `compare` takes them.
        images: unlabeled images of the target, on which likeness to the adapted model is wanted.
        pool, classes, class_words, templates: as `compare` takes them; half of the pool is for the
            search, the other half judges.
        keep_pct: the budget: the lower end of the estimate's 90 % interval, above 0 and below 100.
        by: `search` (a strength of its own for every group), `lines` (strengths that rise with
            depth), `wise` (one strength); of several the best point is chosen.
        max_images, pool_images: how many images are read at most.
        device: where models given by name run.
        seed: of the search.

    Raises:
        ConfigError: a budget or a way that there is not.
        ModelError: the two do not belong together or are equal, the pool gives no estimate, or no
            point of any use keeps the budget.
    """
    ways = _checked(keep_pct, by)
    before, after = related_models(pretrained, adapted, device)
    if before.image_size != after.image_size:
        raise ModelError(
            f"{before.source} reads images of {before.image_size} pixels and {after.source} of "
            f"{after.image_size}; only models of one size can be blended"
        )
    unlabeled = make_pool(before, pool, classes, prompt_rules(class_words, templates), pool_images)
    _, target = some_pixels(images, before.framing, max_images, "images")
    blend = Blend(before, after)
    judge = _Judge(before, after, unlabeled, target)
    paths = {way: _path(way, blend, judge, seed) for way in ways}
    points = [
        one
        for way, strengths in paths.items()
        for one in judge.along(way, blend, strengths, keep_pct)
    ]
    kept = [one for one in points if _keeps(one, keep_pct)]
    chosen = max(kept, key=lambda one: one.likeness, default=None)
    if chosen is None or chosen.likeness < judge.pretrained_likeness + _USEFUL * (
        1 - judge.pretrained_likeness
    ):
        raise ModelError(
            f"no useful strength keeps {keep_pct:g} % of the zero-shot ability: what keeps it is "
            "the pretrained model, or nearly so; give a smaller budget, or train anew by a gentler "
            "method or rate"
        )
    model = blend.set(chosen.strengths)
    return Rescue(keep_pct, chosen, tuple(points), judge.pretrained_likeness, model)


def _checked(keep_pct: float, by: Sequence[Way] | Way) -> tuple[Way, ...]:
    if not 0 < keep_pct < 100:
        raise ConfigError(
            f"keep is {keep_pct:g}; give a budget in percent, above 0 and below 100, such as 95"
        )
    ways: tuple[Way, ...] = (by,) if isinstance(by, str) else tuple(by)
    for way in ways:
        if way not in WAYS:
            raise ConfigError(f"there is no way {way!r}: {did_you_mean(way, WAYS)}")
    return ways or WAYS


def _keeps(point: Point, keep_pct: float) -> bool:
    low = point.estimate.low_90_pct
    return low is not None and low >= keep_pct


class _Judge:
    """What every point is judged by: half of the pool, and the target's images."""

    def __init__(
        self,
        before: VisionLanguageModel,
        after: VisionLanguageModel,
        pool: Pool,
        target: UInt8[Tensor, "image 3 size size"],
    ) -> None:
        self.pool, self.target = pool, target
        self.judging = pool.pixels[1::2]
        self.searching = pool.pixels[0::2]
        self.before = before
        self.referee = Referee.of(pool, before.embed_images(self.judging).float().cpu())
        if self.referee.withheld:
            raise ModelError(
                f"retention cannot be estimated on {pool.name}, so no budget can be kept: "
                f"{self.referee.withheld}"
            )
        self.tuned = functional.normalize(after.embed_images(target).float(), dim=-1)
        self.pretrained_likeness = self._likeness(before)

    def _likeness(self, model: VisionLanguageModel) -> float:
        found = functional.normalize(model.embed_images(self.target).float(), dim=-1)
        return float((found * self.tuned).sum(dim=-1).mean())

    def point(self, way: Way, blend: Blend, scale: float, strengths: Mapping[str, float]) -> Point:
        """One point, read with its own text tower where that moved."""
        model = blend.set(strengths)
        texts = self.pool.texts_of(model) if strengths.get(TEXT) else None
        estimate = self.referee.estimate(model.embed_images(self.judging).float().cpu(), texts)
        return Point(way, scale, dict(strengths), estimate, self._likeness(model))

    def along(
        self,
        way: Way,
        blend: Blend,
        strengths: Callable[[float], Mapping[str, float]],
        keep_pct: float,
    ) -> Iterator[Point]:
        """Points at every tenth of a way, and closer ones at the last that keeps the budget."""
        seen = [self.point(way, blend, scale, strengths(scale)) for scale in _GRID]
        yield from seen
        good = max((one.scale for one in seen if _keeps(one, keep_pct)), default=0.0)
        bad = min((one.scale for one in seen if one.scale > good), default=good)
        for _ in range(_HALVINGS if bad > good else 0):
            middle = (good + bad) / 2
            one = self.point(way, blend, middle, strengths(middle))
            yield one
            good, bad = (middle, bad) if _keeps(one, keep_pct) else (good, middle)


def _path(
    way: Way, blend: Blend, judge: _Judge, seed: int
) -> Callable[[float], Mapping[str, float]]:
    """The strengths at every scale of a way."""
    if way == "wise":
        return blend.uniform
    if way == "lines":
        return blend.linear_in_depth
    found = _searched(blend, judge, seed)
    return lambda scale: {group: scale * strength for group, strength in found.items()}


def _searched(blend: Blend, judge: _Judge, seed: int) -> dict[str, float]:
    """Strengths that keep the pretrained distributions on the pool and the tuned target embeddings.

    Adam on the strengths' logits; the loss is KL(p₀ ‖ p) on images of the pool plus the squared
    distance of the target's normalised embeddings to the adapted model's, each over its value for
    the other end: 1 where everything is lost. The text tower goes as a whole with the projection.
    """
    model = blend.set(blend.uniform(0.0))
    path = ImagePath(model)
    texts = functional.normalize(judge.pool.text_embeddings, dim=-1)
    generator = torch.Generator().manual_seed(seed)
    names = {n: g for g, group in blend.delta.groups.items() for n in group if g != TEXT}
    order = [group for group in blend.groups if group != TEXT]
    logits = torch.zeros(len(order), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=_RATE)
    scale = judge.pool.logit_scale

    def embedded(strengths: Tensor, pixels: Tensor) -> Float[Tensor, "image dim"]:
        at = {group: strengths[index] for index, group in enumerate(order)}
        weights = {f"inner.{n}": blend.between(n, at[group]) for n, group in names.items()}
        found: Tensor = functional_call(path, weights, (model.normalise(pixels),))
        return functional.normalize(found.float(), dim=-1)

    def losses(strengths: Tensor, pool: Tensor, at: Tensor) -> Tensor:
        before = (scale * kept[pool] @ texts.T).log_softmax(dim=-1)
        after = (scale * embedded(strengths, judge.searching[pool]) @ texts.T).log_softmax(dim=-1)
        kl = (before.exp() * (before - after)).sum(dim=-1).mean()
        away = (embedded(strengths, judge.target[at]) - judge.tuned[at]).pow(2).sum(dim=-1).mean()
        return torch.stack([kl, away])

    def some(count: int) -> Tensor:
        return torch.randperm(count, generator=generator)[:_BATCH]

    with torch.no_grad():
        kept = functional.normalize(judge.before.embed_images(judge.searching).float(), dim=-1)
        first = some(len(judge.searching)), some(len(judge.target))
        ends = [losses(torch.full((len(order),), end), *first) for end in (1.0, 0.0)]
        worst = torch.stack([ends[0][0], ends[1][1]]).clamp_min(1e-9)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        found = losses(logits.sigmoid(), some(len(judge.searching)), some(len(judge.target)))
        torch.autograd.backward((found / worst).sum())
        optimizer.step()
    strengths = dict(zip(order, logits.detach().sigmoid().tolist(), strict=True))
    if TEXT in blend.groups:
        strengths[TEXT] = sum(strengths.values()) / len(strengths)
    return {group: strengths[group] for group in blend.groups}
