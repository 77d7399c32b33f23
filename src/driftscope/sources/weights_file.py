"""Weights alone: a file without a configuration, or a folder that holds such a file."""

from __future__ import annotations

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError
from driftscope.files import named_path
from driftscope.sources import open_clip
from driftscope.sources.fitting import completed
from driftscope.sources.form import Beside
from driftscope.sources.state_dict import read_tensors_of, weights_in


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
    return completed(state, beside.like, name)
