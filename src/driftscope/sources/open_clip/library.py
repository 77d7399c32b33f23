"""Models that open_clip itself builds, where it is installed: those that are no plain ViTs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from driftscope.errors import ModelError, one_line, told_as
from driftscope.hugging_face import offline_where_unreachable, quiet_libraries
from driftscope.sources.fitting import NO_WEIGHTS, told_of_rest
from driftscope.sources.state_dict import (
    about_extra,
    main_prefix,
    read_tensors_of,
    refuse_no_plain_numbers,
    told_of_rounding,
)

_INSTALL = "pip install 'driftscope[open_clip]'"


def configuration(name: str) -> dict[str, Any] | None:
    """What open_clip's list says of a name, as a folder says it; None where neither knows it."""
    if importlib.util.find_spec("open_clip") is None:
        return None
    with told_as(ModelError, "open_clip cannot be imported"), quiet_libraries():
        found = importlib.import_module("open_clip").get_model_config(name)
    return None if found is None else {"model_cfg": found, "preprocess_cfg": _pixels_of(name)}


def _pixels_of(name: str) -> dict[str, Any]:
    """How the pixels are made that open_clip's own weights of that name were trained on."""
    config: Any = importlib.import_module("open_clip.pretrained")
    known = config._PRETRAINED.get(name) or config._PRETRAINED.get(name.replace("/", "-")) or {}
    said: dict[str, Any] = next(iter(known.values()), {})
    return {
        key: said[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in said
    }


def built(
    config: Mapping[str, Any], path: Path, name: str, why: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model of a configuration with the weights of a file, and what is to be said of them.

    Args:
        config: the `model_cfg` of a folder.
        path: the file.
        name: how the user knows it.
        why: that it is no plain ViT, in words.

    Raises:
        ModelError: open_clip is not installed, or the weights are not the configuration's.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise ModelError(
            f"{name} is no plain ViT CLIP, so it cannot be converted: {why}; such models are read "
            f"where open_clip is installed ({_INSTALL})"
        )
    doing = f"open_clip cannot build {name}"
    with told_as(ModelError, doing), quiet_libraries(), offline_where_unreachable():
        model = _empty(config)
    state = read_tensors_of(path)
    prefix, _ = main_prefix(state, model.state_dict(), name)
    own = {key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)}
    if own.keys().isdisjoint(key for key in model.state_dict() if key.startswith("text.")):
        own = {_custom(key, model): one for key, one in own.items()}
    wanted = model.state_dict()
    used = {key: one for key, one in own.items() if key in wanted}
    floats = {key: one for key, one in used.items() if wanted[key].is_floating_point()}
    refuse_no_plain_numbers(floats, name)
    left = sorted(key for key in own if key not in used and not key.endswith(NO_WEIGHTS))
    tops = tuple(f"{part}." for part, _ in model.named_children())
    if inside := [key for key in left if key.startswith(tops)]:
        raise ModelError(
            f"the weights of {name} are of another architecture than its configuration tells: they "
            f"have {inside[0]}, which the model would leave out; {about_extra(inside[0])}"
        )
    try:
        found = model.load_state_dict(used, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the weights of {name} do not fit: {one_line(error)}") from None
    if found.missing_keys:
        raise ModelError(
            f"the weights of {name} are not complete: {found.missing_keys[0]} is missing "
            f"({len(found.missing_keys)} in all)"
        )
    notes = told_of_rounding((str(one.dtype) for one in used.values()), name)
    return model.float().eval(), (*told_of_rest(left, name), *notes)


def _empty(config: Mapping[str, Any]) -> nn.Module:
    """The model of a `model_cfg`, of the class that open_clip's own factory takes."""
    open_clip: Any = importlib.import_module("open_clip")
    settings = dict(config)
    settings["vision_cfg"] = {**settings["vision_cfg"], "timm_model_pretrained": False}
    is_of_transformers = "hf_model_name" in settings["text_cfg"]
    if is_of_transformers:
        from transformers import AutoConfig

        # open_clip itself would ask on the terminal whether to run code of the model's own
        AutoConfig.from_pretrained(settings["text_cfg"]["hf_model_name"], trust_remote_code=False)
        settings["text_cfg"] = {**settings["text_cfg"], "hf_model_pretrained": False}
    if not (settings.pop("custom_text", False) or is_of_transformers):
        kind = open_clip.CLIP
    else:
        kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP
    model: nn.Module = kind(**settings)
    return model


def _custom(name: str, model: nn.Module) -> str:
    """The name that a text tower's weight has in a CustomTextCLIP."""
    return f"text.{name}" if f"text.{name}" in model.state_dict() else name
