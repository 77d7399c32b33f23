"""Model families: a file and a row each. What a family offers stands in `base.Backbone`."""

from __future__ import annotations

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
from driftscope.errors import CaptureError

FAMILIES: tuple[Backbone, ...] = (
    *(Clip(), Siglip(), MetaClip2(), ChineseClip(), AltClip(), Tipsv2()),
    *(Vit(), Dinov2(), Dinov3(), Timm()),
)

_NAFLEX = (
    "SigLIP 2 NaFlex cuts every image into patches of its own number, under a mask; what is read "
    "needs one grid. The SigLIP 2 models of a fixed size, such as "
    "google/siglip2-base-patch16-224, are read"
)
REFUSED_TYPES = {"siglip2": _NAFLEX, "siglip2_vision_model": _NAFLEX}
"""What `config.json` calls a model that is not read -> why."""
_REFUSED = {"Siglip2VisionModel": _NAFLEX}
_LIVE = (MeanPooledClip(),)
"""Families of which there are no folders, only models in memory."""
_BY_TOWER = {name: backbone for backbone in (*FAMILIES, *_LIVE) for name in backbone.towers}


def why_refused(module: nn.Module) -> str:
    """Why what is inside a module is not read, of towers that are refused by name; else empty."""
    for child in module.modules():
        for name in (base.__name__ for base in type(child).__mro__):
            if name in _REFUSED:
                return f"{name} cannot be read: {_REFUSED[name]}."
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
    found: list[tuple[nn.Module, str]] = []
    for child in module.modules():
        class_names = {base.__name__ for base in type(child).__mro__}
        found += [(child, name) for name in sorted(class_names & _BY_TOWER.keys())]
    if len(found) != 1:
        count = "no image tower" if not found else f"{len(found)} image towers"
        raise CaptureError(
            f"{type(module).__name__} holds {count} that can be read; give a module with one of "
            f"{', '.join(sorted(_BY_TOWER))} inside."
        )
    tower, class_name = found[0]
    backbone = _BY_TOWER[class_name]
    config: Any = tower.config
    return ImageTower(
        module=tower,
        blocks=list(tower.get_submodule(backbone.towers[class_name]).children()),
        num_prefix=backbone.num_prefix(config),
        config=config,
        backbone=backbone,
    )
