"""What lies on disk or on the hub, or lives in memory -> a loaded model.

`load` takes what a user has. Every form is a file here and a row of `SOURCES`. What comes out is
always called through the live path, so that an adapter, where there is one, is in effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, NoteWarning, shown, told_as
from driftscope.files import named_path
from driftscope.sources import (
    adapter,
    embedded,
    hub,
    open_clip,
    run_folder,
    tower_alone,
    weights_file,
)
from driftscope.sources.form import Beside, Form
from driftscope.sources.nothing_here import no_model
from driftscope.sources.plausible import (
    refuse_large_texts,
    refuse_pipes,
    refuse_scale_without_logarithm,
)

SOURCES: tuple[Form, ...] = (
    *(embedded, open_clip, run_folder, adapter, tower_alone, hub, weights_file),
)
"""The forms, asked in this order."""

_BEING_LOADED: ContextVar[tuple[str, ...]] = ContextVar("being_loaded", default=())


def load(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    like: VisionLanguageModel | None = None,
) -> VisionLanguageModel:
    """Loads a model, adapted or not.

    Args:
        source: `"mini"` or `"mini-p14"`, a hub id such as `openai/clip-vit-base-patch32` (of a
            revision: `ID@REVISION`), a folder in hub layout, a PEFT adapter's folder or hub id, a
            run folder of driftscope (its selected model), a folder of open_clip,
            `open_clip:NAME:FILE`, or a file of weights. docs/models.md lists all forms.
        device: where the weights go, such as `cpu` or `cuda:0`.
        like: the model that it belongs to, for what the source lacks: the configuration of a file
            of weights, the text tower of an image tower, the base of an adapter. What is taken
            from there is told in a `NoteWarning` and in the model's `notes`.

    Raises:
        ModelError: nothing loadable is there, or no such device; the sentence says what was
            looked for and where.
    """
    if not isinstance(source, str | Path):
        raise ModelError(
            f"a model is loaded by its name or its place, and {type(source).__name__} is neither; "
            "of a model in memory save it (save_pretrained) and give the folder, or watch it by "
            "driftscope.Monitor"
        )
    place = usable_device(device)
    model = _found(str(source), like)
    for note in model.notes:
        warnings.warn(note, NoteWarning, stacklevel=2)
    return model.to(place)


def _found(name: str, like: VisionLanguageModel | None = None) -> VisionLanguageModel:
    form = _form_of(name)
    with _not_on_itself(name), told_as(ModelError, f"the model {name} cannot be loaded"):
        found = form.load(name, Beside(_found, like))
        refuse_scale_without_logarithm(found, name)
        return found


def refuse_what_is_no_model(name: str) -> None:
    """Raises `ModelError` where no form of a model is recognised; nothing is loaded."""
    _form_of(name)


def _form_of(name: str) -> Form:
    try:
        named_path(name).exists()
    except OSError:
        told = "no file, folder or repository has so long a name"
        raise ModelError(f"no model {shown(name)}: {told}") from None
    refuse_pipes(named_path(name))
    refuse_large_texts(named_path(name))
    form = next((one for one in SOURCES if one.recognises(name)), None)
    if form is None:
        raise ModelError(no_model(name))
    return form


def is_on_hub_alone(name: str) -> bool:
    """Whether a model may be on the hub and is not in a place of this disk that has its name."""
    first = next((form for form in SOURCES if form.recognises(name)), None)
    return first is hub and not named_path(name).exists()


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
