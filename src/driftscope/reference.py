"""What is known of a pretrained model on given images.

Every look at an adapted model compares with it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import function_facts
from driftscope.backbones.weights import encoder_state, without_positions
from driftscope.data import PixelRows, PixelSource
from driftscope.data.vocabulary import GENERAL
from driftscope.estimate import Pool, Referee
from driftscope.further_images import Further, beyond
from driftscope.reading import Reading
from driftscope.reading_pass import images_fingerprint
from driftscope.records import Overlay
from driftscope.reference_cache import CachedModel
from driftscope.signals.weights import sixteen_bits_of
from driftscope.text_space import Texts, text_tower_digest, texts_of_drift
from driftscope.transfer import (
    Outcome,
    RetrievalScore,
    RetrievalSet,
    retrieval_score,
)
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.retrieval import caption_embeddings

NUM_SHOWN = 6
"""Images whose attention is kept for looking at."""
POOL = "pool"
RETRIEVAL = "retrieval: "


@dataclass(frozen=True)
class Reference:
    """Everything that is known of a pretrained model on given images.

    Attributes:
        pretrained: the model; after `detached` its facts and image projection alone.
        fingerprint: of its image encoder.
        probe_pixels: the probe set.
        shown: the probe images whose attention is kept for looking at.
        maps: whether full attention maps are read.
        transfer: the labeled benchmarks: zero-shot, or from features alone.
        retrieval: the retrieval benchmarks.
        further: other images to embed, by name.
        probe_sets: the sets of images that are the probe set itself; they pass with it, once.
        reading: the pretrained reading of the probe set.
        embeddings: the pretrained embeddings of every other set of images.
        weights: the pretrained encoder's.
        function: what decides its function beside the weights.
        text_digest: of the text tower's weights, to notice one that has moved.
        texts: what text-space drift is read against.
        outcomes: what the pretrained model made of each transfer set.
        retrieved: its score on each retrieval set.
        referee: what it makes of the pool, by which retention is estimated; None without a pool.
        is_at_another_size: whether the images are at another size than the pretrained model read.
        has_texts: whether the pretrained model has a text tower.
    """

    pretrained: VisionLanguageModel
    fingerprint: str
    probe_pixels: UInt8[Tensor, "probe 3 size size"]
    shown: tuple[int, ...]
    maps: bool
    transfer: tuple[LabelledSet, ...]
    retrieval: tuple[RetrievalSet, ...]
    further: Mapping[str, Further]
    probe_sets: frozenset[str]
    reading: Reading
    embeddings: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    function: Mapping[str, object]
    text_digest: str
    texts: Texts
    outcomes: Mapping[str, Outcome]
    retrieved: Mapping[str, RetrievalScore]
    referee: Referee | None = None
    is_at_another_size: bool = False
    has_texts: bool = True

    @cached_property
    def sixteen_bits(self) -> frozenset[torch.dtype]:
        """The number types of 16 bits that hold the pretrained encoder's weights."""
        return sixteen_bits_of(self.weights)

    def at_another_size(
        self,
        probe_pixels: UInt8[Tensor, "probe 3 size size"],
        transfer: Sequence[LabelledSet],
        retrieval: Sequence[RetrievalSet],
        pool: Pool | None,
    ) -> Reference:
        """The same for a model that reads the same images at another size.

        What is known of the pretrained model stays. Its positions are not compared, for there are
        as many as patches.

        Args:
            probe_pixels: the probe set at that size.
            transfer: the transfer sets at that size.
            retrieval: the retrieval sets at that size.
            pool: the pool at that size.
        """
        return replace(
            self,
            probe_pixels=probe_pixels,
            transfer=tuple(transfer),
            retrieval=tuple(retrieval),
            referee=replace(self.referee, pool=pool) if self.referee and pool else None,
            weights=without_positions(self.pretrained, self.weights),
            is_at_another_size=True,
        )

    def detached(self) -> Reference:
        """The same without the model, which may be trained from here on: its weights are copied."""
        holder = nn.Module()
        projection = self.pretrained.backbone.projection_name
        if projection is not None and hasattr(self.pretrained.plain, projection):
            found = self.pretrained.plain.get_submodule(projection)
            holder.add_module(projection, copy.deepcopy(found))
        copied = {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.weights.items()
        }
        return replace(self, pretrained=replace(self.pretrained, module=holder), weights=copied)

    def overlay(self, rows: Float[Tensor, "shown layer head patch"] | None) -> Overlay | None:
        """The attention of the shown images before and after; None where none was read."""
        if self.reading.shown_rows is None or rows is None:
            return None
        before, after = (
            one.reshape(*one.shape[:-1], math.isqrt(one.shape[-1]), -1).cpu().numpy()
            for one in (self.reading.shown_rows, rows)
        )
        pictures = self.probe_pixels[list(self.shown)]
        return Overlay(pictures.permute(0, 2, 3, 1).cpu().numpy(), before, after)


