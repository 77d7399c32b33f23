"""The search for strengths: how much of what training has changed to keep, row by row.

Adam on the strengths' logits, and on a linear head that is trained along. What is wanted are the
pretrained model's distributions on unlabeled images, and the right answers on the task's, or those
of the trained model. There are thousands of strengths and a few hundred images. So every step sees
other views of them: of the unlabeled ones mixtures, on which the pretrained model is asked anew
(Beyer et al. 2022, "A good teacher is patient and consistent"), and of the task's shifted ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import skip_init

from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import ImagePath, along_rows, num_rows
from driftscope.data import PixelSource
from driftscope.estimate import Pool
from driftscope.image_views import mixed, shifted

STEPS, BATCH = 80, 24
_STRENGTH_RATE, _HEAD_RATE = 0.15, 0.02
MOST = 2.0
"""The largest strength: what is harmless and helps may go beyond what training reached."""
_LEAST_START = 0.02
"""Nearer to an end a strength hardly moves any more."""
_PRICE, _LEAST_LOSS = 2.0, 0.5
"""Of a nat where one percent may be lost; and the percent that count for a budget of 100."""


@dataclass(frozen=True, eq=False)
class ToKeep:
    """What shall stay: the pretrained model's class distributions on unlabeled images.

    Attributes:
        pixels: of these images.
        texts: normalised class embeddings.
        logit_scale: the factor on cosines.
        price: what a nat that is lost here counts beside the loss of what shall come along
            (`price_of`).
    """

    pixels: PixelSource
    texts: Float[Tensor, "class dim"]
    logit_scale: float
    price: float

    @classmethod
    def of(cls, pool: Pool, keep_pct: float) -> Self:
        """On a pool, for a budget of retention in percent."""
        texts = functional.normalize(pool.text_embeddings, dim=-1)
        return cls(pool.pixels, texts, pool.logit_scale, price_of(keep_pct))

    def loss(
        self, before: Float[Tensor, "image dim"], found: Float[Tensor, "image dim"]
    ) -> Float[Tensor, ""]:
        """KL(p₀ ‖ p) of what W₀ and these strengths embed of the same images, mean in nats."""
        return _divergence(self._log_shares(before), self._log_shares(found))

    def _log_shares(self, embeddings: Tensor) -> Tensor:
        cosines = functional.normalize(embeddings, dim=-1) @ self.texts.T
        return (self.logit_scale * cosines).log_softmax(dim=-1)


def price_of(keep_pct: float) -> float:
    """What a nat of divergence costs: the less may be lost, the more.

    Near W₀ what is learnt grows with the strengths and what is lost with their square. So the best
    strengths are inverse to the price, and what they lose is inverse to its square.
    """
    return _PRICE / math.sqrt(max(100 - keep_pct, _LEAST_LOSS))


@dataclass(frozen=True, eq=False)
class ToLearn:
    """What shall come along: the right answers on images of the task, or the trained model's.

    Attributes:
        pixels: of these images.
        tuned: their embeddings by the trained model.
        classifier: its classifier, on such embeddings; None where there is none.
        labels: the right answers; None where they are not known.
    """

    pixels: PixelSource
    tuned: Float[Tensor, "image dim"]
    classifier: nn.Linear | None
    labels: Int64[Tensor, " image"] | None = None

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the embeddings' coordinates."""
        return self.tuned.mean(dim=0), self.tuned.std(dim=0) + 1e-6

    def new_head(self) -> nn.Module | None:
        """The classifier as a function of standardised embeddings, to be trained along."""
        if self.classifier is None:
            return None
        mean, deviation = self._scale
        sizes = self.classifier.in_features, self.classifier.out_features
        made: nn.Linear = skip_init(nn.Linear, *sizes)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            made.weight.copy_(self.classifier.weight * deviation)
            made.bias.copy_(self.classifier.bias + self.classifier.weight @ mean)
        return made

    def loss(
        self,
        found: Float[Tensor, "image dim"],
        at: Int64[Tensor, " image"],
        head: nn.Module | None,
        tuned: Callable[[], Float[Tensor, "image dim"]],
    ) -> Float[Tensor, ""]:
        """The head's mean loss on embeddings of views of these images, in nats.

        With labels their cross-entropy. Else KL(t ‖ h): t is what the classifier makes of the
        trained embeddings, h the head of these. Without a classifier it is the squared distance of
        the normalised embeddings.

        Args:
            found: the embeddings.
            at: positions of the images.
            head: as `new_head` gives it.
            tuned: gives the trained model's embeddings of the same views; not asked with labels.
        """
        if head is None or self.classifier is None:
            apart = functional.normalize(found, dim=-1) - functional.normalize(tuned(), dim=-1)
            return apart.pow(2).sum(dim=-1).mean()
        mean, deviation = self._scale
        logits = head((found - mean) / deviation)
        if self.labels is not None:
            return functional.cross_entropy(logits, self.labels[at])
        with torch.no_grad():
            answers = self.classifier(tuned()).log_softmax(dim=-1)
        return _divergence(answers, logits.log_softmax(dim=-1))


