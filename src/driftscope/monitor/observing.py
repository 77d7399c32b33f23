"""One look at the model in training: everything that one pass gives, or why it gives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from driftscope.assess import PRETRAINED_TEXTS, Assessment, assess, refuse_another_size
from driftscope.backbones.capture import check_adapters_in_effect
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state
from driftscope.errors import CaptureError, ModelError, NonFiniteError
from driftscope.monitor.alerts import UNREADABLE, Alert, Thresholds, unchanged_alert
from driftscope.monitor.observation import Observation, levels_of
from driftscope.reference import Reference
from driftscope.signals.weights import SIXTEEN_BITS, is_at_most_rounded
from driftscope.sources import open_clip
from driftscope.sources.live import Target, live_model
from driftscope.sources.state_dict import told_of_half_precision
from driftscope.text_space import text_weights
from driftscope.transfer import BESIDE_RETENTION


@dataclass(frozen=True)
class Look:
    """What was seen, and what of it is no number.

    Attributes:
        observation: with the alerts that one look alone can raise.
        live: the model, for keeping; None where it is not worth it, or cannot be done.
        shown_rows: attention of the shown images, [image, layer, head, patch]; None where it could
            not be read.
        not_kept_because: why `live` is None, in words that go on from "no model is kept: ".
        text_tower: which one's class embeddings score, as `Assessment` says it; None where it was
            not found.
    """

    observation: Observation
    live: VisionLanguageModel | None = None
    shown_rows: Tensor | None = None
    not_kept_because: str = ""
    text_tower: str | None = None


def look(
    target: Target,
    reference: Reference,
    place: Observation,
    earlier: Sequence[Observation],
    thresholds: Thresholds,
    text_tower: str | None = None,
) -> Look:
    """Reads the model; what cannot be read becomes an alert, so that no training dies of it.

    Args:
        target: the model in training.
        reference: what it is compared with.
        place: an observation with its step, epoch and accuracy.
        earlier: the observations before it.
        thresholds: which alerts are wanted.
        text_tower: what the look before found of it. One that was the pretrained one then, and is
            not trained, still is; else its weights are looked at.

    Raises:
        ModelError: the model is not of the pretrained one's architecture.
    """
    _refuse_shards(target)
    try:
        return _read(target, reference, place, earlier, thresholds, text_tower)
    except torch.OutOfMemoryError:
        sentence, why = _NO_MEMORY, "there was no memory left to copy it"
    except RuntimeError as error:  # of torch's own, as where an attention kernel takes no float32
        why = first_line(error)
        sentence = f"The model could not be run for this observation: {why}"
    seen = _unreadable(place, UNREADABLE, sentence, wanted=thresholds.unreadable)
    return Look(seen, not_kept_because=why)


def refuse_unfit(target: Target, reference: Reference) -> None:
    """Raises ModelError where a training that begins could not be observed, for its image size."""
    if target.kind != open_clip.KIND:  # which is converted at the first look
        refuse_another_size(reference, live_model(target, reference.pretrained))


def first_line(error: BaseException) -> str:
    """An error's message without what torch adds below it."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _read(
    target: Target,
    reference: Reference,
    place: Observation,
    earlier: Sequence[Observation],
    thresholds: Thresholds,
    text_tower: str | None,
) -> Look:
    live = live_model(target, reference.pretrained)
    if reference.is_at_another_size:
        refuse_another_size(reference, live)
    try:
        check_adapters_in_effect(target.found)
    except CaptureError as error:
        wanted = thresholds.adapter_inactive
        return Look(_unreadable(place, "adapter_inactive", str(error), wanted=wanted), live)
    is_trained = any(one.requires_grad for one in text_weights(live).values())
    is_frozen = text_tower == PRETRAINED_TEXTS and not is_trained
    try:
        found = assess(live, reference, text_tower_is_frozen=is_frozen)
    except NonFiniteError as error:
        seen = _unreadable(place, "diverged", str(error), wanted=thresholds.diverged)
        return Look(seen, not_kept_because="its weights or outputs are not finite")
    except CaptureError as error:
        wanted = thresholds.no_attention
        return Look(_unreadable(place, "no_attention", str(error), wanted=wanted), live)
    alerts: tuple[Alert, ...] = ()
    drifted = found.drift.weight_drift
    has_had_time = _is_well_under_way(place) or _has_drifted_before(drifted, earlier)
    may_be_rounding = drifted is not None and drifted <= _MOST_ROUNDING
    is_suspect = has_had_time and may_be_rounding and _is_trained(target, live)
    if is_suspect and _is_unchanged(live, reference):
        has_adapter = any(hasattr(module, "lora_A") for module in target.found.modules())
        alerts = unchanged_alert(place.step, has_adapter=has_adapter, thresholds=thresholds)
    kinds = {one.dtype for one in live.plain.parameters()} & set(SIXTEEN_BITS)
    told = told_of_half_precision(reference.sixteen_bits, kinds, live.source)
    live = replace(live, notes=(*live.notes, *told))
    seen = replace(
        place,
        drift=found.drift,
        levels=levels_of(found.reading),
        transfer=_scores(found),
        retrieval=found.retrieval,
        estimate=found.estimate.to_dict() if found.estimate else {},
        alerts=alerts,
    )
    return Look(seen, live, found.reading.shown_rows, text_tower=found.text_tower)


