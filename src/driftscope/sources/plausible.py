"""Sizes of a model folder are looked at before a library builds anything from them.

A configuration of a kilobyte can describe a model of a terabyte, and a regular expression of
twenty characters can take longer than anybody lives.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, shown
from driftscope.files import special_kind
from driftscope.limits import JSON_MB

_MOST = {
    "num_hidden_layers": 1_000,
    "hidden_size": 65_536,
    "intermediate_size": 1_000_000,
    "projection_dim": 65_536,
    "num_attention_heads": 1_024,
    "image_size": 16_384,
    "num_channels": 64,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000,
    "r": 4_096,
    "num_virtual_tokens": 100_000,
    "encoder_hidden_size": 65_536,
    "n_frequency": 10_000_000,
    "num_labels": 1_000_000,
    "layer_norm_eps": 1,
}
"""What no model that we know comes near, by the names that transformers and peft have for it."""
_NUMBERS = ("r", "lora_alpha", "lora_dropout", "logit_scale_init_value", "layer_norm_eps")
"""What is one number wherever it is named."""
_AT_LEAST_ONE = ("hidden_size", "intermediate_size", "num_attention_heads", "num_channels")
_TEXTS = (
    "*token*.json", "vocab.*", "merges.txt", "*piece*.model", "tokenizer.model", "chat_template*",
    "*config.json", "*.index.json",
)  # fmt: skip
"""What libraries read whole of a model's folder, beside weights."""
_PATTERNS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")
_FEW_ITERATIONS = re.compile(r"pissa_niter_\d{1,2}")
"""Of the decomposition that peft repeats where it loads; 16 are usual."""
_MOST_LOGIT_SCALE = 100_000
_PATTERN_SECONDS = 10
UNPACKED_RATIO = 20
ALWAYS_TAKEN_BYTES = 1_000_000_000


def refuse_implausible(config: Mapping[str, Any], name: str) -> None:
    """Raises `ModelError` where a configuration describes what no model is, or would import code.

    Args:
        config: transformers' `config.json` or peft's `adapter_config.json`.
        name: how the user knows the folder.
    """
    for key, most in _MOST.items():
        for place, value in _named(config, key):
            if isinstance(value, int | float) and value > most:
                raise ModelError(
                    f"the configuration of {name} says {place} {shown(value)}; no model that "
                    f"driftscope knows has more than {most:,}"
                )
    for key in _AT_LEAST_ONE:
        for place, value in _named(config, key):
            if isinstance(value, int) and value < 1:
                raise ModelError(
                    f"the configuration of {name} says {place} {shown(value)}; 1 or more would be "
                    "right"
                )
    for key in _NUMBERS:
        for place, value in _named(config, key):
            is_number = isinstance(value, int | float) and -math.inf < value < math.inf
            is_number = is_number and not isinstance(value, bool)
            if value is not None and not is_number:
                raise ModelError(
                    f"the configuration of {name} says {place} {shown(value)}, which is no number"
                )
    for place, value in ((key, rank) for key in ("rank_pattern",) for rank in _values(config, key)):
        if isinstance(value, int | float) and value > _MOST["r"]:
            raise ModelError(f"the configuration of {name} says {place} {shown(value)}")
    initial = str(config.get("init_lora_weights"))
    if initial.startswith("pissa_niter") and not _FEW_ITERATIONS.fullmatch(initial):
        raise ModelError(
            f"the adapter {name} says init_lora_weights {shown(initial)}; at most 99 iterations of "
            "its decomposition are carried out"
        )
    refuse_quantised(config, name)
    for key in ("megatron_config", "layer_replication", "alora_invocation_tokens"):
        if config.get(key):
            raise ModelError(
                f"the adapter {name} says {key}, which driftscope does not follow: it imports "
                "other code, builds another model than the base, or changes some texts alone"
            )


def refuse_quantised(config: Mapping[str, Any], name: str) -> None:
    """Raises `ModelError` where a configuration says that its weights are packed into few bits."""
    said = config.get("quantization_config")
    if isinstance(said, Mapping) and said:
        raise ModelError(
            f"the weights of {name} are quantised ({said.get('quant_method', 'of its own kind')}), "
            "and a drift would be measured of the rounding, too; save the model in floating-point "
            "numbers (where it was made: model.dequantize(), then save_pretrained)"
        )


def refuse_odd_sizes(tower: Any, name: str) -> None:
    """Raises `ModelError` where a tower's images, patches or heads have sizes that none can be."""
    for key in ("image_size", "patch_size"):
        size = getattr(tower, key, 1)
        if not isinstance(size, int) or size < 1:
            raise ModelError(
                f"the configuration of {name} says {key} {shown(size)}; one whole number would be "
                "right, the side of a square"
            )
    width, heads = (getattr(tower, key, None) for key in ("hidden_size", "num_attention_heads"))
    if isinstance(width, int) and isinstance(heads, int) and (heads < 1 or width % heads):
        raise ModelError(
            f"the configuration of {name} says {heads} attention heads for a width of {width}, "
            "which they do not divide; put the config.json of the model that was saved there"
        )


