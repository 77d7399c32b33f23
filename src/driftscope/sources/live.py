"""A model in memory, not copied: found inside whatever holds it, and read as it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn import functional

from driftscope.backbones import families, find_image_tower, why_refused
from driftscope.backbones.base import Backbone
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.timm import Timm, is_of_timm
from driftscope.errors import ModelError
from driftscope.hugging_face import offline_where_unreachable
from driftscope.sources import open_clip
from driftscope.sources.embedded import EMBEDDED
from driftscope.sources.hub import load_tokenizer
from driftscope.sources.preprocessor import pixel_convention, timm_pixels, usual_pixels

_TIMM = "timm"
NAMELESS = ("the given model", open_clip.KIND)
"""The sources of models that came as a module, and from nowhere that is known."""
LIVE_NAME = "the model in training"


@dataclass(frozen=True)
class Target:
    """The model that is read inside the one in training.

    Attributes:
        found: the module that was found.
        kind: one of `_kinds`.
        peft: the PeftModel directly around it, if there is one.
        projection: of an image tower without one, the only one of that name beside it.
        linear_beside: of such a tower, all linear layers beside it, by their paths.
    """

    found: nn.Module
    kind: str
    peft: nn.Module | None
    projection: nn.Module | None = None
    linear_beside: Mapping[str, nn.Linear] = field(default_factory=dict)

    @property
    def whole(self) -> str | None:
        """Of an image tower whose family has texts, too, the class with both; else None."""
        return self.alone.whole if self.alone is not None else None

    @property
    def has_text_tower(self) -> bool:
        """Whether the texts' side is in it, too."""
        return self.alone is None

    @property
    def alone(self) -> Backbone | None:
        """Of an image tower that is trained by itself, its family."""
        return _alone().get(self.kind)


