"""A blended model written as the adapted one was kept, so that it loads wherever that one did.

A LoRA stays a LoRA: strengths scale its α, of the whole or by layer, or the rows of its B. What
cannot stay what it was becomes a plain model in hub layout, and the reason is told.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from driftscope.adapt.storage import save_delta, save_tensors, write_hub_layout
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state
from driftscope.blending import Blend, Strength, along_rows, of_weight
from driftscope.errors import ModelError, NoteWarning
from driftscope.files import named_path
from driftscope.records import ADAPTED_FOLDER
from driftscope.sources import (
    adapter,
    hub,
    is_on_hub_alone,
    load,
    open_clip,
    run_folder,
    weights_file,
)
from driftscope.sources.origin import ORIGIN_FILE, read_json
from driftscope.sources.state_dict import read_tensors_of, weights_in

_PEFT_PREFIX = "base_model.model."
_LORA_B = ".lora_B."
_LORA = (".lora_A.", _LORA_B, ".lora_embedding_A", ".lora_embedding_B")
_CHANGES_MORE = ("use_dora", "layer_replication", "trainable_token_indices", "lora_bias")
"""Settings of a LoRA under which its change is not α times a product of two matrices."""
_CLOSE = 1e-5
HUB_LAYOUT = "a plain model in hub layout"


@dataclass(frozen=True, eq=False)
class Chosen:
    """A blended model with what it came from.

    Attributes:
        before: the pretrained model.
        adapted: the adapted one, as the user named it.
        blend: of both.
        strengths: α of each group, or of every row of its weights.
    """

    before: VisionLanguageModel
    adapted: str | Path | VisionLanguageModel
    blend: Blend
    strengths: Mapping[str, Strength]

    @property
    def name(self) -> str:
        """What the adapted model is called."""
        is_model = isinstance(self.adapted, VisionLanguageModel)
        return self.adapted.source if is_model else str(self.adapted)  # type: ignore[union-attr]

    @property
    def model(self) -> VisionLanguageModel:
        """The model, a plain one."""
        return self.blend.set(self.strengths)

    @property
    def moved(self) -> dict[str, Tensor]:
        """The weights that differ from the pretrained model's, by name."""
        return {
            name: self.blend.between(name, of_weight(self.strengths.get(group, 0.0), name))
            for group, names in self.blend.delta.groups.items()
            for name in names
        }

    def strength_of(self, name: str) -> float | Tensor | None:
        """A weight's strength, or its rows'; None where it did not move."""
        for group, names in self.blend.delta.groups.items():
            if name in names:
                return of_weight(self.strengths.get(group, 0.0), name)
        return None


def write_like(chosen: Chosen, folder: Path) -> str:
    """Writes the model into an empty folder, and says as what.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
        OSError: it cannot be written.
    """
    if isinstance(chosen.adapted, VisionLanguageModel):
        return _plain(chosen, folder)
    name = str(chosen.adapted)
    if is_on_hub_alone(name):
        name = hub.place_of(name)
    if open_clip.recognises(name) or _is_file_of_open_clip(name):
        return _open_clip(chosen, name, folder)
    if run_folder.recognises(name):
        return _run(chosen, run_folder.model_folder(name), folder)
    if adapter.recognises(name):
        return _adapter(chosen, named_path(name), folder) or _plain(
            chosen, folder, "as its adapter cannot hold these strengths"
        )
    return _plain(chosen, folder)


def _plain(chosen: Chosen, folder: Path, why: str = "") -> str:
    write_hub_layout(chosen.model, folder)
    return f"{HUB_LAYOUT}, {why}" if why else HUB_LAYOUT


def _is_file_of_open_clip(name: str) -> bool:
    path = weights_in(named_path(name)) if weights_file.recognises(name) else None
    is_configured = (named_path(name) / "config.json").exists()
    return path is not None and not is_configured and open_clip.holds(read_tensors_of(path))


def _open_clip(chosen: Chosen, name: str, folder: Path) -> str:
    source = named_path(name.removeprefix("local-dir:"))
    if chosen.model.backbone.kept_by == open_clip.KIND:
        write_hub_layout(chosen.model, folder)
        return "a folder of open_clip"
    if name.startswith("hf-hub:"):
        return _plain(chosen, folder, "as open_clip's configuration is on the hub")
    state = open_clip.to_open_clip(chosen.model.plain.state_dict())
    save_tensors(state, folder / open_clip.WEIGHT_FILES[0])
    if (source / open_clip.CONFIG_FILE).is_file():
        shutil.copyfile(source / open_clip.CONFIG_FILE, folder / open_clip.CONFIG_FILE)
        return "a folder of open_clip"
    return "a file of open_clip"


def _run(chosen: Chosen, source: Path, folder: Path) -> str:
    inner = folder / ADAPTED_FOLDER
    inner.mkdir()
    if (source / adapter.CONFIG_FILE).exists():
        written = _adapter(chosen, source, inner)
    else:
        save_delta(chosen.moved, inner)
        written = "the tensors that training changed"
    if written is None:
        inner.rmdir()
        return _plain(chosen, folder, "as its adapter cannot hold these strengths")
    shutil.copyfile(source / ORIGIN_FILE, inner / ORIGIN_FILE)
    return f"a run's model: {written}"


