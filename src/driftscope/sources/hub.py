"""A model from a folder in hub layout, or from the Hugging Face hub and its cache."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from driftscope.backbones import FAMILIES
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, one_line
from driftscope.hugging_face import offline_where_unreachable, quiet_libraries
from driftscope.sources.origin import read_json
from driftscope.sources.state_dict import why_unreadable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from driftscope.sources import Loader

_LOADED = {backbone.model_type: backbone for backbone in FAMILIES if backbone.whole is not None}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Where transformers writes how pixels are made, since version 5 and before."""
_BICUBIC = 3
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def recognises(name: str) -> bool:
    """Whether it is a folder in hub layout, or else a name that the hub may know."""
    folder = Path(name).expanduser()
    return (folder / "config.json").exists() or not (folder.exists() or _looks_like_path(name))


def load(name: str, _load_base: Loader) -> VisionLanguageModel:
    """Of the hub the cache is asked first, as transformers does."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return load_hub_layout(folder, name)
    with offline_where_unreachable():
        return load_hub_layout(name, name)


def load_hub_layout(place: Path | str, name: str) -> VisionLanguageModel:
    """A family's whole model from a folder or from the hub.

    Code that lies beside the weights is never run.
    """
    import transformers

    where = str(place)
    try:
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "custom code" in str(error):
            raise ModelError(
                f"{name} brings its model as Python code, which driftscope never runs; it loads "
                f"models of the type {_types()} that transformers knows"
            ) from None
        raise ModelError(_not_found(name, error)) from None
    backbone = _LOADED.get(config.model_type)
    if backbone is None:
        raise ModelError(
            f"{name} is a {config.model_type!r} model; driftscope loads models of the type "
            f"{_types()}, with an image and a text tower"
        )
    try:
        with quiet_libraries():
            module, loading = getattr(transformers, str(backbone.whole)).from_pretrained(
                where,
                attn_implementation="sdpa",
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    # torch and safetensors raise several kinds for files that are not what they seem
    except Exception as error:
        raise ModelError(
            f"the weights of {name} cannot be loaded: {why_unreadable(error)}"
        ) from None
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        raise ModelError(_incomplete(name, loading["missing_keys"], loading["unexpected_keys"]))
    module.eval()
    return VisionLanguageModel(
        module=module,
        tokenizer=load_tokenizer(where, backbone.vocabulary_size(config)),
        image_size=int(backbone.vision_config(config).image_size),
        source=name,
        **pixel_convention(where, name),
    )


def _incomplete(name: str, missing: Collection[str], unexpected: Collection[str]) -> str:
    first = min(missing)
    for found in unexpected:
        if found.endswith(first):
            return (
                f"the weights of {name} are named by what held the model when they were saved: "
                f"there is {found} where {first} is wanted; save them without the prefix "
                f"{found.removesuffix(first)!r}"
            )
    return f"the weights of {name} are not complete: {first} is missing ({len(missing)} in all)"


def pixel_convention(where: str, name: str) -> dict[str, Any]:
    """Mean and std of the folder's preprocessor; OpenAI's, and said so, where it ships none.

    What it does besides that driftscope does not do (`data.pixels`) is warned of by name.

    Raises:
        ModelError: the preprocessor's configuration is damaged, or makes no sense.
    """
    from transformers import CLIPImageProcessorPil

    for file in PROCESSOR_FILES:
        if (Path(where) / file).exists():
            read_json(Path(where) / file)
    try:
        settings, _ = CLIPImageProcessorPil.get_image_processor_dict(where)
    except (OSError, ValueError):
        return {"mean": OPENAI_MEAN, "std": OPENAI_STD, "has_own_pixels": False}
    if unlike := _unlike_ours(settings):
        warnings.warn(
            f"the preprocessor configuration of {name} says: {', '.join(unlike)}; driftscope "
            "resizes the short side by the bicubic filter and crops the centre, so the model is "
            "read on other pixels than its own preprocessor gives",
            stacklevel=2,
        )
    return _mean_and_std(settings, name)


def _mean_and_std(settings: dict[str, Any], name: str) -> dict[str, tuple[float, ...]]:
    """Of pixels in [0, 1], whatever scale the preprocessor takes them off."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if settings.get("do_normalize", True):
        mean = _three(settings.get("image_mean", OPENAI_MEAN), "image_mean", name)
        std = _three(settings.get("image_std", OPENAI_STD), "image_std", name)
    scale = 255 * _number(factor, "rescale_factor", name)
    if scale != 1.0:
        mean, std = tuple(one / scale for one in mean), tuple(one / scale for one in std)
    return {"mean": mean, "std": std}


def _three(value: Any, key: str, name: str) -> tuple[float, ...]:
    if isinstance(value, list | tuple) and len(value) == 3:
        return tuple(_number(one, key, name) for one in value)
    return (_number(value, key, name),) * 3


def _number(value: Any, key: str, name: str) -> float:
    if isinstance(value, int | float) and (key == "image_mean" or value > 0):
        return float(value)
    raise ModelError(
        f"the preprocessor configuration of {name} has {key} {value!r}; a number or one for each "
        "of the three colours would be right"
    )


def _unlike_ours(settings: dict[str, Any]) -> list[str]:
    """What a preprocessor does to an image's shape that `data.pixels` does not."""
    size, crop = settings.get("size"), settings.get("crop_size")
    side = size.get("shortest_edge") if isinstance(size, dict) else size
    crop_side = crop.get("height") if isinstance(crop, dict) else crop
    found = [
        f"{key} false" for key in ("do_resize", "do_center_crop") if settings.get(key) is False
    ]
    if isinstance(size, dict) and "shortest_edge" not in size:
        found.append(f"size {size} (the whole image is squashed)")
    elif None not in (side, crop_side) and side != crop_side:
        found.append(f"a crop of {crop_side} pixels from {side}")
    if settings.get("resample", _BICUBIC) not in (_BICUBIC, None):
        found.append(f"resample {settings['resample']} ({_filter_name(settings['resample'])})")
    return found


def _filter_name(number: Any) -> str:
    from PIL.Image import Resampling

    try:
        return Resampling(number).name.lower()
    except ValueError:
        return "unknown"


def load_tokenizer(where: str, vocabulary_size: int) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder or hub id; None where it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # without tokenizer files transformers makes up a CLIP tokenizer with an empty vocabulary
    return tokenizer if 2 * len(tokenizer) > vocabulary_size else None


def _types() -> str:
    return " or ".join(map(repr, _LOADED))


def _not_found(name: str, error: Exception) -> str:
    if Path(name).exists():
        return f"the model folder {name} cannot be read: {one_line(error)}"
    from huggingface_hub import is_offline_mode
    from huggingface_hub.constants import HF_HUB_CACHE

    answer = "cannot be reached" if is_offline_mode() else f"did not give it ({one_line(error)})"
    return (
        f"no model {name!r}: it is not 'mini', there is no folder of that name here, it is not in "
        f"the cache {HF_HUB_CACHE}, and the Hugging Face hub {answer}; check the name, or give the "
        "folder of a copy as the model"
    )


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
