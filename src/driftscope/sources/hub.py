"""A model from a folder in hub layout, or from the Hugging Face hub and its cache."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from driftscope.backbones import FAMILIES
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, one_line, told_as
from driftscope.files import named_path
from driftscope.hugging_face import offline_where_unreachable, quiet_libraries
from driftscope.sources.origin import read_json
from driftscope.sources.plausible import (
    refuse_implausible,
    refuse_more_than_weights,
    refuse_packed_weights,
)
from driftscope.sources.preprocessor import pixel_convention
from driftscope.sources.state_dict import why_unreadable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from driftscope.sources import Loader

_LOADED = {backbone.model_type: backbone for backbone in FAMILIES if backbone.whole is not None}


def recognises(name: str) -> bool:
    """Whether it is a folder in hub layout, or else a name that the hub may know."""
    folder = named_path(name)
    return (folder / "config.json").exists() or not (folder.exists() or _looks_like_path(name))


def load(name: str, _load_base: Loader) -> VisionLanguageModel:
    """Of the hub the cache is asked first, as transformers does."""
    folder = named_path(name)
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
    if (folder := Path(where)).is_dir():
        said = read_json(folder / "config.json")
        refuse_implausible(said, name)
        refuse_more_than_weights(said, folder, name)
        for file in folder.glob("*.bin"):
            refuse_packed_weights(file)
    try:
        with quiet_libraries():
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
    image_size = int(backbone.vision_config(config).image_size)
    return VisionLanguageModel(
        module=module,
        tokenizer=load_tokenizer(where, backbone.vocabulary_size(config), name),
        image_size=image_size,
        source=name,
        **pixel_convention(where, name, image_size),
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


_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")


def load_tokenizer(
    where: str, vocabulary_size: int, name: str | None = None
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder or hub id; None where it has none.

    Raises:
        ModelError: it has one that cannot be read, or of another vocabulary.
    """
    from transformers import AutoTokenizer

    there = [file for file in _TOKENIZER_FILES if (Path(where) / file).exists()]
    doing = f"the tokenizer of {name or where} cannot be read"
    try:
        with quiet_libraries(), told_as(ModelError, doing):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                where, trust_remote_code=False
            )
    except ModelError:
        if there:
            raise
        return None
    # without tokenizer files transformers makes up a CLIP tokenizer with an empty vocabulary
    if 2 * len(tokenizer) > vocabulary_size:
        return tokenizer
    if there:
        raise ModelError(
            f"{doing}: it knows {len(tokenizer):,} tokens and the model {vocabulary_size:,}, so "
            f"{there[0]} is another model's, or cut off"
        )
    return None


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
