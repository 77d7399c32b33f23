"""The two models of a comparison: opened together, and refused where they do not belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from driftscope.assess import check_same_towers
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import (
    check_same_function,
    check_same_pixels,
    function_facts,
)
from driftscope.backbones.weights import (
    encoder_fingerprint,
    encoder_state,
    without_positions,
)
from driftscope.errors import ModelError
from driftscope.order import refuse_wrong_order
from driftscope.signals.weights import sixteen_bits_of, weight_drift
from driftscope.sources import default_device, load
from driftscope.sources.state_dict import told_of_half_precision

_MERGED = 1e-5
"""A weight drift that is rounding: of an adapter against its own merge."""


def related_models(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    device: str | None,
) -> tuple[VisionLanguageModel, VisionLanguageModel]:
    """Both models, which belong together, each with what it lacks from the other."""
    before = _loaded(pretrained, device)
    after = _loaded(adapted, device, like=before)
    _check_related(before, after)
    after = _completed(after, before)
    # an adapter is merged in double precision
    before_bits, after_bits = (
        frozenset() if one.is_adapter else sixteen_bits_of(encoder_state(one))
        for one in (before, after)
    )
    told = told_of_half_precision(before_bits, after_bits, after.source)
    return _completed(before, after), replace(after, notes=(*after.notes, *told))


def ordered_models(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    device: str | None,
) -> tuple[VisionLanguageModel, VisionLanguageModel]:
    """The same; raises `ModelError` where their folders say that they are the wrong way round."""
    before, after = related_models(pretrained, adapted, device)
    refuse_wrong_order(before, after)
    return before, after


def _loaded(
    model: str | Path | VisionLanguageModel,
    device: str | None,
    like: VisionLanguageModel | None = None,
) -> VisionLanguageModel:
    if isinstance(model, VisionLanguageModel):
        return model
    return load(model, device=device or default_device(), like=like)


def _completed(model: VisionLanguageModel, other: VisionLanguageModel) -> VisionLanguageModel:
    """With the other one's pixel convention and tokenizer where it was saved without.

    The convention includes the size of images where the family reads any.
    """
    if not model.has_own_pixels:
        size = model.image_size if model.backbone.has_fixed_input_size else other.image_size
        notes = (*model.notes, _whose_pixels(model, other))
        model = replace(
            model, mean=other.mean, std=other.std, own_framing=other.framing, notes=notes
        )
        model = model.at_size(size)
    return replace(model, tokenizer=model.tokenizer or other.tokenizer)


def _whose_pixels(model: VisionLanguageModel, other: VisionLanguageModel) -> str:
    """How images are prepared for a model that was saved without its preprocessor."""
    if other.has_own_pixels:
        return (
            f"{model.source} has no preprocessor configuration: images are prepared for it as for "
            f"{other.source}"
        )
    return (
        "neither model has a preprocessor configuration: images are prepared as their family's "
        "usually are"
    )


def _check_related(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    if _is_base_of(after, before):
        raise ModelError(
            f"{before.source} was adapted from {after.source}: give the pretrained model first and "
            "the adapted one second"
        )
    if not _of_one_base(before, after):
        raise ModelError(
            f"{after.source} was adapted from another model than {before.source} "
            "(its base's weights differ); compare it with the base it was trained on, or, if that "
            "base itself comes from the first model, with the adapter merged (merge_and_unload, "
            "then save_pretrained)"
        )
    weights = encoder_state(before), encoder_state(after)
    if before.image_size != after.image_size or not after.backbone.has_fixed_input_size:
        weights = without_positions(before, weights[0]), without_positions(after, weights[1])
    check_same_towers(*weights, before.source, after.source)
    check_same_function(function_facts(before), function_facts(after), before.source, after.source)
    check_same_pixels(before, after)


def _is_base_of(after: VisionLanguageModel, before: VisionLanguageModel) -> bool:
    """Whether the second model is the base of the first, and not an equal of it."""
    if before.base_fingerprint is None or after.base_fingerprint is not None:
        return False
    fingerprint = encoder_fingerprint(after)
    return before.base_fingerprint == fingerprint != encoder_fingerprint(before)


def _of_one_base(before: VisionLanguageModel, after: VisionLanguageModel) -> bool:
    """Whether nothing is known of another base: an adapter's own, a twin's, or its merge's."""
    if after.base_fingerprint in (None, before.base_fingerprint, encoder_fingerprint(before)):
        return True
    weights = encoder_state(before), encoder_state(after)
    shapes = [{name: one.shape for name, one in own.items()} for own in weights]
    return shapes[0] == shapes[1] and weight_drift(*weights).total < _MERGED