def _scores(found: Assessment) -> dict[str, dict[str, Any]]:
    """By transfer set the counts that are followed; `flows` give retention its interval."""
    return {
        name: {
            **{field: change[field] for field in _SCORE_FIELDS},
            "flows": {field: change["flows"][field] for field in ("num_lost", "num_gained")},
            "text_tower": found.text_tower,
        }
        for name, change in found.transfer.items()
    }


def _is_well_under_way(place: Observation) -> bool:
    """Whether so much is done that no warmup from rate 0 or skipped step explains no change."""
    return place.step > _FEW_STEPS or (place.epoch is not None and place.epoch >= 1)


def _has_drifted_before(weight_drift: float | None, earlier: Sequence[Observation]) -> bool:
    """Whether the last observation, after a step at least, saw the same weight drift."""
    last = earlier[-1] if earlier else None
    return bool(last and last.step > 0 and last.drift and last.drift.weight_drift == weight_drift)


def _is_unchanged(live: VisionLanguageModel, reference: Reference) -> bool:
    """Whether its weights are the pretrained ones, in the numbers that it is trained in."""
    return is_at_most_rounded(reference.weights, encoder_state(live))


_MOST_ROUNDING = 2.0**-8
"""No rounding to 16 bits drifts weights further: bfloat16 keeps 8 bits of each."""
_FEW_STEPS = 10
_SCORE_FIELDS = (
    "num_correct",
    "num_images",
    "accuracy_pct",
    "wilson_low_pct",
    "wilson_high_pct",
    "retention_pct",
    *BESIDE_RETENTION,
)
_NO_MEMORY = (
    "There was no memory left to read the model beside the training; give fewer images with "
    "max_images and transfer_images."
)


def _unreadable(place: Observation, kind: str, sentence: str, *, wanted: bool) -> Observation:
    return replace(place, alerts=(Alert(kind, sentence, place.step),) if wanted else ())


def _refuse_shards(target: Target) -> None:
    parameters = list(target.found.parameters())
    if any(one.numel() == 0 or type(one.data).__name__ == "DTensor" for one in parameters):
        raise ModelError(
            "The model's parameters are spread over processes (FSDP, DeepSpeed ZeRO-3), so no one "
            "process can read it; gather them first, or monitor the checkpoints with "
            "driftscope compare."
        )


def _is_trained(target: Target, live: VisionLanguageModel) -> bool:
    """Whether training is meant to move the encoder, in all or in part."""
    if target.alone is not None:
        parts = dict(target.found.named_parameters())
    elif target.kind == open_clip.KIND:  # what is read of it may be a copy
        parts = dict(target.found.get_submodule("visual").named_parameters())
    else:
        is_encoder = live.backbone.is_encoder_weight
        parts = {name: one for name, one in live.plain.named_parameters() if is_encoder(name)}
    return any(parameter.requires_grad for parameter in parts.values())
