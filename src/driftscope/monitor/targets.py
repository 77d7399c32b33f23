"""The CLIP inside whatever is being trained, called as the training calls it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import without_adapters
from driftscope.errors import ModelError
from driftscope.monitor.isolation import isolated_from_training
from driftscope.sources import default_device, load
from driftscope.sources.live import from_clip
from driftscope.sources.open_clip import from_open_clip
from driftscope.sources.open_clip import convert_open_clip

_KINDS = ("CLIPModel", "open_clip", "CLIPVisionModelWithProjection", "CLIPVisionModel")
"""What is looked for; of one inside another the outer one is meant."""
LIVE_NAME = "the model in training"


@dataclass(frozen=True)
class Target:
    """The model that is read inside the one in training.

    Attributes:
        found: the module that was found.
        kind: one of `_KINDS`.
        peft: the PeftModel directly around it, if there is one.
    """

    found: nn.Module
    kind: str
    peft: nn.Module | None

    @property
    def has_text_tower(self) -> bool:
        """Whether the texts' side is in it, too."""
        return self.kind in ("CLIPModel", "open_clip")


def find_target(model: nn.Module, model_path: str | None = None) -> Target:
    """Finds the one CLIP in a model by its type.

    Looks through PEFT, torch.compile, DistributedDataParallel and modules of one's own.

    Args:
        model: what is in training.
        model_path: where the CLIP is in it, as for `model.get_submodule`; decides among several.

    Raises:
        ModelError: there is none, or more than one.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"The monitor reads a torch module, got {type(model).__name__}; give the model in "
            "training, or the module that holds it."
        )
    root = model if model_path is None else _submodule(model, model_path)
    modules = dict(root.named_modules())
    kinds = {path: kind for path, module in modules.items() if (kind := _kind_of(module))}
    inner = {
        part for path in kinds for part in modules[path].modules() if part is not modules[path]
    }
    found = [path for path in kinds if modules[path] not in inner]
    if not found:
        raise ModelError(
            f"{type(root).__name__} holds no CLIP that can be read (looked for {', '.join(_KINDS)} "
            "by type); give the module that holds it, or say where it is with model_path."
        )
    if len(found) > 1:
        raise ModelError(
            f"{type(model).__name__} holds {len(found)} models that could be meant, at "
            f"{', '.join(map(repr, found))}; say which with model_path."
        )
    clip = modules[found[0]]
    return Target(clip, kinds[found[0]], _peft_around(clip, list(modules.values())))


def live_model(target: Target, pretrained: VisionLanguageModel) -> VisionLanguageModel:
    """The target as a model that can be read, with the pretrained one's pixels and tokens.

    An open_clip model is read as a converted copy; everything else is the live module itself.
    `pretrained` needs no weights for it but the image projection, where the target has none.

    Raises:
        ModelError: an open_clip model that cannot be converted.
    """
    clip = target.found
    if target.kind == "open_clip":
        clip = converted_open_clip(clip)
    elif not target.has_text_tower:
        clip = _ImageTowerOnly(clip, pretrained.module)
    return VisionLanguageModel(
        module=clip,
        tokenizer=pretrained.tokenizer,
        image_size=pretrained.image_size,
        mean=pretrained.mean,
        std=pretrained.std,
        source=LIVE_NAME,
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
    if target.kind == "open_clip":
        tower: Any = target.found.get_submodule("visual")
        convention = {
            key: value
            for key, name in (("mean", "image_mean"), ("std", "image_std"))
            if (value := getattr(tower, name, None)) is not None
        }
        return from_open_clip(converted_open_clip(target.found), **convention)
    return from_clip(target.found)


def converted_open_clip(model: nn.Module) -> nn.Module:
    """An open_clip model's copy as a transformers CLIPModel, on the same device.

    Raises:
        ModelError: it is no plain ViT CLIP.
    """
    from transformers import CLIPModel

    plain: Any = without_adapters(model)
    try:
        block = plain.visual.transformer.resblocks[0]
        activation = "quick_gelu" if type(block.mlp.gelu).__name__ == "QuickGELU" else "gelu"
        head_dim = block.attn.embed_dim // block.attn.num_heads
    except (AttributeError, IndexError, TypeError):
        raise ModelError(
            "The open_clip model has no plain ViT as its image tower, so it cannot be read; "
            "models such as ViT-B-32 can."
        ) from None
    config, state = convert_open_clip(plain.state_dict(), activation=activation, head_dim=head_dim)
    clip: nn.Module = CLIPModel(config)
    clip.load_state_dict(state)
    return clip.to(next(model.parameters()).device).eval()


class _ImageTowerOnly(nn.Module):
    """An image tower that is trained alone, with what of a CLIPModel embedding images asks for.

    Without a projection of its own it gets the pretrained one's, which nothing has changed.
    """

    def __init__(self, tower: nn.Module, pretrained: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        if not hasattr(tower, "visual_projection"):
            self.visual_projection = pretrained.get_submodule("visual_projection")

    @property
    def vision_model(self) -> nn.Module:
        """The tower without a projection; no second place for it among the submodules."""
        tower: nn.Module = getattr(self.tower, "vision_model", self.tower)
        return tower

    def get_image_features(self, pixel_values: Tensor) -> SimpleNamespace:
        seen = self.tower(pixel_values=pixel_values)
        embeddings = getattr(seen, "image_embeds", None)
        if embeddings is None:
            weight = self.get_parameter("visual_projection.weight").to(seen.pooler_output)
            embeddings = functional.linear(seen.pooler_output, weight)
        return SimpleNamespace(pooler_output=embeddings)


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in model.named_children())
        raise ModelError(
            f"model_path {path!r} leads nowhere in {type(model).__name__}; its parts are {children}"
        ) from None


def _kind_of(module: nn.Module) -> str | None:
    return next((kind for kind in _KINDS if _is_of_kind(module, kind)), None)


def _is_of_kind(module: nn.Module, kind: str) -> bool:
    """By class name, so that nothing need be imported and subclasses count."""
    bases = type(module).__mro__
    if kind == "open_clip":
        return any(
            base.__module__.startswith("open_clip") and base.__name__ in ("CLIP", "CustomTextCLIP")
            for base in bases
        )
    return any(
        base.__name__ == kind and base.__module__.startswith("transformers") for base in bases
    )


def _peft_around(clip: nn.Module, modules: list[nn.Module]) -> nn.Module | None:
    peft: Any = sys.modules.get("peft")
    if peft is None:
        return None
    wrappers = [module for module in modules if isinstance(module, peft.PeftModel)]
    return next((one for one in wrappers if one.get_base_model() is clip), None)
