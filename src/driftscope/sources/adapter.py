"""A PEFT adapter folder, on the base that its configuration names, or on the one that it is
compared with."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import merged
from driftscope.errors import ModelError, one_line, shown
from driftscope.files import named_path
from driftscope.hugging_face import quiet_libraries
from driftscope.sources.adapter_names import NAMING, by_own_names
from driftscope.sources.fitting import NO_WEIGHTS, told_of_rest
from driftscope.sources.form import Beside
from driftscope.sources.origin import checked_base, read_json
from driftscope.sources.plausible import refuse_implausible, refuse_slow_patterns
from driftscope.sources.state_dict import FILES, read_tensors_of, types_in, weights_in
from driftscope.sources.trained_on import take_back, trained_on

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PEFT_PREFIX = "base_model.model."
_TOKENS = ".token_adapter"
"""What PEFT puts behind an embedding of which some tokens are trained."""
_IS_NAMED = re.compile(r"\W*(module|base_model)\b")
"""How a pattern begins that names what PEFT or DistributedDataParallel put before a layer."""


def recognises(name: str) -> bool:
    """Whether it is a folder with PEFT's configuration, and not one that a merge has left."""
    return (named_path(name) / CONFIG_FILE).exists() and not is_merged(named_path(name))


def is_merged(folder: Path) -> bool:
    """Whether a folder holds a whole model and of an adapter nothing but the configuration."""
    is_told = (folder / CONFIG_FILE).exists() and (folder / "config.json").exists()
    has_weights = any((folder / file).exists() for file in WEIGHT_FILES)
    return is_told and not has_weights and weights_in(folder) is not None


def told_of_left_configuration(name: str) -> tuple[str, ...]:
    """What is to be said of a merged model beside which an adapter's configuration lies."""
    if not is_merged(named_path(name)):
        return ()
    return (f"{name} holds {CONFIG_FILE} and no adapter's weights: the whole model there is read",)


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """The adapter on its base."""
    return load_adapter(named_path(name), name, beside)


def load_adapter(folder: Path, name: str, beside: Beside) -> VisionLanguageModel:
    """The adapter in a folder, which is called `name`, on its base.

    Raises:
        ModelError: its base is not to be had, it has no weights, or does not fit its base.
    """
    config = read_json(folder / CONFIG_FILE)
    refuse_implausible(config, name)
    _refuse_odd_settings(config, folder, name)
    weights = weights_of(folder, name)
    state = _by_layers(read_tensors_of(weights), config)
    _refuse_prompts(config, name)
    _refuse_no_weights(state, name)
    base, notes = beside.base(_places(folder, config), f"the adapter {name}")
    notes += _unknown_settings(config, name)
    if whole := [file for file in FILES if (folder / file).exists()]:
        notes += (f"{name} holds an adapter and {whole[0]}: the adapter is read, on its base",)
    refuse_slow_patterns(config, [one for one, _ in base.module.named_modules()], name)
    fingerprint = checked_base(folder, name, base)
    plain = merged(base)
    state, config = by_own_names(state, config, plain.plain)
    with _tidied(folder, weights, config, state) as tidy:
        module, rest = _adapted(state, plain, tidy, name)
    notes += rest
    return replace(
        base, module=module, source=name, base_fingerprint=fingerprint, notes=base.notes + notes
    )


def weights_of(folder: Path, name: str = "") -> Path:
    """The file of an adapter's weights.

    Raises:
        ModelError: there is none.
    """
    found = next((folder / file for file in WEIGHT_FILES if (folder / file).exists()), None)
    if found is None:
        told = name or folder
        raise ModelError(f"the adapter {told} has no weights: {WEIGHT_FILES[0]} is missing")
    return found


