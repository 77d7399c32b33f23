"""What one look at a model finds, against what is known of its pretrained self.

`compare`, runs and the monitor all call `assess` with a `Reference`. So the same weights and images
give the same numbers in all three, to the last digit. Each set of images goes through the encoder
by itself: the last digits of an image depend on the batch that it is in, and so must not depend on
what else is read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import ImageTower
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import check_same_function, function_facts
from driftscope.backbones.weights import encoder_state
from driftscope.data import PixelSource
from driftscope.data.vocabulary import GENERAL
from driftscope.errors import ModelError, NonFiniteError
from driftscope.estimate import Estimate, Pool, Referee
from driftscope.further_images import Further, beyond
from driftscope.metrics import ESTIMATED, drifts
from driftscope.protocols import ACCURACIES, WITHOUT_TEXTS, ZERO_SHOT, protocol_of
from driftscope.reading import Drift, Reading, drift
from driftscope.reading_pass import images_fingerprint, read, text_drift
from driftscope.records import Overlay, transfer_scalars
from driftscope.reference_cache import CachedModel
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import weight_drift
from driftscope.text_space import Texts, text_tower_digest, text_weights, texts_of_drift
from driftscope.transfer import (
    Outcome,
    RetrievalScore,
    RetrievalSet,
    ZeroShotScore,
    retrieval_score,
)
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.retrieval import caption_embeddings

NUM_SHOWN = 6
"""Images whose attention is kept for looking at."""
OWN_TEXTS, PRETRAINED_TEXTS = "its own", "the pretrained one"
_POOL = "pool"
_RETRIEVAL = "retrieval: "


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

    def unchanged(self) -> Assessment:
        """What is found of a model whose encoder is the pretrained one."""
        return _assessment(self, None, self.weights, self.reading, self.embeddings)


@dataclass(frozen=True)
class Assessment:
    """Everything that one look at a model finds.

    Attributes:
        reading: of the probe set; `reading.shown_rows` is the attention of the shown images.
        drift: against the pretrained reading; text-space drift included.
        scores: by transfer set.
        transfer: by transfer set its score, `retention_pct`, `per_class` and `flows`.
        retrieval: by retrieval set its score and retention.
        estimate: of retention, from the pool; None without one.
        further: the embeddings of the reference's further images, by name.
        text_tower: which one's class embeddings scored: `OWN_TEXTS` or `PRETRAINED_TEXTS`.
    """

    reading: Reading
    drift: Drift
    scores: dict[str, ZeroShotScore]
    transfer: dict[str, dict[str, Any]]
    retrieval: dict[str, dict[str, Any]]
    estimate: Estimate | None
    further: dict[str, Tensor]
    text_tower: str

    @property
    def unmeasured(self) -> dict[str, str]:
        """Why a number is missing, by its metric's key."""
        return self.drift.unmeasured

    def scalars(self) -> dict[str, float]:
        """The single numbers that were measured and are finite, by the names that records use."""
        scores = transfer_scalars(self.transfer)
        known = {name: value for name, value in scores.items() if value is not None}
        return {**self.drift.scalars(), **known}


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
    sets = _image_sets(transfer, retrieval, pool, rest)
    probe_sets = frozenset(
        name
        for name, pixels in sets.items()
        if images_fingerprint(pixels) == reading.images_fingerprint
    )
    embeddings = _embedded_sets(sets, probe_sets, reading, cached.embeddings)
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
        retrieved={one.name: _retrieved(one, embeddings) for one in retrieval},
        referee=Referee.of(pool, embeddings[_POOL]) if pool else None,
        has_texts=pretrained.has_text,
    )


def assess(
    model: VisionLanguageModel, reference: Reference, *, text_tower_is_frozen: bool = False
) -> Assessment:
    """Reads a model on the reference's images and says what has changed.

    Args:
        model: the adapted model, or one in training.
        reference: what is known of its pretrained self.
        text_tower_is_frozen: whether the text tower is known to be the pretrained one; else its
            weights are looked at, and one that has moved scores for itself.

    Raises:
        ModelError: the model's image tower is not of the pretrained one's shape.
        NonFiniteError: the model gives NaN or infinite values.
        CaptureError: its attention cannot be read, or its adapter is not in effect.
    """
    weights: Mapping[str, Tensor] = encoder_state(model)
    if reference.is_at_another_size:
        weights = without_positions(model, weights)
    else:
        reference, weights = _of_one_grid(reference, model, weights)
        _refuse_another_size(reference, model, weights)
    check_same_towers(reference.weights, weights, reference.pretrained.source, model.source)
    check_same_function(
        reference.function, function_facts(model), reference.pretrained.source, model.source
    )
    reading = read(model, reference.probe_pixels, maps=reference.maps, shown=reference.shown)
    if reference.is_at_another_size:
        reading.images_fingerprint = reference.reading.images_fingerprint
    pool = reference.referee.pool if reference.referee else None
    sets = _image_sets(reference.transfer, reference.retrieval, pool, reference.further)
    embeddings = _embedded_sets(
        sets, reference.probe_sets, reading, lambda pixels: model.embed_images(pixels).float().cpu()
    )
    if not all(bool(torch.isfinite(found).all()) for found in embeddings.values()):
        raise NonFiniteError(
            f"{model.source} gives image embeddings with NaN or infinite values: the model has "
            "diverged, and its signals would mean nothing"
        )
    has_moved = (
        not text_tower_is_frozen
        and bool(text_weights(model))
        and text_tower_digest(model) != reference.text_digest
    )
    return _assessment(
        reference,
        model,
        weights,
        reading,
        embeddings,
        text_tower_moved=has_moved,
    )


