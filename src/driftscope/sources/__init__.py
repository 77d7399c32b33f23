"""What lies on disk or on the hub, or lives in memory -> a loaded model.

`load` takes what a user has. Every form is a file here and a row of `SOURCES`. What comes out is
always called through the live path, so that an adapter, where there is one, is in effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

import torch

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, NoteWarning, told_as
from driftscope.files import named_path
from driftscope.sources import adapter, embedded, hub, open_clip, run_folder

Loader = Callable[[str], VisionLanguageModel]

SOURCES: tuple[ModuleType, ...] = (embedded, open_clip, run_folder, adapter, hub)
"""The forms, asked in this order. Each has `recognises(name)` and `load(name, load_base)`, where
`load_base` loads what the form stands on by its own name."""

_BEING_LOADED: ContextVar[tuple[str, ...]] = ContextVar("being_loaded", default=())


def load(source: str | Path, *, device: torch.device | str = "cpu") -> VisionLanguageModel:
    """Loads a model, adapted or not.

    Args:
        source: `"mini"` or `"mini-p14"`, a hub id such as `openai/clip-vit-base-patch32`, a folder
            in hub layout, a PEFT adapter folder (its base is loaded too), a run folder of
            driftscope (its selected model), or `open_clip:NAME:FILE` for an open_clip checkpoint.
        device: where the weights go, such as `cpu` or `cuda:0`.

    Raises:
        ModelError: nothing loadable is there, or no such device; the sentence says what was
            looked for and where.
    """
    place = usable_device(device)
    name = str(source)
    for form in SOURCES:
        if form.recognises(name):
            with _not_on_itself(name), told_as(ModelError, f"the model {name} cannot be loaded"):
                model: VisionLanguageModel = form.load(name, load)
            for note in model.notes:
                warnings.warn(note, NoteWarning, stacklevel=2)
            return model.to(place)
    raise ModelError(_no_form(name))


@contextmanager
def _not_on_itself(name: str) -> Iterator[None]:
    """Refuses an adapter whose base is, at whatever remove, the adapter."""
    place = named_path(name)
    key = str(place.resolve()) if place.exists() else name
    above = _BEING_LOADED.get()
    if key in above:
        raise ModelError(f"{name} stands on itself: its base, or that one's base, is {name} again")
    token = _BEING_LOADED.set((*above, key))
    try:
        yield
    finally:
        _BEING_LOADED.reset(token)


def _no_form(name: str) -> str:
    path = named_path(name)
    if path.is_dir():
        return (
            f"{name} holds no model: there is no config.json (a model in hub layout), "
            "adapter_config.json (a PEFT adapter) or adapted/ (a finished run) in it"
        )
    if path.exists():
        return (
            f"{name} is a file; a model is a folder in hub layout (with config.json), an open_clip "
            f"checkpoint is named {open_clip.PREFIX}ViT-B-32:{name}"
        )
    return f"no model at {name}: that folder does not exist"


def default_device() -> str:
    """Where models run unless told: CUDA where there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        ModelError: there is no such device here.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelError(
            f"no device {str(device)!r} that this PyTorch can use; there is {', '.join(there)}"
        ) from None
    return place
