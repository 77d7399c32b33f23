"""Adaptation: how a pretrained model becomes trainable, and how the result is kept.

A method is a function from a copy of the pretrained model to what is trained. The pretrained
model itself is never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from driftscope.adapt.methods import METHODS
from driftscope.adapt.model import AdaptedModel, restore_trainable, trainable_state
from driftscope.adapt.storage import (
    CLASSIFIER_FILE,
    export_merged,
    load_classifier,
    save_adapted,
    save_adapter,
    save_delta,
)
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config.variants import Flyp, MethodSpec
from driftscope.data.prompts import PromptRules
from driftscope.errors import ConfigError, ModelError
from driftscope.transfer import class_embeddings

__all__ = [
    "CLASSIFIER_FILE",
    "METHODS",
    "AdaptedModel",
    "adapt",
    "derived_seed",
    "export_merged",
    "load_classifier",
    "restore_trainable",
    "save_adapted",
    "save_adapter",
    "save_delta",
    "seeded",
    "trainable_state",
]


def adapt(
    pretrained: VisionLanguageModel,
    method: MethodSpec,
    num_classes: int,
    seed: int,
    *,
    class_names: Sequence[str] = (),
    rules: PromptRules | None = None,
    embedding_norm: float = 1.0,
) -> AdaptedModel:
    """A trainable copy of the pretrained model with a fresh classifier.

    The encoder equals the pretrained one at this point; the random parts (classifier, LoRA's A)
    come from `seed` alone, and the global random state is left as it was.

    Args:
        pretrained: not touched.
        method: what is trained.
        num_classes: of the target task.
        seed: of the random parts.
        class_names: for methods and heads that read class prompts.
        rules: how class names become prompts.
        embedding_norm: the typical length of an image embedding, so that the logits of a
            zero-shot head are as large as the model's own zero-shot logits.

    Raises:
        ModelError: the method does not fit the model, or needs class names that are not given.
        ConfigError: FLYP is to take several prompts a class for captions.
    """
    if pretrained.is_adapter:  # under its wrapper no weight has the name that methods know it by
        raise ModelError(
            f"{pretrained.source} is an adapter on its base, and methods adapt a plain model; "
            f"merge it (driftscope export {pretrained.source} --out FOLDER) and adapt FOLDER"
        )
    copy = replace(pretrained, module=deepcopy(pretrained.module))
    copy.module.requires_grad_(False)
    with seeded(pretrained.device, seed, "initialisation"):
        classifier = nn.Linear(pretrained.embedding_dim, num_classes).to(pretrained.device)
        model = METHODS[method.kind](copy, method)
    if isinstance(method, Flyp):
        captions = _captions(_given(class_names, num_classes, method), rules or PromptRules())
        return AdaptedModel(model, None, model.tokenised(captions))
    if method.head == "zero_shot":
        named = _given(class_names, num_classes, method)
        directions = class_embeddings(pretrained, named, rules)
        with torch.no_grad():
            classifier.weight.copy_(pretrained.logit_scale / embedding_norm * directions)
            classifier.bias.zero_()
    return AdaptedModel(model, classifier)


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[None]:
    """A stretch of code whose global randomness comes from `parts` alone; restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(*parts))
        yield


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, unrelated to that of any other: a hash of the parts."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _captions(class_names: Sequence[str], rules: PromptRules) -> list[str]:
    prompts = rules.prompts(class_names)
    if len(prompts[0]) > 1:
        raise ConfigError(
            f"flyp takes one prompt a class as its caption, but the templates "
            f"{list(rules.templates)} give {len(prompts[0])}; give one, such as 'a photo of a {{}}'"
        )
    return [caption for (caption,) in prompts]


def _given(class_names: Sequence[str], num_classes: int, method: MethodSpec) -> Sequence[str]:
    if len(class_names) != num_classes:
        raise ModelError(
            f"{method.label} reads class prompts, but {len(class_names)} class names were given "
            f"for {num_classes} classes"
        )
    return class_names