def check_same_towers(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], before_name: str, after_name: str
) -> None:
    """Raises ModelError where two encoders' weights differ in name or shape."""
    for name, first, second in _differing(before, after):
        raise ModelError(
            f"{before_name} and {after_name} have different image towers: {name} is "
            f"{first} against {second}; as the pretrained model give one of the same parts, such "
            "as a copy of the module from before its training"
        )


def _of_one_grid(
    reference: Reference, model: VisionLanguageModel, weights: Mapping[str, Tensor]
) -> tuple[Reference, Mapping[str, Tensor]]:
    """Without the positions where they are of two grids, of a family that fits them to any image.

    What is read of it is of as many patches, whatever grid its positions are kept at.
    """
    differing = _differing(reference.weights, weights)
    is_position = model.backbone.is_position
    if model.backbone.has_fixed_input_size or not all(is_position(one) for one, _, _ in differing):
        return reference, weights
    if not differing:
        return reference, weights
    known = without_positions(model, reference.weights)
    return replace(reference, weights=known), without_positions(model, weights)


def refuse_another_size(reference: Reference, model: VisionLanguageModel) -> None:
    """Raises ModelError where a model reads images of another size, which its positions tell.

    No image is read, so that a training can be told before its first step.
    """
    tower = find_image_tower(model.module)
    name = tower.backbone.positions_name or ""
    within = name.removeprefix(f"{tower.backbone.tower_name}.")
    positions = dict(tower.module.named_parameters()).get(within)
    if not tower.backbone.has_fixed_input_size or (positions is not None and not positions.numel()):
        return
    if reference.is_at_another_size:
        own = _own_size(tower, positions)
        if own != reference.pretrained.image_size:
            raise ModelError(
                f"{model.source} reads images of {own} pixels and not of "
                f"{reference.pretrained.image_size}, as image_size says; give image_size={own}"
            )
    elif positions is not None and name in reference.weights:
        _refuse_another_size(reference, model, {**reference.weights, name: positions})


def _own_size(tower: ImageTower, positions: Tensor | None) -> int:
    """The side of the images that a tower reads: as its positions tell, else its configuration."""
    if positions is None:
        return int(tower.config.image_size)
    return tower.backbone.grid_side(positions) * int(tower.config.patch_size)


def _refuse_another_size(
    reference: Reference, model: VisionLanguageModel, weights: Mapping[str, Tensor]
) -> None:
    """Raises ModelError where no more than the number of patches' positions differs."""
    differing, before = _differing(reference.weights, weights), reference.pretrained
    if differing and all(model.backbone.is_position(one) for one, _, _ in differing):
        positions, first, second = differing[0]
        own = find_image_tower(model.module).config.image_size
        raise ModelError(
            f"{before.source} and {model.source} read images of different sizes: {positions} is "
            f"{first} against {second}, and {before.source} reads {before.image_size} pixels; give "
            f"image_size={own}, so that each is read at its own and attention is left out, or the "
            "pretrained model at that size, as a module with its positions interpolated as for the "
            "training, so that attention is compared, too"
        )


