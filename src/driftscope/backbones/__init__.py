"""Model families: a file and a row each. What a family offers stands in `base.Backbone`.

An installed package can bring further ones, each under a name of the entry point group
`driftscope.families`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from driftscope.backbones.altclip import AltClip
from driftscope.backbones.base import Backbone, ImageTower
from driftscope.backbones.chinese_clip import ChineseClip
from driftscope.backbones.clip import Clip
from driftscope.backbones.dinov2 import Dinov2
from driftscope.backbones.dinov3 import Dinov3
from driftscope.backbones.library import LibraryModel
from driftscope.backbones.mean_pooled import MeanPooledClip
from driftscope.backbones.metaclip2 import MetaClip2
from driftscope.backbones.siglip import Siglip
from driftscope.backbones.timm import Timm
from driftscope.backbones.tipsv2 import Tipsv2
from driftscope.backbones.vit import Vit
from driftscope.errors import CaptureError, NoteWarning, one_line

FAMILIES: tuple[Backbone, ...] = (
    *(Clip(), Siglip(), MetaClip2(), ChineseClip(), AltClip(), Tipsv2()),
    *(Vit(), Dinov2(), Dinov3(), Timm()),
)
GROUP = "driftscope.families"
"""The entry point group of other packages' families: each entry is a class derived from `Backbone`.
"""
_LIVE = (MeanPooledClip(),)
"""Families of which there are no folders, only models in memory."""


_DECLARED = ("family", "classes", "towers")
"""What every family says of itself, and is found by."""


@cache
def families() -> tuple[Backbone, ...]:
    """driftscope's own, then those of installed packages; one that cannot be had is told of."""
    found = list(FAMILIES)
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        try:
            family = entry.load()()
            if not isinstance(family, Backbone):
                raise TypeError(f"it is a {type(family).__name__}, not a driftscope Backbone")
            if missing := [name for name in _DECLARED if not hasattr(family, name)]:
                raise TypeError(f"it does not say its {', '.join(missing)}")
        # another package's code can raise anything
        except Exception as error:
            told = f"The model family {entry.name!r} ({entry.value}) is left out: {one_line(error)}"
            warnings.warn(told, NoteWarning, stacklevel=2)
        else:
            found.append(family)
    return tuple(found)


def family_of_type(model_type: str | None) -> Backbone | None:
    """The family of what `config.json` calls a model; None where none has it."""
    return next((one for one in families() if model_type in one.classes), None)


def why_type_is_refused(model_type: str) -> str:
    """Why a relative of a family, by what `config.json` calls it, is not read; else empty."""
    return next((one.refused[model_type] for one in families() if model_type in one.refused), "")


def why_refused(module: nn.Module) -> str:
    """Why what is inside a module is not read, of towers that are refused by name; else empty."""
    refusing = [one for one in families() if one.refused]
    for child in module.modules():
        for family in refusing:
            if name := family.class_among(child, family.refused):
                return f"{name} cannot be read: {family.refused[name]}."
    return ""


def find_image_tower(module: nn.Module) -> ImageTower:
    """The one image tower inside a module, whatever wraps it.

    Looks through PEFT, torch.compile, DistributedDataParallel and users' own modules.

    Raises:
        CaptureError: there is no tower, more than one, or one of a family that is not read.
    """
    of_libraries = [one for one in module.modules() if isinstance(one, LibraryModel)]
    if len(of_libraries) == 1:
        return of_libraries[0].image_tower()
    if refused := why_refused(module):
        raise CaptureError(refused)
    known = (*families(), *_LIVE)
    found = [
        (child, *of_family)
        for child in dict.fromkeys(_in_use(module))
        if (of_family := _family_of_tower(child, known))
    ]
    if len(found) != 1:
        count = "no image tower" if not found else f"{len(found)} image towers"
        raise CaptureError(
            f"{type(module).__name__} holds {count} that can be read; give a module with one of "
            f"{', '.join(sorted(name for one in known for name in one.towers))} inside."
        )
    tower, backbone, name = found[0]
    config: Any = tower.config
    return ImageTower(
        module=tower,
        encoder=tower,
        blocks=list(tower.get_submodule(backbone.towers[name]).children()),
        num_prefix=backbone.num_prefix(config),
        config=config,
        backbone=backbone,
    )


def encoder_parts(module: nn.Module) -> dict[str, nn.Module]:
    """The image tower and its projection, by their names in the family's whole model.

    Raises:
        CaptureError: as `find_image_tower`.
    """
    tower = find_image_tower(module)
    parts, projection = {tower.backbone.tower_name: tower.encoder}, tower.backbone.projection_name
    for name, child in module.named_modules():
        if projection is not None and name.rpartition(".")[2] == projection:
            parts[projection] = child
    return parts


def _family_of_tower(module: nn.Module, known: Sequence[Backbone]) -> tuple[Backbone, str] | None:
    """The family that an image tower is of, and its class there; None of all else.

    A class that is derived from another family's is of its own, where that is known.
    """
    for base in type(module).__mro__:
        place = base.__module__.partition(".")[0]
        for family in known:
            if base.__name__ in family.towers and place == family.package:
                return family, base.__name__
    return None


def _in_use(module: nn.Module) -> Iterator[nn.Module]:
    """All modules inside, but for those that PEFT keeps beside their trained copies."""
    if any(base.__name__ == "ModulesToSaveWrapper" for base in type(module).__mro__):
        wrapper: Any = module
        active = [one for one in wrapper.active_adapters if one in wrapper.modules_to_save]
        used = wrapper.modules_to_save[active[0]] if active else wrapper.original_module
        yield from _in_use(used)
        return
    yield module
    for child in module.children():
        yield from _in_use(child)
