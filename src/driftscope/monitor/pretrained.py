"""The pretrained model as a monitor is given it: by name, loaded, or as a module in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, NoteWarning
from driftscope.monitor.isolation import isolated_from_training
from driftscope.sources import default_device, load
from driftscope.sources.live import find_target, from_target
from driftscope.sources.preprocessor import assumed_pixels


def pretrained_model(
    source: str | Path | VisionLanguageModel | nn.Module, model_path: str | None
) -> VisionLanguageModel:
    """The pretrained model as it was given, ready to be read.

    A `NoteWarning` says where its preparation of images is assumed.

    Raises:
        ModelError: it cannot be loaded, lacks its text tower, or carries an adapter.
    """
    model = _opened(source, model_path)
    for note in assumed_pixels(model):
        warnings.warn(note, NoteWarning, stacklevel=3)
    return model


def _opened(
    source: str | Path | VisionLanguageModel | nn.Module, model_path: str | None
) -> VisionLanguageModel:
    if isinstance(source, VisionLanguageModel):
        return source
    with isolated_from_training(torch.device("cpu")):  # a module draws its first weights when made
        if isinstance(source, str | Path):
            return load(source, device=default_device())
        return _given_model(source, model_path)


def _given_model(module: nn.Module, model_path: str | None) -> VisionLanguageModel:
    try:
        target = find_target(module, model_path)
    except ModelError:  # the path may lead through what holds the model in training alone
        target = find_target(module)
    if (whole := target.whole) is not None:
        raise ModelError(
            f"The pretrained model is a {target.kind}, which has no text tower; give the {whole} "
            "it comes from, or its name."
        )
    if any(type(module).__module__.startswith("peft.") for module in target.found.modules()):
        raise ModelError(
            "The pretrained model carries a PEFT adapter already; give the model before "
            "get_peft_model, or its name, so that there is an untouched one to compare with."
        )
    return from_target(target)
