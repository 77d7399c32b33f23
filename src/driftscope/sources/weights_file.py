"""Weights alone: a file without a configuration, or a folder that holds such a file."""

from __future__ import annotations

import re
from dataclasses import replace

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError
from driftscope.files import named_path
from driftscope.sources import open_clip
from driftscope.sources.fitting import completed
from driftscope.sources.form import Beside
from driftscope.sources.state_dict import OF_SHARD, read_tensors_of, weights_in

_FURTHER = re.compile(r"(pytorch_)?model_\d+\.(bin|safetensors)")
"""How accelerate calls the models of a training behind the first."""


def recognises(name: str) -> bool:
    """Whether it is a file of weights, or a folder with one and no configuration."""
    return weights_in(named_path(name)) is not None


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """The weights, with the configuration of the model that they are compared with.

    Raises:
        ModelError: there is no such model, or they do not fit it.
    """
    path = weights_in(named_path(name))
    if path is None:
        raise ModelError(f"{name} is no file of weights")
    if OF_SHARD.search(path.name):
        raise ModelError(
            f"{path} is one of several parts of a model; give their folder, with its config.json, "
            "or their index (model.safetensors.index.json, pytorch_model.bin.index.json)"
        )
    state = read_tensors_of(path)
    if open_clip.is_tower_alone(state) and beside.like is not None:
        return open_clip.completed_tower(state, beside.like, name)
    if open_clip.holds(state):
        return open_clip.from_state(state, name, beside.like, path)
    if beside.like is None:
        raise ModelError(
            f"{name} holds weights without a configuration; give it as the second model of a "
            "comparison, whose first one has it (ds.load(FILE, like=MODEL)), or put its "
            "config.json beside it and give the folder"
        )
    model = completed(state, beside.like, name)
    beside_it = path.parent.iterdir() if named_path(name).is_dir() else ()
    names = {one.name for one in beside_it if _FURTHER.fullmatch(one.name)}
    if further := sorted(names - {path.name}):
        note = f"{name} holds {path.name} and {', '.join(further)}: the first is read"
        return replace(model, notes=(*model.notes, note))
    return model
