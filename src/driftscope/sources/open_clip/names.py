"""The plain ViT CLIPs of open_clip, by name: what a name says that the weights do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from driftscope.errors import ModelError

QUICK_SUFFIX = "-quickgelu"


@dataclass(frozen=True)
class Size:
    """What the shapes of an image tower's weights tell."""

    width: int
    num_layers: int
    patch_size: int
    image_size: int

    @property
    def described(self) -> str:
        """In words."""
        return (
            f"{self.num_layers} blocks of width {self.width}, patches of {self.patch_size} pixels"
        )

    def is_of(self, other: Size) -> bool:
        """Whether they differ in no more than the image size, to which positions can be fitted."""
        return self.described == other.described


SIZES = {
    "ViT-S-32": Size(384, 12, 32, 224),
    "ViT-S-32-alt": Size(384, 12, 32, 224),
    "ViT-S-16": Size(384, 12, 16, 224),
    "ViT-S-16-alt": Size(384, 12, 16, 224),
    "ViT-M-32": Size(512, 12, 32, 224),
    "ViT-M-32-alt": Size(512, 12, 32, 224),
    "ViT-M-16": Size(512, 12, 16, 224),
    "ViT-B-32": Size(768, 12, 32, 224),
    "ViT-B-32-256": Size(768, 12, 32, 256),
    "ViT-B-32-plus-256": Size(896, 12, 32, 256),
    "ViT-B-16": Size(768, 12, 16, 224),
    "ViT-B-16-plus": Size(896, 12, 16, 224),
    "ViT-B-16-plus-240": Size(896, 12, 16, 240),
    "ViT-L-14": Size(1024, 24, 14, 224),
    "ViT-L-14-280": Size(1024, 24, 14, 280),
    "ViT-L-14-336": Size(1024, 24, 14, 336),
    "ViT-L-16": Size(1024, 24, 16, 224),
    "ViT-L-16-320": Size(1024, 24, 16, 320),
    "ViT-H-14": Size(1280, 32, 14, 224),
    "ViT-H-14-378": Size(1280, 32, 14, 378),
    "ViT-H-16": Size(1280, 32, 16, 224),
    "ViT-g-14": Size(1408, 40, 14, 224),
    "ViT-bigG-14": Size(1664, 48, 14, 224),
    "ViT-e-14": Size(1792, 56, 14, 224),
}
OPEN_CLIP_NAMES = tuple(sorted([*SIZES, *(f"{name}{QUICK_SUFFIX}" for name in SIZES)]))
"""Model names of open_clip that are converted. The activation is in the name only: plain names mean
GELU; OpenAI's own weights, and some others, need the `-quickgelu` name."""
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
USUAL_HEAD_WIDTH = 64


def vision_head_width(width: int) -> int:
    """How wide an attention head of an image tower is, in every model of `SIZES`."""
    return _HEAD_WIDTHS.get(width, USUAL_HEAD_WIDTH)


def activation_of(name: str) -> str:
    """What the name of a model says of its activation."""
    return "quick_gelu" if name.endswith(QUICK_SUFFIX) else "gelu"


def checked_name(name: str) -> str:
    """The name, if open_clip has a plain ViT of it.

    Raises:
        ModelError: it has none; the sentence says what is meant, where only the spelling differs.
    """
    if name in OPEN_CLIP_NAMES:
        return name
    if (
        "/" in name
        and (plain := name.replace("/", "-").replace("@", "-").removesuffix("px")) in SIZES
    ):
        raise ModelError(
            f"{name!r} is OpenAI's spelling; write {plain}{QUICK_SUFFIX} for OpenAI's weights and "
            f"what was fine-tuned from them, {plain} for others"
        )
    same = [one for one in OPEN_CLIP_NAMES if _letters(one) == _letters(name)]
    if same:
        raise ModelError(f"open_clip has no model {name!r}; did you mean {same[0]!r}?")
    raise ModelError(
        f"the open_clip model {name!r} is no plain ViT of open_clip's list, so its file cannot be "
        f"converted; those are {', '.join(SIZES)}, each also with {QUICK_SUFFIX}. Others of its "
        "list are read where open_clip is installed (pip install 'driftscope[open_clip]')"
    )


def names_of(size: Size) -> list[str]:
    """The names of models of that size, the ones of the same image size first."""
    alike = [name for name, one in SIZES.items() if one.is_of(size)]
    return sorted(alike, key=lambda name: SIZES[name].image_size != size.image_size)


def size_of(state: Mapping[str, Tensor], num_layers: int) -> Size:
    """The size that an image tower's weights have, by open_clip's names for them."""
    width, _, _, patch = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    return Size(width, num_layers, patch, side * patch)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
