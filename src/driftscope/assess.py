"""One look at a model in training: validation, probe and transfer in one pass over the images.

Every image goes through the encoder once, however many sets it is in (under the published
protocol the probe set lies within the validation set). What is compared with, the pretrained
model on the same images, is computed once and comes from a cache that all runs share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from driftscope.adapt import AdaptedModel
from driftscope.backbones.model import VisionLanguageModel, evaluating
from driftscope.backbones.weights import encoder_state
from driftscope.data import PixelRows, PixelSource
from driftscope.errors import NonFiniteError
from driftscope.reading import drift
from driftscope.reading_pass import images_fingerprint, read
from driftscope.reading_subsets import on_subsets, standard_subsets
from driftscope.records import transfer_scalars
from driftscope.reference_cache import Encoded, cached_encoding
from driftscope.regularize import random_text_directions
from driftscope.signals.text import TextSpaceDrift, text_space_drift
from driftscope.signals.weights import weight_drift
from driftscope.train import Evaluation
from driftscope.transfer import (
    Outcome,
    RetrievalScore,
    RetrievalSet,
    TransferSet,
    class_embeddings,
    retrieval_score,
)
from driftscope.transfer.classification import outcome_of

VALIDATION = "validation"
_ZERO_SHOT = "zero-shot: "
_RETRIEVAL = "retrieval: "
_RANDOM_TEXTS = (80, 8)  # as many, and as long, as Lipsum-FT's


@dataclass(frozen=True)
class WatchedImages:
    """All images of an evaluation, each once: the probe set first, then the others.

    The others, a part a set, stay where they are stored. `places` says where each set's images
    are among all.
    """

    probe_pixels: UInt8[Tensor, "probe 3 size size"]
    other_pixels: tuple[PixelRows, ...]
    places: Mapping[str, Int64[Tensor, " image"]]

    @property
    def fingerprint(self) -> str:
        """Changes with any image and with their order."""
        parts: tuple[PixelSource, ...] = (self.probe_pixels, *self.other_pixels)
        return "-".join(images_fingerprint(part) for part in parts)


def watched_images(
    probe_pixels: UInt8[Tensor, "probe 3 size size"],
    sets: Mapping[str, PixelSource],
) -> WatchedImages:
    """Gathers the sets' images beside the probe set's, leaving out those that are there already."""
    place_of: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(probe_pixels)):
        place_of.setdefault(digest, index)
    kept, num_places, places = [], len(probe_pixels), {}
    for name, pixels in sets.items():
        digests = _digests(pixels)
        new = []
        for index, digest in enumerate(digests):
            if digest not in place_of:
                place_of[digest] = num_places
                num_places += 1
                new.append(index)
        kept.append(PixelRows.of(pixels).select(new))
        places[name] = torch.tensor([place_of[digest] for digest in digests])
    return WatchedImages(probe_pixels, tuple(part for part in kept if len(part)), places)


def encode(
    model: VisionLanguageModel,
    images: WatchedImages,
    *,
    maps: bool = False,
    shown: Sequence[int] = (),
) -> Encoded:
    """The reading of the probe set and the embeddings of all images, each passing once.

    `maps` and `shown` are as for `reading_pass.read`, on the probe set.
    """
    reading = read(model, images.probe_pixels, maps=maps, shown=shown)
    embeddings = [reading.embeddings] if reading.embeddings is not None else []
    embeddings += [model.embed_images(part).float().cpu() for part in images.other_pixels]
    found = torch.cat(embeddings)
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(
            f"{model.source} gives image embeddings with NaN or infinite values: the model has "
            "diverged, and its signals would mean nothing"
        )
    return Encoded(reading, found)


@dataclass(frozen=True)
class Evaluator:
    """What models in training are compared with, and on what; the same for all runs of a cell."""

    pretrained: VisionLanguageModel
    images: WatchedImages
    val_labels: Int64[Tensor, " image"]
    transfer: tuple[TransferSet, ...]
    retrieval: tuple[RetrievalSet, ...]
    reference: Encoded
    pretrained_weights: Mapping[str, Tensor]
    pretrained_outcomes: Mapping[str, Outcome]
    pretrained_retrieval: Mapping[str, RetrievalScore]
    random_texts: Float[Tensor, "text dim"] | None = None
    probe_subsets: Sequence[Sequence[int]] = ()
    maps: bool = False

    def evaluate(self, adapted: AdaptedModel) -> Evaluation:
        """Validation accuracy, reading, drift and transfer of the model as it is now.

        A frozen encoder is the pretrained one: nothing goes through it again, and what is seen of
        it is worked out once.
        """
        if adapted.encoder_is_frozen:
            encoded, (scalars, record) = self.reference, self._unmoved
        else:
            encoded = encode(adapted.model, self.images, maps=self.maps)
            scalars, record = self._seen(encoded, adapted.model, adapted.class_tokens is not None)
        val = encoded.embeddings[self.images.places[VALIDATION]]
        accuracy_pct = 100 * num_correct(adapted, val, self.val_labels) / len(val)
        return Evaluation(accuracy_pct, scalars, record)

    @cached_property
    def _unmoved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._seen(self.reference, self.pretrained, has_own_texts=False)

    def _seen(
        self, encoded: Encoded, model: VisionLanguageModel, has_own_texts: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is seen of an encoder against the pretrained one: numbers, and the whole record.

        With `has_own_texts` its own text tower scores, which is in training, too.
        """
        weights = weight_drift(self.pretrained_weights, encoder_state(model))
        text = self._text_drift(encoded)
        change = drift(
            encoded.reading, self.reference.reading, weights=weights, text=text
        ).to_dict()
        changes = {}
        for one in self.transfer:
            texts = one.text_embeddings
            if has_own_texts:
                texts = class_embeddings(model, one.class_names, one.rules)
            outcome = zero_shot_outcome(one, encoded, self.images, texts)
            changes[one.name] = one.change(outcome, self.pretrained_outcomes[one.name])
        return {**change, **transfer_scalars(changes)}, {
            "reading": encoded.reading.to_dict(),
            "drift": change,
            "subsets": on_subsets(encoded.reading, self.reference.reading, self.probe_subsets),
            "transfer": changes,
            "retrieval": {
                one.name: _retrieved(one, encoded, self.images).change(
                    self.pretrained_retrieval[one.name]
                )
                for one in self.retrieval
            },
        }

    def pretrained_scores(self) -> dict[str, Any]:
        """For the record: what the pretrained model scores on every set."""
        return {
            "transfer": {n: found.score.to_dict() for n, found in self.pretrained_outcomes.items()},
            "retrieval": {n: found.to_dict() for n, found in self.pretrained_retrieval.items()},
        }

    def _text_drift(self, encoded: Encoded) -> TextSpaceDrift | None:
        """How the probe images moved as the main transfer set's classes and random texts see it."""
        before, after = self.reference.reading.embeddings, encoded.reading.embeddings
        if not self.transfer or before is None or after is None:
            return None
        return text_space_drift(
            before,
            after,
            vocabulary=self.transfer[0].text_embeddings.cpu(),
            logit_scale=self.pretrained.logit_scale,
            random_texts=self.random_texts,
        )