def _by_layers(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """An adapter's weights without what PEFT and DistributedDataParallel put before names.

    What PEFT's save_pretrained puts there is always taken off. What stands there besides stays if
    the configuration names it: then a part of the module that was trained is called so.
    """
    found = {
        re.sub(r"^(module\.)+(?=base_model\.)", "", key).removeprefix(_PEFT_PREFIX): one
        for key, one in state.items()
    }
    said = map(config.get, NAMING)
    named = chain.from_iterable(one if isinstance(one, list | dict) else [one] for one in said)
    if any(_IS_NAMED.match(str(one)) for one in named):
        return found
    while before := _before_all(found):
        found = {key.removeprefix(before): one for key, one in found.items()}
    return found


def _before_all(names: Collection[str]) -> str:
    """What of PEFT's or DistributedDataParallel's stands before all names; empty where nothing."""
    first = next(iter(names))
    before = next((one for one in (_PEFT_PREFIX, "module.") if first.startswith(one)), "")
    return before if all(name.startswith(before) for name in names) else ""


def _adapted(
    state: Mapping[str, Tensor], base: VisionLanguageModel, folder: Path, name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The adapter on its base, or, where it was trained on another module, merged into it.

    Beside it stands what is to be said of weights that are not used.
    """
    trained = trained_on(state, base, folder)
    _refuse_weights_of_other_layers(state, trained.root, name, base.source)
    module = _with_adapter(trained.root, folder, name, base.source)
    _refuse_unnamed_weights(module, folder, trained.beside, name)
    if trained.root is not base.module:
        take_back(module.merge_and_unload(), trained, base)
        module = base.module
    return module, told_of_rest(trained.beside, name)


def _refuse_no_weights(state: Mapping[str, Tensor], name: str) -> None:
    """Raises ModelError where weights are whole numbers, yes and no, or complex.

    PEFT takes them for what they were before: of small weights nothing but zeros would be left.
    """
    for key, one in state.items():
        if not one.is_floating_point() and not key.endswith("indices"):
            raise ModelError(
                f"the adapter {name} holds {key} as {one.dtype}, and no weights can be made of "
                "that; save it in floating-point numbers where it was made"
            )


def _refuse_prompts(config: Mapping[str, Any], name: str) -> None:
    """Raises ModelError where an adapter puts tokens before a text, and changes no layer."""
    if config.get("num_virtual_tokens") is not None or config.get("adapter_len") is not None:
        raise ModelError(
            f"the adapter {name} is of PEFT's kind {config.get('peft_type')}, which puts tokens "
            "before those of a language model and changes no weight of an image tower, so there "
            "is no change to measure"
        )


def _refuse_odd_settings(config: Mapping[str, Any], folder: Path, name: str) -> None:
    """Raises ModelError where an adapter's configuration says less than PEFT writes, or otherwise.

    PEFT itself fails deep inside then, in words of its code.
    """
    if not isinstance(config.get("peft_type"), str):
        raise ModelError(
            f"{folder / CONFIG_FILE} does not say the adapter's peft_type, such as LORA; put the "
            "file there that PEFT's save_pretrained wrote"
        )
    rank = config.get("r") or 1
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(f"the adapter {name} says r {shown(rank)}; a whole number would be right")
    where = ("target_modules", "target_parameters", "modules_to_save", "trainable_token_indices")
    if config["peft_type"] == "LORA" and not any(config.get(key) for key in where):
        raise ModelError(
            f"the adapter {name} does not say which layers it changes: {CONFIG_FILE} has no "
            "target_modules; put the file there that PEFT's save_pretrained wrote"
        )


def _unknown_settings(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """What is to be said of settings that the installed PEFT passes over."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {one.value: kind for one, kind in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = kinds.get(str(config.get("peft_type")))
    if kind is None:
        return ()
    known = {one.name for one in dataclasses.fields(kind)}
    unknown = sorted(key for key, value in config.items() if value and key not in known)
    if not unknown:
        return ()
    return (
        f"{name} sets {', '.join(unknown)}, which the installed PEFT does not know: if that "
        "changes what the adapter computes, install the version that wrote it",
    )


@contextmanager
def _tidied(
    folder: Path, weights: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Iterator[Path]:
    """The adapter's folder, or a copy as PEFT reads it.

    Names may hold what torch.compile has put in, and the task, which changes nothing of what an
    adapter computes, may be none that PEFT knows.
    """
    from peft import TaskType

    task = config.get("task_type")
    tidy = {_PEFT_PREFIX + key.replace(".default.", "."): one for key, one in state.items()}
    if tidy.keys() == types_in(weights).keys() and (task is None or task in set(TaskType)):
        yield folder
        return
    with TemporaryDirectory() as scratch:
        copied = Path(scratch)
        (copied / CONFIG_FILE).write_text(json.dumps({**config, "task_type": None}))
        save_file({key: one.contiguous() for key, one in tidy.items()}, copied / WEIGHT_FILES[0])
        yield copied


def _places(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Where the base may be: as it is named, at its revision, or as seen from the adapter."""
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not named or not isinstance(named, str):
        return []
    is_here = named_path(named).exists()
    places = [f"{named}@{revision}" if revision and not is_here else named]
    return places + ([str(folder / named)] if (folder / named).exists() else [])


def _refuse_weights_of_other_layers(
    state: Mapping[str, Tensor], root: nn.Module, name: str, base_name: str
) -> None:
    """Raises ModelError where an adapter changes layers that its base has not; peft skips them."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    begins = tuple(set(PEFT_TYPE_TO_PREFIX_MAPPING.values()))
    layers = {one for one, _ in root.named_modules()}
    for key in state:
        parts = key.split(".")
        at = next((at for at, part in enumerate(parts) if part.startswith(begins)), 0)
        layer = ".".join(parts[:at]).removesuffix(_TOKENS)
        if at and layer not in layers and layer != "base_model":  # where layers share weights
            raise ModelError(
                f"the adapter {name} does not fit its base {base_name}: it has weights for "
                f"{layer}, which is not there"
            )


def _refuse_unnamed_weights(module: Any, folder: Path, beside: Container[str], name: str) -> None:
    """Raises ModelError where the file changes what the configuration does not name.

    PEFT leaves such weights out without a word. What stands beside the base, such as a head,
    does not matter.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    with quiet_libraries(), _quiet():
        left_out = set_peft_model_state_dict(module, load_peft_weights(str(folder))).unexpected_keys
    for key in (one.removeprefix(_PEFT_PREFIX) for one in left_out):
        if key not in beside and not key.endswith(NO_WEIGHTS):
            raise ModelError(
                f"the adapter {name} holds {key}, which its {CONFIG_FILE} does not name, so that "
                f"PEFT would leave it out; put the {CONFIG_FILE} there that was saved with the "
                "weights"
            )


def _with_adapter(root: nn.Module, folder: Path, name: str, base_name: str) -> Any:
    """PEFT's model of the root and the adapter.

    Raises:
        ModelError: the adapter does not fit it.
    """
    from peft import PeftModel

    try:
        with quiet_libraries(), _quiet():
            return PeftModel.from_pretrained(root, str(folder))
    # peft raises several kinds, KeyError for an unknown type among them
    except Exception as error:
        raise ModelError(
            f"the adapter {name} does not fit its base {base_name}: {_reason(error)}"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's warnings, but for the one of weights that the configuration promises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*missing adapter keys", UserWarning)
        yield


def _reason(error: Exception) -> str:
    """What of peft's message says something of the two."""
    if other := re.search(r"size mismatch for (\S+?):", str(error)):
        layer = other[1].removeprefix(_PEFT_PREFIX)
        return f"{layer} has another shape in its file than its configuration and the base make it"
    if "missing adapter keys" in str(error):
        return "it has no weights for layers that its configuration names"
    return one_line(error) or type(error).__name__
