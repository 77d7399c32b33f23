"""Image–text retrieval on captioned images: recall@1/5/10 and median rank, both ways."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import EncodedSet, PixelSource, open_dataset
from driftscope.data.copies import told_of_copies
from driftscope.errors import DataError
from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.classification import live_embeddings
from driftscope.transfer.doubts import DoubtWarning, doubts_of_captions, doubts_of_recall
from driftscope.transfer.scores import share_kept_pct

_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class DirectionScore:
    """How queries find their match: recall in percent, median rank from 1 (best) up.

    The interval is Wilson's of recall@1, 95 %. Chance is what a random order of the candidates
    gives on average: for a query with m matches among n, 1 − C(n − m, k) / C(n, k).
    """

    num_queries: int
    num_candidates: int
    recall_at_1_pct: float
    recall_at_5_pct: float
    recall_at_10_pct: float
    median_rank: float
    wilson_low_pct: float
    wilson_high_pct: float
    chance_at_1_pct: float
    chance_at_5_pct: float
    chance_at_10_pct: float

    @property
    def is_above_chance(self) -> bool:
        """Whether the interval of recall@1 lies above chance."""
        return self.wilson_low_pct > self.chance_at_1_pct


@dataclass(frozen=True)
class RetrievalScore:
    """Retrieval both ways on one captioned set."""

    name: str
    image_to_text: DirectionScore
    text_to_image: DirectionScore

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self)

    def ways(self) -> dict[str, DirectionScore]:
        """Both directions by name."""
        return {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}

    def change(self, pretrained: RetrievalScore) -> dict[str, Any]:
        """This (adapted) score with the share of the pretrained recall@1 that is left, percent.

        The share is None where the pretrained recall's interval reaches chance: there is no
        ability of which a share could be left.
        """
        before = pretrained.ways()
        retention = {
            way: share_kept_pct(after.recall_at_1_pct, before[way].recall_at_1_pct)
            if before[way].is_above_chance
            else None
            for way, after in self.ways().items()
        }
        return {**self.to_dict(), "retention_pct": retention, "pretrained": pretrained.to_dict()}


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Captioned images, their captions embedded by the pretrained model's text tower."""

    name: str
    fingerprint: str
    pixels: PixelSource
    texts: tuple[str, ...]
    text_embeddings: Float[Tensor, "text dim"]
    matches: Bool[Tensor, "image text"]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def change(self, adapted: RetrievalScore, pretrained: RetrievalScore) -> dict[str, Any]:
        """The adapted score with what is left, its doubts and notes, as JSON values."""
        at_chance = doubts_of_recall(pretrained)
        return {
            **adapted.change(pretrained),
            "doubts": [*self.doubts, *at_chance],
            "notes": list(self.notes),
        }

    def score(self, model: VisionLanguageModel) -> RetrievalScore:
        """The model's retrieval through its live image path.

        Raises:
            CaptureError: an adapter is there but not in effect.
        """
        embeddings = live_embeddings(model, self.pixels)
        return retrieval_score(embeddings, self.text_embeddings, self.matches, self.name)


def retrieval_set(
    name: str,
    pretrained: VisionLanguageModel,
    max_images: int | None = None,
    *,
    skip_bad_images: bool = False,
) -> RetrievalSet:
    """A captioned dataset's test split as a retrieval benchmark of the pretrained model.

    Rows of the same image are one image with several captions; equal captions are one text that
    all their images match.

    Args:
        name: a dataset's name or place, as for `open_dataset`.
        pretrained: whose text tower reads the captions, and whose input size the images get.
        max_images: so many images, evenly spaced; None for all.
        skip_bad_images: whether unreadable images are left out (and counted) or an error.

    Raises:
        DataError: no such dataset, or one without captions.
    """
    images = open_dataset(name, "test")
    if not isinstance(images, EncodedSet) or images.captions is None:
        raise DataError(
            f"{name} has no captions, so nothing can be retrieved in it; give a list or table with "
            f"a caption column, or name the column: {name}?caption=COLUMN"
        )
    images = (images.with_bytes() if skip_bad_images else images).by_image()
    if not len(images):
        raise DataError(f"{name} has no caption in any row, so nothing can be retrieved in it")
    total = len(images)
    indices = torch.linspace(0, total - 1, min(total, max_images or total)).long()
    images = images.select(indices)
    if skip_bad_images:
        images = images.only_readable()
    captions = images.captions or ()
    texts = list(dict.fromkeys(caption for of_image in captions for caption in of_image))
    notes, doubts = told_of_copies(images)
    doubts = [*images.doubts, *doubts, *doubts_of_captions(pretrained, captions, texts)]
    for doubt in doubts:
        warnings.warn(f"{name}: {doubt}", DoubtWarning, stacklevel=2)
    drawn = [f"{len(indices):,} of its {total:,} images, evenly spaced"]
    return RetrievalSet(
        name=name,
        fingerprint=images.fingerprint,
        pixels=images.rows(range(len(images)), pretrained.framing),
        texts=tuple(texts),
        text_embeddings=caption_embeddings(pretrained, texts),
        matches=_matches(captions, texts),
        doubts=tuple(doubts),
        notes=(*(drawn if len(indices) < total else ()), *images.notes, *notes),
    )


def caption_embeddings(
    model: VisionLanguageModel, texts: Sequence[str]
) -> Float[Tensor, "text dim"]:
    """Normalised embeddings of captions."""
    return functional.normalize(model.embed_texts(texts), dim=-1)


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
    return RetrievalScore(name, _direction(to_text, matches), _direction(to_image, matches.T))


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


def _direction(
    ranks: Int64[Tensor, " query"], matches: Bool[Tensor, "query candidate"]
) -> DirectionScore:
    def recall(most: int) -> float:
        return 100 * float((ranks <= most).double().mean())

    low, high = wilson_interval_pct(int((ranks <= 1).sum()), len(ranks))
    return DirectionScore(
        num_queries=len(ranks),
        num_candidates=matches.shape[1],
        recall_at_1_pct=recall(1),
        recall_at_5_pct=recall(5),
        recall_at_10_pct=recall(10),
        median_rank=float(ranks.double().quantile(0.5)),
        wilson_low_pct=low,
        wilson_high_pct=high,
        **{f"chance_at_{k}_pct": chance_recall_pct(matches, k) for k in (1, 5, 10)},
    )


def chance_recall_pct(matches: Bool[Tensor, "query candidate"], k: int) -> float:
    """Recall@k of a random order of the candidates, on average, in percent."""
    num_candidates = matches.shape[1]
    if k >= num_candidates:
        return 100.0
    counts = matches.sum(dim=1).double()
    missed = torch.ones_like(counts)
    for place in range(k):  # none of the first k is a match
        missed *= ((num_candidates - place - counts) / (num_candidates - place)).clamp(min=0)
    return 100 * float((1 - missed).mean())


def _matches(captions: Sequence[Sequence[str]], texts: Sequence[str]) -> Bool[Tensor, "image text"]:
    column = {text: number for number, text in enumerate(texts)}
    matches = torch.zeros(len(captions), len(texts), dtype=torch.bool)
    for row, of_image in enumerate(captions):
        matches[row, [column[caption] for caption in of_image]] = True
    return matches
