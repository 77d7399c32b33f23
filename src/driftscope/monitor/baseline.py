"""What is known of the pretrained model, kept when it is itself long trained away."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor, nn

from driftscope.assess import (
    WatchedImages,
    encode,
    watched_images,
    zero_shot_outcome,
    zero_shot_pixels,
)
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import check_same_function, function_facts
from driftscope.backbones.weights import encoder_fingerprint, encoder_state
from driftscope.comparison import check_same_towers, general_texts
from driftscope.errors import ConfigError, ModelError
from driftscope.monitor.isolation import isolated_from_training
from driftscope.reading import Drift, drift
from driftscope.reading_pass import TextProbe, text_drift
from driftscope.records import Overlay
from driftscope.reference_cache import Encoded, cached_encoding
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import weight_drift
from driftscope.sources import default_device, load, open_clip
from driftscope.sources.live import LIVE_NAME, find_target, from_module
from driftscope.transfer import Outcome, TransferSet, class_embeddings, transfer_set

NUM_SHOWN = 6
"""Images whose attention is kept for looking at."""
OWN_TEXTS = "its own"
"""What a score says of its `text_tower` where that has moved."""
_SCORE_FIELDS = ("num_correct", "num_images", "accuracy_pct", "wilson_low_pct", "wilson_high_pct")


@dataclass(frozen=True)
class Baseline:
    """The pretrained model in numbers, and the images it was read on.

    Attributes:
        facts: the pretrained model without its weights: pixels, tokenizer, source. Its `module`
            holds the image projection only.
        fingerprint: of its image encoder.
        images: the probe set, then the images of the transfer sets that are not in it.
        shown: the probe images whose attention is kept for looking at.
        encoded: the pretrained reading and embeddings of them.
        weights: a copy of its encoder's weights, on the CPU.
        function: what decides its function beside them.
        text_digest: of the text tower's weights, to notice when training moves that too.
        texts: the fixed texts of text-space drift; None without.
        transfer: the zero-shot benchmarks.
        outcomes: what the pretrained model made of them.
    """

    facts: VisionLanguageModel
    fingerprint: str
    images: WatchedImages
    shown: tuple[int, ...]
    encoded: Encoded
    weights: Mapping[str, Tensor]
    function: Mapping[str, object]
    text_digest: str
    texts: TextProbe | None
    transfer: tuple[TransferSet, ...]
    outcomes: Mapping[str, Outcome]
    maps: bool

    def read(self, live: VisionLanguageModel) -> Encoded:
        """One pass of the live model over all images."""
        return encode(live, self.images, maps=self.maps, shown=self.shown)

    def check(self, live: VisionLanguageModel, weights: Mapping[str, Tensor]) -> None:
        """Raises ModelError where a live encoder cannot have been this model before."""
        check_same_towers(self.weights, weights, self.facts.source, LIVE_NAME)
        check_same_function(self.function, function_facts(live), self.facts.source, LIVE_NAME)

    def drift(self, encoded: Encoded, weights: Mapping[str, Tensor]) -> Drift:
        """How far a model, by its reading and its encoder's weights, is from the pretrained."""
        before, after = self.encoded.reading, encoded.reading
        text: TextSpaceDrift | None = None
        if self.texts is not None:
            text = text_drift(after, before, self.texts)
        return drift(after, before, weights=weight_drift(self.weights, weights), text=text)

    def scores(
        self, live: VisionLanguageModel, encoded: Encoded, *, text_is_suspect: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Zero-shot score and retention by set; a text tower that has moved scores for itself.

        Whether it has is looked at while it is in training, or where it is suspect anyway.
        """
        found: dict[str, dict[str, Any]] = {}
        text_moved = bool(self.transfer) and self._text_moved(live, text_is_suspect)
        for one in self.transfer:
            texts = one.text_embeddings
            if text_moved:
                texts = class_embeddings(live, one.class_names, one.rules).to(texts)
            after = zero_shot_outcome(one, encoded, self.images, texts)
            change = one.change(after, self.outcomes[one.name])
            kept = (*_SCORE_FIELDS, "retention_pct")
            found[one.name] = {name: change[name] for name in kept}
            flows = change["flows"]  # without them retention has no interval
            found[one.name]["flows"] = {name: flows[name] for name in ("num_lost", "num_gained")}
            found[one.name]["text_tower"] = OWN_TEXTS if text_moved else "the pretrained one"
        return found

    def _text_moved(self, live: VisionLanguageModel, is_suspect: bool) -> bool:
        is_text = live.backbone.is_text_weight
        parts = [one for name, one in live.module.named_parameters() if is_text(name)]
        may_have = bool(parts) and (is_suspect or any(part.requires_grad for part in parts))
        return may_have and text_tower_digest(live) != self.text_digest

    def overlay(self, shown_rows: Tensor) -> Overlay:
        """The attention of the shown images before and after, for looking at."""
        pictures = self.images.probe_pixels[list(self.shown)]
        before = self.encoded.reading.shown_rows
        maps = [
            rows.reshape(*rows.shape[:-1], math.isqrt(rows.shape[-1]), -1).numpy()
            for rows in (shown_rows if before is None else before, shown_rows)
        ]
        return Overlay(pictures.permute(0, 2, 3, 1).numpy(), *maps)

    def describe(self) -> dict[str, Any]:
        """What was read and against what, as JSON values."""
        return {
            "pretrained": self.facts.source,
            "pretrained_fingerprint": self.fingerprint,
            "num_images": len(self.images.probe_pixels),
            "images_fingerprint": self.images.fingerprint,
            "transfer": [
                {
                    "name": one.name,
                    "fingerprint": one.fingerprint,
                    "num_images": len(one.labels),
                    "pretrained_zero_shot_pct": self.outcomes[one.name].score.accuracy_pct,
                    "unknown_words": list(one.unknown_words),
                }
                for one in self.transfer
            ],
        }


def make_baseline(
    pretrained: VisionLanguageModel,
    probe_pixels: Tensor,
    *,
    transfer: Sequence[str],
    vocabulary: str | Sequence[str] | None,
    max_transfer_images: int | None,
    maps: bool,
) -> Baseline:
    """Reads the pretrained model (or takes its reading from the cache) and copies its weights.

    Raises:
        ModelError, DataError, ConfigError: a transfer set or the vocabulary cannot be used.
    """
    texts = _texts(pretrained, vocabulary)
    sets = tuple(transfer_set(name, pretrained, max_transfer_images) for name in transfer)
    images = watched_images(probe_pixels, zero_shot_pixels(sets))
    count = min(NUM_SHOWN, len(probe_pixels))
    shown = tuple(torch.linspace(0, len(probe_pixels) - 1, count).long().tolist())
    encoded = cached_encoding(
        pretrained,
        f"{images.fingerprint}-maps={maps}-shown={count}",
        lambda: encode(pretrained, images, maps=maps, shown=shown),
    )
    outcomes = {
        one.name: zero_shot_outcome(one, encoded, images, one.text_embeddings) for one in sets
    }
    return Baseline(
        facts=_without_weights(pretrained),
        fingerprint=encoder_fingerprint(pretrained),
        images=images,
        shown=shown,
        encoded=encoded,
        weights={
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in encoder_state(pretrained).items()
        },
        function=function_facts(pretrained),
        text_digest=text_tower_digest(pretrained),
        texts=texts,
        transfer=sets,
        outcomes=outcomes,
        maps=maps,
    )


def pretrained_model(
    source: str | Path | VisionLanguageModel | nn.Module, model_path: str | None
) -> VisionLanguageModel:
    """The pretrained model as it was given, ready to be read.

    Raises:
        ModelError: it cannot be loaded, is no CLIP with both towers, or carries an adapter.
    """
    if isinstance(source, VisionLanguageModel):
        return source
    with isolated_from_training(torch.device("cpu")):  # a module draws its first weights when made
        if isinstance(source, str | Path):
            return load(source, device=default_device())
        return _given_model(source, model_path)


def _given_model(module: nn.Module, model_path: str | None) -> VisionLanguageModel:
    target = find_target(module, model_path)
    if not target.has_text_tower:
        raise ModelError(
            f"The pretrained model is a {target.kind}, which has no text tower; give the CLIPModel "
            "it comes from, or its name."
        )
    if any(type(module).__module__.startswith("peft.") for module in target.found.modules()):
        raise ModelError(
            "The pretrained model carries a PEFT adapter already; give the model before "
            "get_peft_model, or its name, so that there is an untouched one to compare with."
        )
    if target.kind == open_clip.KIND:
        convention = open_clip.live_convention(target.found)
        return open_clip.from_open_clip(open_clip.converted(target.found), **convention)
    return from_module(target.found)


def text_tower_digest(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of the weights of a model's text tower and its projection."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.plain.named_parameters():
        if model.backbone.is_text_weight(name):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _texts(
    pretrained: VisionLanguageModel, vocabulary: str | Sequence[str] | None
) -> TextProbe | None:
    if vocabulary is None:
        return None
    if vocabulary == "general":
        probe = general_texts(pretrained)
    elif not _is_texts(vocabulary):
        raise ConfigError(
            f"vocabulary is 'general', a list of texts or None, got {short(vocabulary)}; for one "
            "text give a list of it"
        )
    elif pretrained.tokenizer is None:
        raise ModelError(
            f"{pretrained.source} has no tokenizer, so the vocabulary cannot be embedded; put the "
            "tokenizer files into its folder, or give vocabulary=None"
        )
    else:
        probe = general_texts(pretrained, vocabulary)
    if probe is None:
        return None
    return replace(probe, vocabulary=probe.vocabulary.cpu(), random_texts=probe.random_texts.cpu())


def _is_texts(vocabulary: object) -> bool:
    if not isinstance(vocabulary, Sequence) or isinstance(vocabulary, str):
        return False
    return len(vocabulary) > 0 and all(isinstance(text, str) for text in vocabulary)


def _without_weights(pretrained: VisionLanguageModel) -> VisionLanguageModel:
    """The model's facts, with a copy of its image projection and no other weight."""
    holder = nn.Module()
    projection = pretrained.backbone.projection_name
    if projection is not None:
        holder.add_module(projection, copy.deepcopy(pretrained.plain.get_submodule(projection)))
    return replace(pretrained, module=holder)