def make_evaluator(
    pretrained: VisionLanguageModel,
    probe_pixels: UInt8[Tensor, "probe 3 size size"],
    val_pixels: PixelSource,
    val_labels: Int64[Tensor, " val"],
    *,
    transfer: tuple[TransferSet, ...] = (),
    retrieval: tuple[RetrievalSet, ...] = (),
    probe_subsets: Sequence[Sequence[int]] | None = None,
    maps: bool = False,
) -> Evaluator:
    """Gathers the images and takes the pretrained reference of them, from the cache if there.

    `probe_subsets` are positions in the probe set whose signals are recorded apart; by default
    `reading_subsets.standard_subsets`. `maps` is as in `encode`.
    """
    sets: dict[str, PixelSource] = {
        VALIDATION: val_pixels,
        **zero_shot_pixels(transfer),
        **{f"{_RETRIEVAL}{one.name}": one.pixels for one in retrieval},
    }
    images = watched_images(probe_pixels, sets)
    reference = cached_encoding(
        pretrained,
        f"{images.fingerprint}-maps" if maps else images.fingerprint,
        lambda: encode(pretrained, images, maps=maps),
    )
    return Evaluator(
        pretrained=pretrained,
        images=images,
        val_labels=val_labels,
        transfer=transfer,
        retrieval=retrieval,
        reference=reference,
        pretrained_weights=encoder_state(pretrained),
        pretrained_outcomes={
            one.name: zero_shot_outcome(one, reference, images, one.text_embeddings)
            for one in transfer
        },
        pretrained_retrieval={one.name: _retrieved(one, reference, images) for one in retrieval},
        random_texts=random_text_directions(pretrained, *_RANDOM_TEXTS, seed=0).cpu()
        if pretrained.tokenizer is not None
        else None,
        probe_subsets=(
            standard_subsets(len(probe_pixels)) if probe_subsets is None else probe_subsets
        ),
        maps=maps,
    )


def num_correct(
    adapted: AdaptedModel, embeddings: Float[Tensor, "image dim"], labels: Int64[Tensor, " image"]
) -> int:
    """How many images the model in training classifies rightly, from their embeddings.

    Raises:
        NonFiniteError: its classifier, or the text tower in its place, has diverged.
    """
    with evaluating(adapted.model.module):
        logits = adapted.class_logits(embeddings.to(adapted.model.device)).cpu()
    if not bool(torch.isfinite(logits).all()):
        raise NonFiniteError(
            "the classifier gives logits with NaN or infinite values: it has diverged, and the "
            "classes it names would mean nothing"
        )
    return int(torch.sum(logits.argmax(dim=-1) == labels))


def zero_shot_pixels(transfer: Sequence[TransferSet]) -> dict[str, PixelSource]:
    """The sets' images by the names under which `zero_shot_outcome` looks them up."""
    return {f"{_ZERO_SHOT}{one.name}": one.pixels for one in transfer}


def zero_shot_outcome(
    benchmark: TransferSet, encoded: Encoded, images: WatchedImages, texts: Tensor
) -> Outcome:
    """The set's score and predictions from embeddings that are there already.

    `images` must have been gathered with `zero_shot_pixels`; `texts` are the classes' embeddings.
    """
    directions = _directions(encoded, images, f"{_ZERO_SHOT}{benchmark.name}")
    return outcome_of(directions, benchmark.labels, texts.cpu(), benchmark.name)


def _retrieved(benchmark: RetrievalSet, encoded: Encoded, images: WatchedImages) -> RetrievalScore:
    directions = _directions(encoded, images, f"{_RETRIEVAL}{benchmark.name}")
    texts = benchmark.text_embeddings.cpu()
    return retrieval_score(directions, texts, benchmark.matches, benchmark.name)


def _directions(encoded: Encoded, images: WatchedImages, name: str) -> Tensor:
    """The normalised embeddings of one set's images."""
    return functional.normalize(encoded.embeddings[images.places[name]], dim=-1)


def _digests(pixels: PixelSource) -> list[bytes]:
    return [
        hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()
        for image in pixels
    ]
