"""The texts that text-space drift is read against, and whether the text tower has moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.base import WRAPPERS
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.prompts import class_prompts
from driftscope.data.vocabulary import GENERAL, GENERAL_VOCABULARY
from driftscope.errors import ConfigError, ModelError, one_line
from driftscope.metrics import drifts
from driftscope.protocols import WITHOUT_TEXTS
from driftscope.reading_pass import TextProbe, random_texts
from driftscope.reference_cache import CachedModel
from driftscope.transfer.doubts import unknown_words

MIN_GENERAL_TEXTS = 10
"""With fewer known words of the general vocabulary a zero-shot distribution says nothing."""
MIN_OWN_TEXTS = 2
_ALIKE = 1e-6
"""Texts whose embeddings differ by less than this cosine distance are read as one."""


@dataclass(frozen=True)
class Texts:
    """The texts that text-space drift is read against.

    Attributes:
        probe: their embeddings; None where text-space drift cannot be measured.
        described: what they are, in words.
        unmeasured: why a number of text-space drift is missing, by its key.
    """

    probe: TextProbe | None
    described: str
    unmeasured: Mapping[str, str] = field(default_factory=dict)


def texts_of_drift(cached: CachedModel, vocabulary: str | Sequence[str] | None) -> Texts:
    """The embedded texts, or why text-space drift cannot be measured."""
    model = cached.model
    if vocabulary is None:
        return _no_texts("none", "no vocabulary was wanted (vocabulary=None)")
    if vocabulary == GENERAL:
        if model.tokenizer is None:
            lacking = "has no tokenizer" if model.has_text else WITHOUT_TEXTS
            return _no_texts(GENERAL, f"{model.source} {lacking}")
        known = [word for word in GENERAL_VOCABULARY if not unknown_words(model, [word])]
        texts, least = class_prompts(known), MIN_GENERAL_TEXTS
        described = f"{GENERAL}, {len(known)} of its {len(GENERAL_VOCABULARY)} words"
        if len(known) < least:
            return _no_texts(
                described,
                f"the tokenizer knows {len(known)} of the {len(GENERAL_VOCABULARY)} words of the "
                f"general vocabulary, and {least} are needed",
            )
    else:
        texts, least = _checked_texts(model, vocabulary), MIN_OWN_TEXTS
        described = f"{len(texts)} texts of your own, not the general vocabulary"
    try:
        embedded = cached.texts(texts)
    except ModelError as error:  # which a transfer set, or texts of one's own, would be refused by
        if vocabulary != GENERAL:
            raise
        return _no_texts(described, one_line(error))
    different = _without_copies(embedded)
    if len(different) < least:
        return _no_texts(
            described,
            f"the {len(texts)} texts embed as only {len(different)} different one"
            f"{'' if len(different) == 1 else 's'}, and {least} are needed: does the tokenizer "
            "know their words?",
        )
    if len(different) < len(texts):
        described += f" ({len(different)} of them differ once embedded)"
    at_random = cached.texts(random_texts(model.tokenizer))
    is_readable = len(_without_copies(at_random)) >= MIN_OWN_TEXTS
    unmeasured = {} if is_readable else {"random_text_logit_change": "random texts embed alike"}
    random = at_random if is_readable else None
    probe = TextProbe(different, random, model.logit_scale, model.logit_bias)
    return Texts(probe, described, unmeasured)


def _no_texts(described: str, reason: str) -> Texts:
    keys = [one.key for one in drifts() if one.group == "text space"]
    return Texts(None, described, dict.fromkeys(keys, reason))


def _without_copies(embedded: Float[Tensor, "text dim"]) -> Float[Tensor, "different dim"]:
    """The first of all texts that embed alike, in order."""
    directions = functional.normalize(embedded.double(), dim=-1)
    alike = directions @ directions.T > 1 - _ALIKE
    is_first = ~torch.tril(alike, diagonal=-1).any(dim=1)
    return embedded[is_first]


def _checked_texts(model: VisionLanguageModel, vocabulary: str | Sequence[str]) -> list[str]:
    is_list = isinstance(vocabulary, Sequence) and not isinstance(vocabulary, str)
    if not is_list or not vocabulary or not all(isinstance(text, str) for text in vocabulary):
        raise ConfigError(
            f"vocabulary is 'general', a list of texts or None, got {short(vocabulary)}; for one "
            "text give a list of it"
        )
    if model.tokenizer is None:
        raise ModelError(
            f"{model.source} has no tokenizer, so the vocabulary cannot be embedded; put the "
            "tokenizer files into its folder, or give vocabulary=None"
        )
    return list(vocabulary)


def text_weights(model: VisionLanguageModel) -> dict[str, nn.Parameter]:
    """The parameters of the text tower and its projection; empty where there is none."""
    is_text = model.backbone.is_text_weight
    return {name: one for name, one in model.plain.named_parameters() if is_text(name)}


def text_tower_has_moved(model: VisionLanguageModel, digest: str) -> bool:
    """Whether a model has a text tower, and another than that of the `text_tower_digest`."""
    return bool(text_weights(model)) and text_tower_digest(model) != digest


def text_tower_digest(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of the weights of the text tower and its projection."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in text_weights(model).items():
        digest.update(WRAPPERS.sub("", name).encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