def make_reference(
    pretrained: VisionLanguageModel,
    probe_pixels: UInt8[Tensor, "probe 3 size size"],
    *,
    transfer: Sequence[LabelledSet] = (),
    retrieval: Sequence[RetrievalSet] = (),
    pool: Pool | None = None,
    further: Mapping[str, PixelSource] | None = None,
    maps: bool = False,
    vocabulary: str | Sequence[str] | None = GENERAL,
) -> Reference:
    """Reads the pretrained model, or takes what was read of it before from the cache.

    Args:
        pretrained: the model.
        probe_pixels: the images that signals are read on.
        transfer: labeled benchmarks, made with the pretrained model.
        retrieval: retrieval benchmarks, made with it, too.
        pool: unlabeled images on which retention is estimated, made with it, too.
        further: other images whose embeddings are wanted, such as the validation images.
        maps: whether full attention maps are read, too.
        vocabulary: the texts of text-space drift: `general`, texts of one's own, None for none.

    Raises:
        ConfigError, ModelError: the vocabulary cannot be used.
    """
    cached = CachedModel(pretrained)
    shown = evenly_spaced(len(probe_pixels), NUM_SHOWN)
    rest = {name: beyond(probe_pixels, pixels) for name, pixels in (further or {}).items()}
    reading = cached.reading(probe_pixels, maps=maps, shown=shown)
    sets = image_sets(transfer, retrieval, pool, rest)
    probe_sets = frozenset(
        name
        for name, pixels in sets.items()
        if images_fingerprint(pixels) == reading.images_fingerprint
    )
    embeddings = embedded_sets(sets, probe_sets, reading, cached.embeddings)
    return Reference(
        pretrained=pretrained,
        fingerprint=cached.fingerprint,
        probe_pixels=probe_pixels,
        shown=shown,
        maps=maps,
        transfer=tuple(transfer),
        retrieval=tuple(retrieval),
        further=rest,
        probe_sets=probe_sets,
        reading=reading,
        embeddings=embeddings,
        weights=encoder_state(pretrained),
        function=function_facts(pretrained),
        text_digest=text_tower_digest(pretrained),
        texts=texts_of_drift(cached, vocabulary),
        outcomes={one.name: one.outcome_from(embeddings) for one in transfer},
        retrieved={one.name: retrieval_of(one, embeddings) for one in retrieval},
        referee=Referee.of(pool, embeddings[POOL]) if pool else None,
        has_texts=pretrained.has_text,
    )


def evenly_spaced(num_images: int, at_most: int | None) -> tuple[int, ...]:
    """Positions of images through a set; all of them where `at_most` is None."""
    count = min(at_most or num_images, num_images)
    return tuple(torch.linspace(0, num_images - 1, count).long().tolist())


def retrieval_of(
    one: RetrievalSet, embeddings: Mapping[str, Tensor], model: VisionLanguageModel | None = None
) -> RetrievalScore:
    """The score; a model reads the captions anew, else they are the pretrained model's."""
    directions = functional.normalize(embeddings[RETRIEVAL + one.name], dim=-1)
    texts = one.text_embeddings if model is None else caption_embeddings(model, one.texts)
    return retrieval_score(directions, texts.float().cpu(), one.matches, one.name)


def image_sets(
    transfer: Sequence[LabelledSet],
    retrieval: Sequence[RetrievalSet],
    pool: Pool | None,
    further: Mapping[str, Further],
) -> dict[str, PixelSource]:
    """Every set of images beside the probe set, by the name that its embeddings get."""
    return {
        **({POOL: pool.pixels} if pool else {}),
        **{name: pixels for one in transfer for name, pixels in one.image_sets().items()},
        **{RETRIEVAL + one.name: one.pixels for one in retrieval},
        **{name: images.rest for name, images in further.items() if len(images.rest)},
    }


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of some images of a set, at these positions in it."""

    places: Sequence[int]
    embeddings: Float[Tensor, "image dim"]

    def completed(
        self, pixels: PixelSource, embed: Callable[[PixelSource], Tensor]
    ) -> Float[Tensor, "all dim"]:
        """The embeddings of all images of the set; `embed` gives those of the others."""
        others = sorted(set(range(len(pixels))) - set(self.places))
        found = self.embeddings.new_empty(len(pixels), self.embeddings.shape[1])
        found[list(self.places)] = self.embeddings
        if others:
            found[others] = embed(PixelRows.of(pixels).select(others))
        return found


def embedded_sets(
    sets: Mapping[str, PixelSource],
    probe_sets: frozenset[str],
    reading: Reading,
    embed: Callable[[PixelSource], Tensor],
    seen: Mapping[str, Embedded] | None = None,
) -> dict[str, Tensor]:
    """Every set's embeddings; the probe set's are those that its reading has.

    `seen` are those that the same model has made of some images before, by set.
    """
    found: dict[str, Tensor] = {}
    for name, pixels in sets.items():
        if name in probe_sets and reading.embeddings is not None:
            found[name] = reading.embeddings
        elif seen and name in seen:
            found[name] = seen[name].completed(pixels, embed)
        else:
            found[name] = embed(pixels)
    return found