def refuse_scale_without_logarithm(model: VisionLanguageModel, name: str) -> None:
    """Raises `ModelError` where the factor on a model's logits is what no training gives.

    A CLIP keeps the factor's logarithm and never lets the factor above 100.
    """
    if model.has_text and math.isnan(model.logit_scale):
        raise ModelError(f"the logit scale of {name} is no number: the model has diverged")
    if model.has_text and not 0 < model.logit_scale < _MOST_LOGIT_SCALE:
        raise ModelError(
            f"the logit scale of {name} is {model.logit_scale:.3g}, and no more than 100 is usual; "
            "its logit_scale may be stored as the factor itself: save the factor's logarithm"
        )


def refuse_more_than_weights(config: Mapping[str, Any], folder: Path, name: str) -> None:
    """Raises `ModelError` where a configuration describes more parameters than its files can hold.

    Counted are the largest matrices of a tower only, which every family has.
    """
    held = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    towers = [config, *(config.get(key) for key in ("vision_config", "text_config"))]
    least = 0
    for tower in towers:
        if not isinstance(tower, Mapping):
            continue
        hidden = _whole(tower, "hidden_size")
        inner = 4 * hidden * hidden + 2 * hidden * _whole(tower, "intermediate_size")
        least += _whole(tower, "num_hidden_layers") * inner
    if least > max(held, ALWAYS_TAKEN_BYTES // 4):
        raise ModelError(
            f"the configuration of {name} describes more than {least:,} parameters, but its files "
            f"have {held:,} bytes: they do not belong together"
        )


def refuse_pipes(place: Path) -> None:
    """Raises `ModelError` where a model's place, or what is in it, is a pipe, a device or a socket.

    Libraries open what has a file's name, and wait for whoever writes into a pipe.
    """
    inner = (path for pattern in ("*", "*/*") for path in place.glob(pattern))
    for path in (place, *(inner if place.is_dir() else ())):
        if kind := special_kind(path):
            raise ModelError(f"{path} is {kind} and not a file")


def refuse_large_texts(place: Path) -> None:
    """Raises `ModelError` where a tokenizer or a configuration is larger than any that is known.

    Libraries parse them whole: a gigabyte of JSON takes many.
    """
    for path in (path for pattern in _TEXTS for path in place.glob(pattern)):
        size = path.stat().st_size if path.exists() else 0
        if size > JSON_MB.num_bytes:
            raise ModelError(f"{path} has {size / 1e6:,.1f} MB; {JSON_MB.sentence}")


def refuse_packed_weights(file: Path) -> None:
    """Raises `ModelError` where a file of torch's, which is a zip, unpacks to far more than it is.

    torch itself packs nothing.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as members:
        unpacked = sum(one.file_size for one in members.infolist())
    if unpacked > max(ALWAYS_TAKEN_BYTES, UNPACKED_RATIO * file.stat().st_size):
        raise ModelError(
            f"{file} would unpack to {unpacked / 1e9:.1f} GB, which no file of weights does"
        )


def refuse_slow_patterns(config: Mapping[str, Any], modules: Collection[str], name: str) -> None:
    """Raises `ModelError` where peft would match patterns that are none, or that never end.

    A pattern that could take long is tried on the names in a process of its own, which can be
    stopped.
    """
    patterns = [value for key in _PATTERNS if isinstance(value := config.get(key), str)]
    for key in ("rank_pattern", "alpha_pattern"):
        if isinstance(found := config.get(key), Mapping):
            patterns += [rf"(.*\.)?({pattern})$" for pattern in found]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ModelError(
                f"the adapter {name} names modules by {shown(pattern)}, which is no pattern: "
                f"{error}"
            ) from None
    if slow := [pattern for pattern in patterns if _may_backtrack(pattern)]:
        _try(slow, modules, name)


def _may_backtrack(pattern: str) -> bool:
    """Whether more than one part of it repeats, or a group does."""
    return len(re.findall(r"[*+{]", pattern)) > 1 or bool(re.search(r"\)[*+{]", pattern))


_MATCHING = (
    "import json,re,sys; patterns, names = json.load(sys.stdin)\n"
    "for one in patterns: any([re.fullmatch(one, name) for name in names])"
)


def _try(patterns: list[str], modules: Iterable[str], name: str) -> None:
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHING],
            input=json.dumps([patterns, list(modules)]),
            text=True,
            capture_output=True,
            timeout=_PATTERN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"the adapter {name} names modules by {shown(patterns[0])}, a pattern that takes more "
            f"than {_PATTERN_SECONDS} seconds to match; name the modules one by one"
        ) from None


def _named(config: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    """The values of a key, of the whole and of its towers."""
    if key in config:
        yield key, config[key]
    for tower in ("vision_config", "text_config"):
        inner = config.get(tower)
        if isinstance(inner, Mapping) and key in inner:
            yield f"{tower}.{key}", inner[key]


def _values(config: Mapping[str, Any], key: str) -> list[Any]:
    found = config.get(key)
    return list(found.values()) if isinstance(found, Mapping) else []


def _whole(tower: Mapping[str, Any], key: str) -> int:
    value = tower.get(key)
    return value if isinstance(value, int) and value > 0 else 0