@dataclass(frozen=True, eq=False)
class Change:
    """What training has changed, by the names that `model.plain` has for its weights.

    Attributes:
        model: computes the embeddings; its own weights are left as they are.
        before, after: the weights W₀ and W.
    """

    model: VisionLanguageModel
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]

    @cached_property
    def _path(self) -> ImagePath:
        return ImagePath(self.model)

    @cached_property
    def _ends(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Both weights by name, on the model's device."""
        device = self.model.device
        return {n: (one.to(device), self.after[n].to(device)) for n, one in self.before.items()}

    def embedded(
        self, strengths: Mapping[str, Tensor], pixels: UInt8[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image dim"]:
        """Image embeddings by W₀ + α·(W − W₀), with a gradient to the strengths."""
        with evaluating(self.model.module), torch.enable_grad():
            return self._embedded_by(
                {name: self._between(name, one) for name, one in strengths.items()}, pixels
            )

    def pretrained(self, pixels: UInt8[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
        """Image embeddings by W₀."""
        return self._at_end(0, pixels)

    def trained(self, pixels: UInt8[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
        """Image embeddings by W."""
        return self._at_end(1, pixels)

    def _at_end(self, end: int, pixels: Tensor) -> Tensor:
        with evaluating(self.model.module):
            return self._embedded_by({name: both[end] for name, both in self._ends.items()}, pixels)

    def _embedded_by(self, weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        inner = {f"inner.{name}": one for name, one in weights.items()}
        found: Tensor = functional_call(self._path, inner, (self.model.normalise(pixels),))
        return found.float().cpu()

    def _between(self, name: str, strength: Tensor) -> Tensor:
        """One weight at its strengths, on the model's device."""
        before, after = self._ends[name]
        return before + along_rows(strength.to(before.device), before) * (after - before)


@torch.enable_grad()
def found_strengths(
    change: Change, keep: ToKeep, learn: ToLearn, start: float, seed: int, most: float = MOST
) -> dict[str, Float[Tensor, " row"]]:
    """A strength from 0 to `most` for every row of every weight that has changed, by weight.

    The loss is that of `keep` at its price plus that of `learn`, on views of random batches.

    Args:
        change, keep, learn: what is searched in, and what for.
        start: the strength that all rows start at, from 0 to 1. From one that keeps little the
            search does not find back in its few steps, and from one near 0 it hardly moves.
        seed: of the batches and their views.
        most: the largest strength.
    """
    generator = torch.Generator().manual_seed(seed)
    head = learn.new_head()
    first = torch.tensor(min(max(start, _LEAST_START), most - _LEAST_START) / most).logit()
    logits = {
        name: first.repeat(num_rows(one)).requires_grad_() for name, one in change.before.items()
    }
    of_head = [] if head is None else list(head.parameters())
    groups = [{"params": list(logits.values()), "lr": _STRENGTH_RATE}]
    groups += [{"params": of_head, "lr": _HEAD_RATE}] if of_head else []
    optimizer = torch.optim.Adam(groups)

    def some(pixels: PixelSource) -> tuple[Tensor, Tensor]:
        """A batch: positions, and the images there."""
        at = torch.randperm(len(pixels), generator=generator)[:BATCH]
        return at, pixels[at].to(change.model.device)

    for _ in range(STEPS):
        pool = mixed(some(keep.pixels)[1], generator)
        at, task = some(learn.pixels)
        task = shifted(task, generator)
        strengths = {name: most * one.sigmoid() for name, one in logits.items()}
        found = change.embedded(strengths, torch.cat([pool, task]))
        lost = keep.loss(change.pretrained(pool), found[: len(pool)])
        missed = learn.loss(found[len(pool) :], at, head, partial(change.trained, task))
        optimizer.zero_grad()
        torch.autograd.backward(keep.price * lost + missed, inputs=[*logits.values(), *of_head])
        optimizer.step()
    return {name: most * one.detach().sigmoid() for name, one in logits.items()}


def _divergence(before: Tensor, after: Tensor) -> Tensor:
    """KL of the second log-distribution from the first, mean over images, in nats."""
    return (before.exp() * (before - after)).sum(dim=-1).mean()