def find_target(model: nn.Module, model_path: str | None = None) -> Target:
    """Finds the one model that can be read in a module, by its type.

    Looks through PEFT, torch.compile, DistributedDataParallel and modules of one's own.

    Args:
        model: what is in training.
        model_path: where the one to be read is in it, as for `model.get_submodule`; decides among
            several.

    Raises:
        ModelError: there is none, or more than one.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"a model in training is a torch module, and {type(model).__name__} is none; give the "
            "model, or the module that holds it (of a model that driftscope loaded, its .module)"
        )
    root = model if model_path is None else _submodule(model, model_path)
    modules = dict(root.named_modules())
    known = _whole() | _alone()
    kinds = {path: kind for path, module in modules.items() if (kind := _kind_of(module, known))}
    inner = {
        part for path in kinds for part in modules[path].modules() if part is not modules[path]
    }
    found = [path for path in kinds if modules[path] not in inner]
    if not found and (refused := why_refused(root)):
        raise ModelError(refused)
    if not found:
        raise ModelError(
            f"{type(root).__name__} holds no model that can be read (looked for "
            f"{', '.join(_kinds())} by type); give the module that holds "
            "it, or say where it is with model_path."
        )
    if len(found) > 1:
        raise ModelError(
            f"{type(model).__name__} holds {len(found)} models that could be meant, at "
            f"{', '.join(map(repr, found))}; say which with model_path."
        )
    module = modules[found[0]]
    if any(one.is_meta for one in module.parameters()):
        raise ModelError(
            f"The {kinds[found[0]]} holds no weights yet (they are on torch's meta device); load "
            "them before it is read."
        )
    kind = kinds[found[0]]
    alone, own = _alone().get(kind), set(module.modules())
    return Target(
        module,
        kind,
        _peft_around(module, list(modules.values())),
        _projection_beside(module, modules, alone) if alone else None,
        {path: one for path, one in modules.items() if type(one) is nn.Linear and one not in own},
    )


def from_target(target: Target) -> VisionLanguageModel:
    """The model that was found, as it is, with what belongs to it where it was loaded from.

    Raises:
        ModelError: an open_clip model that cannot be read.
    """
    if target.kind == open_clip.KIND:
        convention = open_clip.live_convention(target.found)
        return open_clip.from_open_clip(open_clip.readable(target.found), pixels=convention)
    if isinstance(alone := target.alone, Timm):
        tower: Any = alone.readable(target.found)
        held: Any = getattr(tower.holder[0], "config", tower.timm_model)
        said = getattr(held, "pretrained_cfg", None) or {}
        pixels = timm_pixels(said, NAMELESS[0], tower.config.image_size)
        return VisionLanguageModel(module=tower, tokenizer=None, source=NAMELESS[0], **pixels)
    return from_module(target.found)


def from_module(module: Any) -> VisionLanguageModel:
    """A transformers model as it is, with what belongs to it where it was loaded from.

    Without a known place it gets its family's pixel convention and no tokenizer.
    """
    backbone = find_image_tower(module).backbone
    where = str(module.name_or_path or "")
    embedded = {str(folder): name for name, folder in EMBEDDED.items()}
    image_size = int(backbone.vision_config(module.config).image_size)
    pixels = usual_pixels(backbone, image_size)
    tokenizer = None
    if where:
        with offline_where_unreachable():
            pixels = pixel_convention(where, where, image_size, backbone)
            if backbone.has_text(module.config):
                tokenizer = load_tokenizer(where, backbone.vocabulary_size(module.config))
    return VisionLanguageModel(
        module=module,
        tokenizer=tokenizer,
        source=embedded.get(where, where or NAMELESS[0]),
        **pixels,
    )


def live_model(target: Target, pretrained: VisionLanguageModel) -> VisionLanguageModel:
    """The target as a model that can be read, with the pretrained one's pixels and tokens.

    A plain open_clip model is read as a converted copy; everything else is the live module itself.
    `pretrained` needs no weights for it but the image projection, where there is no other.

    Raises:
        ModelError: an open_clip model that cannot be converted.
    """
    module, notes = target.found, tuple[str, ...]()
    if target.kind == open_clip.KIND:
        module = open_clip.readable(module)
    elif target.kind == open_clip.TOWER_KIND:
        module = open_clip.converted_tower(module)
    elif (backbone := target.alone) is not None:
        projection, notes = _projection_for(target, backbone, pretrained)
        module = backbone.tower_with_projection(module, projection)
    return VisionLanguageModel(
        module=module,
        tokenizer=pretrained.tokenizer,
        image_size=pretrained.image_size,
        mean=pretrained.mean,
        std=pretrained.std,
        own_framing=pretrained.own_framing,
        source=LIVE_NAME,
        notes=notes,
    )


_LEAST_COSINE = 0.5
"""Of a projection's weights before and in training; other layers' are about 0."""


def _projection_for(
    target: Target, backbone: Backbone, pretrained: VisionLanguageModel
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """The projection of an image tower that is trained without one, and what is to be said of it.

    It is the one of the family's name beside the tower; else the only layer beside it whose weights
    are nearly the pretrained projection's; else that itself.
    """
    name = backbone.projection_name
    before: Any = None if name is None else getattr(pretrained.plain, name, None)
    has_its_own = any(path.rpartition(".")[2] == name for path, _ in target.found.named_modules())
    if target.projection is not None or before is None or has_its_own:
        return target.projection, ()
    layers = target.linear_beside
    alike = [path for path, one in layers.items() if one.bias is None and _near(one, before)]
    if len(alike) == 1:
        told = f"{alike[0]} is read as the image projection: its weights are nearly the pretrained"
        return layers[alike[0]], (f"{told} one's",)
    told = f"the {target.kind} in training has no {name} in it or beside it, so the pretrained one"
    return before, (f"{told} embeds the images",)


def _near(layer: nn.Linear, before: nn.Module) -> bool:
    own, other = layer.weight, getattr(before, "weight", None)
    if not isinstance(other, nn.Parameter) or own.shape != other.shape or own.is_meta:
        return False
    now, then = (one.detach().float().flatten().cpu() for one in (own, other))
    return float(functional.cosine_similarity(now, then, dim=0)) > _LEAST_COSINE


def _projection_beside(
    tower: nn.Module, modules: Mapping[str, nn.Module], backbone: Backbone
) -> nn.Module | None:
    """The projection that a training keeps outside its image tower, under the family's name.

    Raises:
        ModelError: there are several.
    """
    name, own = backbone.projection_name, set(tower.modules())
    beside = {
        path: module
        for path, module in modules.items()
        if path.rpartition(".")[2] == name and module not in own
    }
    if any(child.rpartition(".")[2] == name for child, _ in tower.named_modules()) or not beside:
        return None
    if len(beside) > 1:
        raise ModelError(
            f"{len(beside)} projections stand beside the image tower, at "
            f"{', '.join(map(repr, beside))}; say with model_path which module holds the tower and "
            "its own"
        )
    return next(iter(beside.values()))


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in model.named_children())
        raise ModelError(
            f"model_path {path!r} leads nowhere in {type(model).__name__}; its parts are {children}"
        ) from None


def _whole() -> dict[str, Backbone]:
    """Classes with both towers."""
    # driftscope's own come first, and another package's of the same name takes nothing from them
    return {one.whole: one for one in reversed(families()) if one.whole is not None}


def _alone() -> dict[str, Backbone]:
    """Classes of an image tower, and timm's models."""
    towers = {
        name: one for one in reversed(families()) for name in (*one.trained_alone, *one.towers)
    }
    return {**towers, _TIMM: Timm(), open_clip.TOWER_KIND: open_clip.TOWER_FAMILY}


def _kinds() -> tuple[str, ...]:
    """What is looked for; of one inside another the outer one is meant."""
    return (*_whole(), open_clip.KIND, *_alone())


def _kind_of(module: nn.Module, known: Mapping[str, Backbone]) -> str | None:
    if open_clip.is_live(module):
        return open_clip.KIND
    if is_of_timm(module):
        return _TIMM
    if open_clip.is_live_tower(module):
        return open_clip.TOWER_KIND
    return next((kind for kind, one in known.items() if one.class_among(module, (kind,))), None)


def _peft_around(plain: nn.Module, modules: list[nn.Module]) -> nn.Module | None:
    peft: Any = sys.modules.get("peft")
    if peft is None:
        return None
    wrappers = [module for module in modules if isinstance(module, peft.PeftModel)]
    return next((one for one in wrappers if one.get_base_model() is plain), None)
