"""A PEFT adapter folder, on the base that its configuration names."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, one_line
from driftscope.files import named_path
from driftscope.hugging_face import quiet_libraries
from driftscope.sources.origin import checked_base, read_json
from driftscope.sources.plausible import (
    refuse_implausible,
    refuse_packed_weights,
    refuse_slow_patterns,
)
from driftscope.sources.state_dict import why_unreadable

if TYPE_CHECKING:
    from driftscope.sources import Loader

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def recognises(name: str) -> bool:
    """Whether it is a folder with PEFT's configuration."""
    return (named_path(name) / CONFIG_FILE).exists()


def load(name: str, load_base: Loader) -> VisionLanguageModel:
    """The adapter on its base."""
    return load_adapter(named_path(name), name, load_base)


def load_adapter(folder: Path, name: str, load_base: Loader) -> VisionLanguageModel:
    """The adapter in a folder, which is called `name`, on its base.

    Raises:
        ModelError: it names no base, has no weights, or does not fit its base.
    """
    from peft import PeftModel

    config = read_json(folder / CONFIG_FILE)
    refuse_implausible(config, name)
    base_name = config.get("base_model_name_or_path")
    if not base_name or not isinstance(base_name, str):
        raise ModelError(
            f"the adapter {name} does not say what it adapts "
            f"(base_model_name_or_path is empty in {CONFIG_FILE})"
        )
    if not any((folder / file).exists() for file in WEIGHT_FILES):
        raise ModelError(f"the adapter {name} has no weights: {WEIGHT_FILES[0]} is missing")
    for file in WEIGHT_FILES:
        if (folder / file).exists():
            refuse_packed_weights(folder / file)
    base = load_base(base_name)
    refuse_slow_patterns(config, [one for one, _ in base.module.named_modules()], name)
    fingerprint = checked_base(folder, name, base)
    try:
        with quiet_libraries(), warnings.catch_warnings():
            # peft only warns where the file lacks what the configuration promises
            warnings.filterwarnings("error", ".*missing adapter keys", UserWarning)
            module = PeftModel.from_pretrained(base.module, str(folder))
    except (RuntimeError, ValueError, OSError, KeyError, TypeError, UserWarning) as error:
        raise ModelError(
            f"the adapter {name} does not fit its base {base_name}: {one_line(error)}"
        ) from None
    # torch and safetensors raise several kinds for files that are not what they seem
    except Exception as error:
        raise ModelError(
            f"the weights of {name} cannot be loaded: {why_unreadable(error)}"
        ) from None
    return replace(base, module=module, source=name, base_fingerprint=fingerprint)
