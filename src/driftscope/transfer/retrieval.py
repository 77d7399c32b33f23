"""Image–text retrieval on captioned images: recall@1/5/10 and median rank, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import EncodedSet, PixelSource, open_dataset
from driftscope.errors import DataError
from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.classification import live_embeddings

_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class DirectionScore:
    """How queries find their match: recall in percent, median rank from 1 (best) up.

    The interval is Wilson's of recall@1, 95 %.
    """

    num_queries: int
    num_candidates: int
    recall_at_1_pct: float
    recall_at_5_pct: float
    recall_at_10_pct: float
    median_rank: float
    wilson_low_pct: float
    wilson_high_pct: float


@dataclass(frozen=True)
class RetrievalScore:
    """Retrieval both ways on one captioned set."""

    name: str
    image_to_text: DirectionScore
    text_to_image: DirectionScore

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self)

    def change(self, pretrained: RetrievalScore) -> dict[str, Any]:
        """This (adapted) score with the share of the pretrained recall@1 that is left, percent."""
        before = {
            "image_to_text": pretrained.image_to_text.recall_at_1_pct,
            "text_to_image": pretrained.text_to_image.recall_at_1_pct,
        }
        after = self.to_dict()
        retention = {
            way: 100 * after[way]["recall_at_1_pct"] / pct if pct else None
            for way, pct in before.items()
        }
        return {**after, "retention_pct": retention}


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Captioned images, their captions embedded by the frozen text tower."""

    name: str
    fingerprint: str
    pixels: PixelSource
    text_embeddings: Float[Tensor, "text dim"]
    matches: Bool[Tensor, "image text"]

    def score(self, model: VisionLanguageModel) -> RetrievalScore:
        """The model's retrieval through its live image path.

        Raises:
            CaptureError: an adapter is there but not in effect.
        """
        embeddings = live_embeddings(model, self.pixels)
        return retrieval_score(embeddings, self.text_embeddings, self.matches, self.name)


def retrieval_set(
    name: str, pretrained: VisionLanguageModel, max_images: int | None = None
) -> RetrievalSet:
    """A captioned dataset's test split as a retrieval benchmark of the pretrained model.

    Rows of the same image are one image with several captions; equal captions are one text that
    all their images match.

    Raises:
        DataError: no such dataset, or one without captions.
    """
    images = open_dataset(name, "test")
    if not isinstance(images, EncodedSet) or images.captions is None:
        raise DataError(
            f"{name} has no captions, so nothing can be retrieved in it; name their column: "
            f"{name}?caption=COLUMN"
        )
    images = images.by_image()
    if not len(images):
        raise DataError(f"{name} has no caption in any row, so nothing can be retrieved in it")
    count = min(len(images), max_images or len(images))
    indices = torch.linspace(0, len(images) - 1, count).long()
    images = images.select(indices)
    captions = images.captions or ()
    texts = list(dict.fromkeys(caption for of_image in captions for caption in of_image))
    return RetrievalSet(
        name=name,
        fingerprint=images.fingerprint,
        pixels=images.rows(range(len(images)), pretrained.framing),
        text_embeddings=functional.normalize(pretrained.embed_texts(texts), dim=-1),
        matches=_matches(captions, texts),
    )


def retrieval_score(
    image_embeddings: Float[Tensor, "image dim"],
    text_embeddings: Float[Tensor, "text dim"],
    matches: Bool[Tensor, "image text"],
    name: str,
) -> RetrievalScore:
    """Recall and median rank of normalised embeddings.

    A query's rank is that of its best match: 1 plus the wrong candidates that are at least as
    similar. So ties count against the model, and one whose embeddings collapsed finds nothing.
    """
    texts = text_embeddings.to(image_embeddings.device)
    to_text = _ranks(image_embeddings, texts, matches)
    to_image = _ranks(texts, image_embeddings, matches.T)
    return RetrievalScore(
        name, _direction(to_text, len(texts)), _direction(to_image, len(image_embeddings))
    )


def _ranks(
    queries: Tensor, candidates: Tensor, matches: Bool[Tensor, "query candidate"]
) -> Int64[Tensor, " query"]:
    ranks = []
    for rows, right in zip(
        torch.split(queries, _QUERIES_AT_ONCE),
        torch.split(matches, _QUERIES_AT_ONCE),
        strict=True,
    ):
        similarity = (rows @ candidates.T).cpu()
        best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(1 + ((similarity >= best) & ~right).sum(dim=1))
    return torch.cat(ranks)


def _direction(ranks: Tensor, num_candidates: int) -> DirectionScore:
    def recall(most: int) -> float:
        return 100 * float((ranks <= most).double().mean())

    low, high = wilson_interval_pct(int((ranks <= 1).sum()), len(ranks))
    return DirectionScore(
        num_queries=len(ranks),
        num_candidates=num_candidates,
        recall_at_1_pct=recall(1),
        recall_at_5_pct=recall(5),
        recall_at_10_pct=recall(10),
        median_rank=float(ranks.double().quantile(0.5)),
        wilson_low_pct=low,
        wilson_high_pct=high,
    )


def _matches(captions: Sequence[Sequence[str]], texts: Sequence[str]) -> Bool[Tensor, "image text"]:
    column = {text: number for number, text in enumerate(texts)}
    matches = torch.zeros(len(captions), len(texts), dtype=torch.bool)
    for row, of_image in enumerate(captions):
        matches[row, [column[caption] for caption in of_image]] = True
    return matches