# ---------------------------------------------------------------- adapters


def _adapter(chosen: Chosen, source: Path, folder: Path) -> str | None:
    """The adapter with strengths in it; None, and nothing, where it cannot have them."""
    config = read_json(source / adapter.CONFIG_FILE)
    if not _is_plain_lora(config):
        return None
    tensors = read_tensors_of(adapter.weights_of(source))
    alphas = _alphas(chosen, config, tensors)
    if alphas is None:
        return None
    scaled = {key: _blended(chosen, key, one) for key, one in tensors.items()}
    (folder / adapter.CONFIG_FILE).write_text(
        json.dumps({**config, **_place_of_base(config, source), **alphas}, indent=2)
    )
    save_tensors(scaled, folder / adapter.WEIGHT_FILES[0])
    if _is_the_model(folder, chosen):
        return f"a LoRA scaled {_scaled_by(chosen, alphas)}"
    for file in (adapter.CONFIG_FILE, adapter.WEIGHT_FILES[0]):
        (folder / file).unlink()
    return None


def _scaled_by(chosen: Chosen, alphas: Mapping[str, Any]) -> str:
    if any(isinstance(one, Mapping) for one in chosen.strengths.values()):
        return "by row"
    return "by layer" if "alpha_pattern" in alphas else "as a whole"


def _is_plain_lora(config: Mapping[str, Any]) -> bool:
    return (
        config.get("peft_type") == "LORA"
        and config.get("bias", "none") == "none"
        and not any(config.get(key) for key in _CHANGES_MORE)
    )


def _alphas(
    chosen: Chosen, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    """The settings that scale a LoRA; None where a layer of it has no strength that is known.

    Strengths of rows are in the factors (`_blended`) and change no setting.
    """
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    found: dict[str, tuple[float, float]] = {}
    for layer in dict.fromkeys(_layer_of(key) for key in tensors if _is_lora(key)):
        name = _weight_name(chosen, f"{layer}.weight")
        if name is None:
            return None
        strength = chosen.strength_of(name)
        own = patterns.get(get_pattern_key(patterns.keys(), layer), config["lora_alpha"])
        found[layer] = (float(own), strength if isinstance(strength, float) else 1.0)
    strengths = {strength for _, strength in found.values()}
    if len(strengths) == 1:
        (strength,) = strengths
        scaled: dict[str, Any] = {"lora_alpha": config["lora_alpha"] * strength}
        if patterns:
            scaled["alpha_pattern"] = {key: one * strength for key, one in patterns.items()}
        return scaled
    return {"alpha_pattern": {layer: alpha * one for layer, (alpha, one) in found.items()}}


def _blended(chosen: Chosen, key: str, tensor: Tensor) -> Tensor:
    """A tensor that was trained whole, or the rows of a LoRA's B, at their strengths.

    A strength of a whole layer is in the settings instead (`_alphas`).
    """
    is_lora = _is_lora(key)
    own_name = f"{_layer_of(key)}.weight" if is_lora else key.removeprefix(_PEFT_PREFIX)
    name = _weight_name(chosen, own_name)
    strength = None if name is None else chosen.strength_of(name)
    if name is None or strength is None:
        return tensor
    precise = torch.promote_types(tensor.dtype, torch.float32)  # half of it would round the blend
    if not is_lora:
        return chosen.blend.between(name, strength).to(precise)
    if _LORA_B not in key or not isinstance(strength, Tensor):
        return tensor
    return (along_rows(strength, tensor) * tensor.double()).to(precise)


def _is_lora(key: str) -> bool:
    return any(part in key for part in _LORA)


def _layer_of(key: str) -> str:
    part = next(part for part in _LORA if part in key)
    return key.removeprefix(_PEFT_PREFIX).split(part)[0]


def _weight_name(chosen: Chosen, name: str) -> str | None:
    """What the whole model calls a weight that an adapter of it, or of its tower, names."""
    known = chosen.blend.model.plain.state_dict()
    tower = chosen.before.backbone.tower_name
    return next((one for one in (name, f"{tower}.{name}") if one in known), None)


def _place_of_base(config: Mapping[str, Any], source: Path) -> dict[str, str]:
    """The base's place where it was named as seen from the adapter."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named or named_path(named).exists():
        return {}
    beside = source / named
    return {"base_model_name_or_path": str(beside.resolve())} if beside.exists() else {}


def _is_the_model(folder: Path, chosen: Chosen) -> bool:
    """Whether what was written loads as the blend."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoteWarning)  # told when the adapted model was loaded
            again = encoder_state(load(folder, like=chosen.before))
    except ModelError:
        return False
    wanted = encoder_state(chosen.model)
    return all(
        torch.allclose(one.double(), wanted[name].cpu().double(), atol=_CLOSE, rtol=_CLOSE)
        for name, one in again.items()
    )
