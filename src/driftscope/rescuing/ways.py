"""Ways from the pretrained to the adapted model: the strengths at every scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from driftscope.blending import TEXT, Blend, ImagePath, Strength, mean_strength, num_rows
from driftscope.config import Way
from driftscope.data import PixelSource
from driftscope.estimate import Referee
from driftscope.rescuing.judge import Judge

Path = Callable[[float], Mapping[str, Strength]]
STEPS, BATCH = 60, 48
_STRENGTH_RATE, _HEAD_RATE = 0.15, 0.02


def path_of(way: Way, blend: Blend, judge: Judge, seed: int) -> Path:
    """The strengths at every scale of a way, from 0 at scale 0."""
    if way == "wise":
        return blend.uniform
    if way == "lines":
        return blend.linear_in_depth
    if way == "layers":
        return one_by_one(least_harmful_first(blend, judge))
    return through(searched(blend, judge, seed))


def least_harmful_first(blend: Blend, judge: Judge) -> list[str]:
    """The groups by the retention that they cost, on the half of the pool that does not judge.

    What a group costs is the mean of what it loses alone and what is regained without it.
    """
    kept = judge.before.embed_images(judge.searching).float().cpu()
    referee = Referee.of(judge.pool, kept)

    def retention(tuned: set[str]) -> float:
        model = blend.set(dict.fromkeys(tuned, 1.0))
        texts = judge.pool.texts_of(model) if TEXT in tuned else None
        found = referee.estimate(model.embed_images(judge.searching).float().cpu(), texts)
        return found.retention_pct or 0.0

    groups = set(blend.groups)
    ends = retention(set()), retention(groups)
    cost = {
        group: (ends[0] - retention({group})) + (retention(groups - {group}) - ends[1])
        for group in blend.groups
    }
    return sorted(blend.groups, key=lambda group: cost[group])


def one_by_one(order: Sequence[str]) -> Path:
    """The first groups tuned whole, the next one partly, the others not at all."""

    def at(scale: float) -> dict[str, float]:
        done = scale * len(order)
        return {group: min(1.0, max(0.0, done - place)) for place, group in enumerate(order)}

    return at


def through(strengths: Mapping[str, Strength]) -> Path:
    """From nothing by these strengths, at scale ½, to everything: α raised to (1 − s) / s."""

    def at(scale: float) -> dict[str, Strength]:
        if scale in (0, 1):
            return dict.fromkeys(strengths, float(scale))
        power = (1 - scale) / scale
        return {group: _raised(one, power) for group, one in strengths.items()}

    return at


def _raised(strength: Strength, power: float) -> Strength:
    if isinstance(strength, Mapping):
        return {name: rows**power for name, rows in strength.items()}
    return float(strength**power)


def searched(blend: Blend, judge: Judge, seed: int) -> dict[str, Strength]:
    """Strengths that keep the pretrained distributions on the pool and the adapted choices.

    Every row of every weight has its own: with one for a whole group, where damage and task sit in
    the same group, neither can be had without the other.

    Adam on the strengths' logits, and on a linear head that is trained along. The loss is
    KL(p₀ ‖ p) on images of the pool, plus KL(t ‖ h) on the target's: t is what the adapted model's
    classifier makes of its embeddings, h the head on the blend's. Where there is no classifier, the
    second part is the squared distance of the normalised embeddings. Either part is over its value
    at the end where everything of it is lost, if there the loss has no head. The text tower, where
    it moved, goes by the mean of the others.
    """
    search = _Search(blend, judge)
    generator = torch.Generator().manual_seed(seed)
    logits = {name: torch.zeros(rows, requires_grad=True) for name, rows in search.rows.items()}
    parameters: list[dict[str, object]] = [{"params": list(logits.values()), "lr": _STRENGTH_RATE}]
    if search.head is not None:
        parameters.append({"params": list(search.head.parameters()), "lr": _HEAD_RATE})
    optimizer = torch.optim.Adam(parameters)

    def some(count: int) -> Tensor:
        return torch.randperm(count, generator=generator)[:BATCH]

    for _ in range(STEPS):
        optimizer.zero_grad()
        strengths = {name: one.sigmoid() for name, one in logits.items()}
        loss = search.loss(strengths, some(len(judge.searching)), some(len(judge.target.pixels)))
        torch.autograd.backward(loss)
        optimizer.step()
    found = {name: one.detach().sigmoid() for name, one in logits.items()}
    return {
        group: mean_strength(found) if group == TEXT else {name: found[name] for name in names}
        for group, names in blend.delta.groups.items()
    }


class _Search:
    """The loss of strengths, with everything that it is reckoned from."""

    def __init__(self, blend: Blend, judge: Judge) -> None:
        self.blend, self.judge = blend, judge
        self.model = blend.set(blend.uniform(0.0))
        self.path = ImagePath(self.model)
        names = [n for group, of in blend.delta.groups.items() if group != TEXT for n in of]
        self.rows = {name: num_rows(blend.delta.before[name]) for name in names}
        self.texts = functional.normalize(judge.pool.text_embeddings, dim=-1)
        before = functional.normalize(judge.before.embed_images(judge.searching).float(), dim=-1)
        self.kept = (judge.pool.logit_scale * before @ self.texts.T).log_softmax(dim=-1)
        self.tuned = judge.tuned
        self.head, self.told = None, None
        if judge.teacher is not None:
            with torch.no_grad():
                self.told = judge.teacher(self.tuned).log_softmax(dim=-1)
            self.mean, self.deviation = self.tuned.mean(dim=0), self.tuned.std(dim=0) + 1e-6
            self.head = _standardised(judge.teacher, self.mean, self.deviation)

    def embedded(
        self, strengths: Mapping[str, Tensor], pixels: UInt8[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image dim"]:
        weights = {
            f"inner.{name}": self.blend.between(name, one) for name, one in strengths.items()
        }
        found: Tensor = functional_call(self.path, weights, (self.model.normalise(pixels),))
        return found.float()

    def loss(self, strengths: Mapping[str, Tensor], pool: Tensor, target: Tensor) -> Tensor:
        both = torch.cat(
            [_rows(self.judge.searching, pool), _rows(self.judge.target.pixels, target)]
        )
        found = self.embedded(strengths, both)
        images, adapted = found[: len(pool)], found[len(pool) :]
        cosines = functional.normalize(images, dim=-1) @ self.texts.T
        after = (self.judge.pool.logit_scale * cosines).log_softmax(dim=-1)
        return _divergence(self.kept[pool], after) + self._target_loss(adapted, target)

    def _target_loss(self, found: Tensor, at: Tensor) -> Tensor:
        if self.head is None or self.told is None:
            tuned = functional.normalize(self.tuned[at], dim=-1)
            return (functional.normalize(found, dim=-1) - tuned).pow(2).sum(dim=-1).mean()
        logits = self.head((found - self.mean) / self.deviation)
        return _divergence(self.told[at], logits.log_softmax(dim=-1))


def _divergence(before: Tensor, after: Tensor) -> Tensor:
    """KL of the second log-distribution from the first, mean over images, in nats."""
    return (before.exp() * (before - after)).sum(dim=-1).mean()


def _standardised(head: nn.Linear, mean: Tensor, deviation: Tensor) -> nn.Linear:
    """The same function of (x − mean) / deviation."""
    made = nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        made.weight.copy_(head.weight * deviation)
        made.bias.copy_(head.bias + head.weight @ mean)
    return made


def _rows(pixels: PixelSource, at: Tensor) -> UInt8[Tensor, "image 3 size size"]:
    return pixels[at]
