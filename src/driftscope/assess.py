"""What one look at a model finds, against what is known of its pretrained self.

`compare`, runs and the monitor all call `assess` with a `Reference`. So the same weights and images
give the same numbers in all three, to the last digit. Each set of images goes through the encoder
by itself: the last digits of an image depend on the batch that it is in, and so must not depend on
what else is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import ImageTower
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import check_same_function, function_facts
from driftscope.backbones.weights import encoder_state, without_positions
from driftscope.errors import ModelError, NonFiniteError
from driftscope.estimate import Estimate
from driftscope.metrics import ESTIMATED, drifts
from driftscope.protocols import ACCURACIES, WITHOUT_TEXTS, ZERO_SHOT, protocol_of
from driftscope.reading import Drift, Reading, drift
from driftscope.reading_pass import read, text_drift
from driftscope.records import transfer_scalars
from driftscope.reference import (
    POOL,
    Embedded,
    Reference,
    embedded_sets,
    image_sets,
    retrieval_of,
)
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import weight_drift
from driftscope.text_space import text_tower_has_moved
from driftscope.transfer import ZeroShotScore

OWN_TEXTS, PRETRAINED_TEXTS = "its own", "the pretrained one"


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


def assess(
    model: VisionLanguageModel,
    reference: Reference,
    *,
    text_tower_is_frozen: bool = False,
    pool_seen: Embedded | None = None,
) -> Assessment:
    """Reads a model on the reference's images and says what has changed.

    Args:
        model: the adapted model, or one in training.
        reference: what is known of its pretrained self.
        text_tower_is_frozen: whether the text tower is known to be the pretrained one; else its
            weights are looked at, and one that has moved scores for itself.
        pool_seen: images of the pool that the model as it is has embedded already.

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
    sets = image_sets(reference.transfer, reference.retrieval, pool, reference.further)
    embeddings = embedded_sets(
        sets,
        reference.probe_sets,
        reading,
        lambda pixels: model.embed_images(pixels).float().cpu(),
        {POOL: pool_seen} if pool_seen else {},
    )
    if not all(bool(torch.isfinite(found).all()) for found in embeddings.values()):
        raise NonFiniteError(
            f"{model.source} gives image embeddings with NaN or infinite values: the model has "
            "diverged, and its signals would mean nothing"
        )
    has_moved = not text_tower_is_frozen and text_tower_has_moved(model, reference.text_digest)
    return _assessment(
        reference,
        model,
        weights,
        reading,
        embeddings,
        text_tower_moved=has_moved,
    )


def unchanged(reference: Reference) -> Assessment:
    """What is found of a model whose encoder is the pretrained one."""
    return _assessment(reference, None, reference.weights, reference.reading, reference.embeddings)


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
    block_of = (model or reference.pretrained).backbone.block_of
    change = drift(
        reading,
        reference.reading,
        weights=weight_drift(reference.weights, weights, block_of=block_of),
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
                retrieval_of(one, embeddings, model if text_tower_moved else None),
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
    return referee.estimate(embeddings[POOL], texts)


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


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else "×".join(str(size) for size in shape) or "a scalar"
