"""What driftscope keeps of a run: an adapter, or the tensors that training changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, one_line
from driftscope.files import named_path
from driftscope.records import ADAPTED_FOLDER
from driftscope.sources import adapter
from driftscope.sources.form import Beside
from driftscope.sources.origin import ORIGIN_FILE, checked_base, noted

DELTA_FILE = "delta.safetensors"


def recognises(name: str) -> bool:
    """Whether it is a run folder that holds its model, or the folder of that model."""
    return (model_folder(name) / ORIGIN_FILE).exists()


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """The kept model: its adapter, or its changed tensors, on the base that it came from."""
    folder = model_folder(name)
    if (folder / adapter.CONFIG_FILE).exists():
        return adapter.load_adapter(folder, name, beside)
    return _load_delta(folder, name, beside)


def model_folder(name: str) -> Path:
    """Where the model of a run folder lies."""
    folder = named_path(name)
    inner = folder / ADAPTED_FOLDER
    return inner if (inner / ORIGIN_FILE).exists() else folder


def _load_delta(folder: Path, name: str, beside: Beside) -> VisionLanguageModel:
    from safetensors.torch import load_file

    base, notes = beside.base([noted(folder, "base")], name)
    fingerprint = checked_base(folder, name, base)
    try:
        found = load_file(folder / DELTA_FILE)
        state = {name.removeprefix(base.own_prefix): tensor for name, tensor in found.items()}
        unknown = base.module.load_state_dict(state, strict=False).unexpected_keys
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"the weights of {name} cannot be loaded: {one_line(error)}") from None
    if unknown:
        raise ModelError(f"{name} does not fit its base {base.source}: it has {unknown[0]}")
    return replace(base, source=name, base_fingerprint=fingerprint, notes=base.notes + notes)