def _differing(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> list[tuple[str, str, str]]:
    """Names of weights that differ in shape or are in one alone, with both shapes in words."""
    shapes = [{name: one.shape for name, one in weights.items()} for weights in (before, after)]
    return [
        (name, _shape(shapes[0].get(name)), _shape(shapes[1].get(name)))
        for name in sorted({**before, **after})
        if shapes[0].get(name) != shapes[1].get(name)
    ]


def without_positions(
    model: VisionLanguageModel, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """An encoder's weights but for the embeddings of its patches' positions."""
    is_position = model.backbone.is_position
    return {name: one for name, one in weights.items() if not is_position(name)}


def evenly_spaced(num_images: int, at_most: int | None) -> tuple[int, ...]:
    """Positions of images through a set; all of them where `at_most` is None."""
    count = min(at_most or num_images, num_images)
    return tuple(torch.linspace(0, num_images - 1, count).long().tolist())


# ---------------------------------------------------------------- what is found


def _assessment(
    reference: Reference,
    model: VisionLanguageModel | None,
    weights: Mapping[str, Tensor],
    reading: Reading,
    embeddings: Mapping[str, Tensor],
    *,
    text_tower_moved: bool = False,
) -> Assessment:
    change = drift(
        reading,
        reference.reading,
        weights=weight_drift(reference.weights, weights),
        text=_text_drift(reference, reading),
    )
    estimate = _estimate(reference, model, embeddings, text_tower_moved=text_tower_moved)
    if estimate and estimate.retention_pct is not None:
        change.numbers[ESTIMATED] = estimate.retention_pct
    scores, transfer = {}, {}
    for one in reference.transfer:
        outcome = one.outcome_from(embeddings, model, has_own_texts=text_tower_moved)
        scores[one.name] = outcome.score
        transfer[one.name] = one.change(outcome, reference.outcomes[one.name])
    reasons = {
        **_unmeasured_drift(reference, change),
        **_unmeasured_transfer(transfer),
        **_unmeasured_estimate(reference, estimate),
    }
    change.unmeasured = {**reasons, **change.unmeasured}
    return Assessment(
        reading=reading,
        drift=change,
        scores=scores,
        transfer=transfer,
        retrieval={
            one.name: one.change(
                _retrieved(one, embeddings, model if text_tower_moved else None),
                reference.retrieved[one.name],
            )
            for one in reference.retrieval
        },
        estimate=estimate,
        further={
            name: images.embeddings(reading.embeddings, embeddings.get(name))
            for name, images in reference.further.items()
        },
        text_tower=OWN_TEXTS if text_tower_moved else PRETRAINED_TEXTS,
    )


def _estimate(
    reference: Reference,
    model: VisionLanguageModel | None,
    embeddings: Mapping[str, Tensor],
    *,
    text_tower_moved: bool,
) -> Estimate | None:
    referee = reference.referee
    if referee is None:
        return None
    texts = referee.pool.texts_of(model) if model is not None and text_tower_moved else None
    return referee.estimate(embeddings[_POOL], texts)


def _text_drift(reference: Reference, reading: Reading) -> TextSpaceDrift | None:
    if reference.texts.probe is None:
        return None
    return text_drift(reading, reference.reading, reference.texts.probe)


def _unmeasured_drift(reference: Reference, change: Drift) -> dict[str, str]:
    """Why a number of the drift is missing."""
    reasons: dict[str, str] = {}
    for one in drifts():
        value = change.numbers.get(one.key)
        if value is not None and math.isfinite(value):
            continue
        if value is not None:
            reasons[one.key] = "the pretrained value is 0, and a change from 0 has no percentage"
        elif one.key in reference.texts.unmeasured:
            reasons[one.key] = reference.texts.unmeasured[one.key]
        elif one.change_of and not reference.maps:
            reasons[one.key] = "full attention maps were not asked for (maps)"
    return reasons


def _unmeasured_transfer(transfer: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    if not transfer:
        return dict.fromkeys(("zero_shot_pct", "retention_pct"), "no transfer set was given")
    missing = {
        key: f"the transfer sets are not scored by {protocol}"
        for protocol, key in ACCURACIES.items()
        if protocol == ZERO_SHOT and not any(protocol_of(name) == protocol for name in transfer)
    }
    name, first = next(iter(transfer.items()))
    if first["retention_pct"] is not None:
        return missing
    none_right = f"the pretrained model classifies no image of {name} rightly"
    return {**missing, "retention_pct": next(iter(first["doubts"]), none_right)}


def _unmeasured_estimate(reference: Reference, estimate: Estimate | None) -> dict[str, str]:
    if estimate is None and not reference.has_texts:
        return {ESTIMATED: f"{reference.pretrained.source} {WITHOUT_TEXTS} to judge a pool by"}
    if estimate is None:
        return {ESTIMATED: "no pool of unlabeled images was given (pool and classes)"}
    return {ESTIMATED: estimate.withheld} if estimate.withheld else {}


def _retrieved(
    one: RetrievalSet, embeddings: Mapping[str, Tensor], model: VisionLanguageModel | None = None
) -> RetrievalScore:
    """The score; a model reads the captions anew, else they are the pretrained model's."""
    directions = functional.normalize(embeddings[_RETRIEVAL + one.name], dim=-1)
    texts = one.text_embeddings if model is None else caption_embeddings(model, one.texts)
    return retrieval_score(directions, texts.float().cpu(), one.matches, one.name)


# ---------------------------------------------------------------- images


def _image_sets(
    transfer: Sequence[LabelledSet],
    retrieval: Sequence[RetrievalSet],
    pool: Pool | None,
    further: Mapping[str, Further],
) -> dict[str, PixelSource]:
    """Every set of images beside the probe set, by the name that its embeddings get."""
    return {
        **({_POOL: pool.pixels} if pool else {}),
        **{name: pixels for one in transfer for name, pixels in one.image_sets().items()},
        **{_RETRIEVAL + one.name: one.pixels for one in retrieval},
        **{name: images.rest for name, images in further.items() if len(images.rest)},
    }


def _embedded_sets(
    sets: Mapping[str, PixelSource],
    probe_sets: frozenset[str],
    reading: Reading,
    embed: Callable[[PixelSource], Tensor],
) -> dict[str, Tensor]:
    known = reading.embeddings
    return {
        name: known if name in probe_sets and known is not None else embed(pixels)
        for name, pixels in sets.items()
    }


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else "×".join(str(size) for size in shape) or "a scalar"
