"""How pixels are made for a model, as the preprocessor configuration beside its weights says.

Every setting is followed, or refused by name: a model that is read on pixels that it was not
trained on gives wrong numbers that look right.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from driftscope.backbones import families
from driftscope.backbones.base import Backbone
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.framing import Framing
from driftscope.errors import ModelError, shown
from driftscope.hugging_face import file_of, quiet_libraries
from driftscope.sources.origin import read_json

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Where transformers writes how pixels are made, since version 5 and before."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
OPENAI_PIXELS: dict[str, Any] = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "has_own_pixels": False}
"""Where nothing is known of a model's own."""

_KEYS = (
    *("do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
_USUAL = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
    **dict.fromkeys(("do_center_crop", "default_to_square", "crop_size", "size"), None),
    **{"rescale_factor": 1 / 255, "image_mean": None, "image_std": None, "resample": None},
}
"""What transformers does where neither a configuration nor a class of its own says otherwise. There
a switch that is null is off, which is why none is filled in."""
_MEANT_FOR_OTHERS = ("do_pad", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order")


def pixel_convention(
    where: str,
    name: str,
    image_size: int,
    family: Backbone,
    timm: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Size, mean, std and framing of a folder's preprocessor: fields of a `VisionLanguageModel`.

    Its family's usual ones, and said so, where it ships none. `image_size` is what the model's
    configuration says, which holds for a family of a fixed size. `timm` is what a model of timm
    says of its pixels, where it ships no preprocessor.

    Raises:
        ModelError: the configuration is damaged, or says what cannot be followed.
    """
    from transformers import ImageProcessingMixin

    for file in PROCESSOR_FILES:
        if (found := file_of(where, file)) is not None:
            read_json(found)
    try:
        with quiet_libraries():
            found, _ = ImageProcessingMixin.get_image_processor_dict(where)
    except (OSError, ValueError):
        if timm is not None:
            return timm_pixels(timm, name, image_size)
        return usual_pixels(family, image_size)
    if "pretrained_cfg" in found:  # what TimmWrapperImageProcessor writes
        return timm_pixels(found["pretrained_cfg"], name, image_size)
    settings = _with_defaults(found, name, family)
    if not family.has_fixed_input_size and {"size", "crop_size"} & found.keys():
        image_size = _side(settings, name)
    framing = _framing(settings, name, image_size)
    notes = framing_notes(framing, name)
    if {"size", "crop_size"} & found.keys() and (side := _side(settings, name)) != image_size:
        notes.append(
            f"the preprocessor configuration of {name} makes images of {side} pixels, and the "
            f"model reads {image_size}: they are made at {image_size}"
        )
    return {
        **_mean_and_std(settings, name),
        "image_size": image_size,
        "own_framing": None if framing.is_usual else framing,
        "notes": tuple(notes),
    }


def usual_pixels(family: Backbone, image_size: int) -> dict[str, Any]:
    """The same where nothing is known of a model's own: as the family's processor makes them."""
    settings = _with_defaults({}, family.family, family)
    framing = _framing(settings, family.family, image_size)
    own = None if framing.is_usual else framing
    return {**OPENAI_PIXELS, **family.usual_pixels, "image_size": image_size, "own_framing": own}


def assumed_pixels(model: VisionLanguageModel) -> list[str]:
    """What is to be said of a model that came without a word on pixels, where no other has one."""
    if model.has_own_pixels:
        return []
    return [
        f"{model.source} has no preprocessor configuration: images are prepared as its family's "
        "usually are; if it was trained on others, give a folder of it with its "
        "preprocessor_config.json"
    ]


def timm_pixels(said: Mapping[str, Any], name: str, image_size: int) -> dict[str, Any]:
    """The same of what timm calls a pretrained configuration, as timm evaluates by it.

    Raises:
        ModelError: it says what is not followed.
    """
    share, way = said.get("crop_pct") or 0.875, said.get("crop_mode") or "center"
    resample = said.get("interpolation") or "bilinear"
    if not isinstance(share, int | float) or not 0 < share <= 1 or way not in ("center", "squash"):
        raise ModelError(_refused(name, f"crop_pct {share} and crop_mode {way!r}"))
    if resample not in ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"):
        raise ModelError(_refused(name, f"interpolation {resample!r}"))
    margin = math.floor(image_size / share) - image_size
    framing = Framing(image_size, margin, way == "squash", resample)
    usual = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return {
        **{key: _three(said.get(key) or usual[key], f"image_{key}", name) for key in usual},
        "image_size": image_size,
        "own_framing": None if framing.is_usual else framing,
        "notes": tuple(framing_notes(framing, name)),
    }


def framing_notes(framing: Framing, name: str) -> list[str]:
    """What is to be said where a number of pixels does not say it all."""
    if framing.is_usual:
        return []
    return [
        f"images for {name} are {framing.described}, as the preprocessor configuration says "
        "(by hand: images.pixels(indices, model.framing))"
    ]


def _with_defaults(found: dict[str, Any], name: str, family: Backbone) -> dict[str, Any]:
    """What is said, and what transformers' class for it does where nothing is said.

    Raises:
        ModelError: it is of a kind, or has a setting, that is not followed.
    """
    import transformers

    named = found.get("image_processor_type") or found.get("feature_extractor_type")
    given = named or next(iter(family.processors))
    kind = str(given)
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    followed = _followed()
    if kind not in followed:
        raise ModelError(
            f"the preprocessor of {name} is a {given}, which driftscope does not follow; it "
            f"follows {', '.join(followed)}: put the configuration of one that makes the same "
            "pixels into the folder"
        )
    if found.get("use_square_size"):  # what Kosmos-2 says
        found = {**found, "default_to_square": True, "size": _longest(found.get("size", 224))}
    for key in _MEANT_FOR_OTHERS:
        if found.get(key):
            raise ModelError(_refused(name, f"{key} {found[key]}"))
    known = getattr(transformers, f"{kind}ImageProcessorPil", None)
    defaults = {key: getattr(known, key, None) for key in _KEYS}
    return {**_USUAL, **_set(defaults), **followed[kind], **found}


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


def _followed() -> dict[str, Mapping[str, Any]]:
    """Preprocessors that resize, cut the centre, rescale and normalise, and do nothing else.

    With their defaults, where transformers tells them with torchvision alone.
    """
    return {
        kind: defaults for one in reversed(families()) for kind, defaults in one.processors.items()
    }


def _longest(size: Any) -> Any:
    return next(iter(size.values())) if isinstance(size, dict) else size


def _framing(settings: dict[str, Any], name: str, image_size: int) -> Framing:
    if not settings["do_resize"]:
        said = f"do_resize {settings['do_resize']}, so images keep their size"
        raise ModelError(_refused(name, said))
    side, squashes = _resized_side(settings, name)
    if not (settings["do_center_crop"] or squashes):
        said = f"do_center_crop {settings['do_center_crop']} and size {settings['size']}"
        raise ModelError(_refused(name, f"{said}, so images keep their shape"))
    cut = _side(settings, name)
    if cut > side:
        raise ModelError(_refused(name, f"a crop of {cut} pixels from {side}"))
    own = Framing(cut, side - cut, squashes, _filter_name(settings, name))
    return own.at(image_size)


def _resized_side(settings: dict[str, Any], name: str) -> tuple[int, bool]:
    """The pixels of the side that is resized, and whether both sides are."""
    size = settings["size"]
    if isinstance(size, int):
        return size, bool(settings["default_to_square"])
    if isinstance(size, dict) and "shortest_edge" in size and len(size) == 1:
        return int(size["shortest_edge"]), False
    return _square(size, "size", name), True


def _side(settings: dict[str, Any], name: str) -> int:
    """The side of the square that the preprocessor makes in the end."""
    if settings["do_center_crop"]:
        return _square(settings["crop_size"], "crop_size", name)
    return _resized_side(settings, name)[0]


def _square(size: Any, key: str, name: str) -> int:
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else size
    if isinstance(sides, int):
        return sides
    if isinstance(sides, list | tuple) and isinstance(sides[0], int) and len(set(sides)) == 1:
        return int(sides[0])
    raise ModelError(_refused(name, f"{key} {size}"))


def _filter_name(settings: dict[str, Any], name: str) -> str:
    from PIL.Image import Resampling

    try:
        return Resampling(operator.index(settings["resample"])).name.lower()
    except (TypeError, ValueError):
        raise ModelError(_refused(name, f"resample {settings['resample']}")) from None


def _refused(name: str, what: str) -> str:
    return (
        f"the preprocessor configuration of {name} says {what}, which driftscope does not follow; "
        "it follows a resize by the short side or to a square, and a square crop within it"
    )


def _mean_and_std(settings: dict[str, Any], name: str) -> dict[str, tuple[float, ...]]:
    """Of pixels in [0, 1], whatever scale the preprocessor takes them off."""
    factor = settings["rescale_factor"] if settings["do_rescale"] else 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if settings["do_normalize"]:
        mean = _three(settings["image_mean"], "image_mean", name)
        std = _three(settings["image_std"], "image_std", name)
    scale = 255 * _number(factor, "rescale_factor", name)
    if scale != 1.0:
        mean, std = tuple(one / scale for one in mean), tuple(one / scale for one in std)
    return {"mean": mean, "std": std}


def _three(value: Any, key: str, name: str) -> tuple[float, ...]:
    if isinstance(value, list | tuple) and len(value) == 3:
        return tuple(_number(one, key, name) for one in value)
    return (_number(value, key, name),) * 3


def _number(value: Any, key: str, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and (key == "image_mean" or value > 0):
        return float(value)
    raise ModelError(
        f"the preprocessor configuration of {name} has {key} {shown(value)}; a number or one for "
        "each of the three colours would be right"
    )
