"""A model from a folder in hub layout, or from the Hugging Face hub and its cache."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from driftscope.backbones import families, family_of_type, why_type_is_refused
from driftscope.backbones.base import Backbone
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, one_line, told_as
from driftscope.files import named_path
from driftscope.hugging_face import (
    file_of,
    offline_where_unreachable,
    quiet_libraries,
    quiet_panics,
)
from driftscope.nearby import neighbour, nothing_there
from driftscope.sources.adapter import is_merged, told_of_left_configuration
from driftscope.sources.borrowed import with_texts_of
from driftscope.sources.fitting import ADAPTER_PARTS, NO_WEIGHTS, fitted, told_of_rest
from driftscope.sources.form import Beside
from driftscope.sources.nothing_here import OF_OTHERS
from driftscope.sources.origin import read_json
from driftscope.sources.plausible import (
    refuse_implausible,
    refuse_more_than_weights,
    refuse_odd_sizes,
    refuse_packed_weights,
)
from driftscope.sources.plausible_tokenizer import refuse_growing_rules, refuse_slow_or_endless
from driftscope.sources.preprocessor import pixel_convention
from driftscope.sources.state_dict import (
    FILES,
    SUFFIXES,
    about_extra,
    check_fetched,
    check_shards,
    read_tensors_of,
    told_of_rounding,
    types_in,
    weights_in,
    why_unreadable,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITHOUT_TEXTS = (
    *("VisionModel", "VisionModelWithProjection"),
    *("ForImageClassification", "VisionTextDualEncoderModel"),
)
"""How transformers' classes of an image tower without a text tower of its own end."""
_AS_IT_IS_READ: dict[str, Any] = {
    **{"trust_remote_code": False, "dtype": torch.float32, "output_attentions": False}
}
"""What a configuration may say of how a model was used, which decides nothing of its function."""
_WANTED = ["*.json", "*.safetensors", "*.bin", "*.txt", "*.model"]
"""The files of a repository that a model is made of."""
_ID = re.compile(r"[\w.:@/+=-]+", re.ASCII).fullmatch
"""Whether all characters are such as ids on the hub, revisions and tags have."""


def recognises(name: str) -> bool:
    """Whether it is a folder in hub layout, or else a name that the hub may know."""
    folder = named_path(name)
    return (folder / "config.json").exists() or not (folder.exists() or _looks_like_path(name))


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """Of the hub the cache is asked first, as transformers does.

    A repository may hold what another form loads, such as an adapter, and `ID@REVISION` names a
    revision of one.
    """
    folder = named_path(name)
    if folder.is_dir():
        found = load_hub_layout(folder, name, beside.like)
        return replace(found, notes=found.notes + told_of_left_configuration(name))
    with offline_where_unreachable():
        place = place_of(name, beside.like)
        if place != name:
            found = beside.load(place, beside.like)
            copy = f"the cached copy of {name}"  # which may lack what the repository holds
            told = tuple(note.replace(place, copy) for note in found.notes)
            return replace(found, source=name, notes=told)
        return load_hub_layout(name, name)


def place_of(name: str, like: VisionLanguageModel | None = None) -> str:
    """The folder in the cache of a repository that another form or a revision is loaded from.

    Else the name: transformers itself fetches it.
    """
    repository, _, revision = name.partition("@")
    with offline_where_unreachable():
        if revision or _is_of_another_form(repository, like):
            return str(_snapshot(repository, revision or None) or name)
    return name


def is_of_timms_hub(said: Mapping[str, Any]) -> bool:
    """Whether a configuration is one that timm writes, which has no model_type."""
    return isinstance(said.get("architecture"), str) and "pretrained_cfg" in said


def class_in(config: Path) -> str:
    """The name of transformers' class that a folder's configuration tells."""
    named = read_json(config).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def tells_no_texts(config: Path) -> bool:
    """Whether a configuration is that of an image tower without a text tower of its own.

    By its class, or, where it names none, by its type, such as `clip_vision_model`.
    """
    named = class_in(config)
    if named:
        return named.endswith(WITHOUT_TEXTS)
    return str(read_json(config).get("model_type")).endswith("_vision_model")


def _is_of_another_form(repository: str, like: VisionLanguageModel | None) -> bool:
    """Whether a repository holds an adapter, a model of open_clip, or a tower without texts."""
    if file_of(repository, "adapter_config.json") is not None:
        return True  # also one that a merge has left, which transformers would take for an adapter
    config = file_of(repository, "config.json")
    if config is not None:
        return like is not None and like.has_text and tells_no_texts(config)
    return file_of(repository, "open_clip_config.json") is not None


def _snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository in the cache, fetched where the hub can be reached."""
    from huggingface_hub import snapshot_download

    try:
        with quiet_libraries():
            return Path(snapshot_download(repository, revision=revision, allow_patterns=_WANTED))
    except (OSError, ValueError):
        return None


def load_hub_layout(
    place: Path | str, name: str, like: VisionLanguageModel | None = None
) -> VisionLanguageModel:
    """A family's whole model from a folder or from the hub.

    If a folder has the weights of the image tower alone, `like` lends it the texts. Code that lies
    beside the weights is never run.
    """
    import transformers

    where = str(place)
    if (folder := Path(where)).is_dir():
        said = read_json(folder / "config.json")
        if not said.get("model_type") and not is_of_timms_hub(said):
            raise ModelError(f"{folder / 'config.json'} has no model_type, so it is no model's")
        refuse_implausible(said, name)
        refuse_more_than_weights(said, folder, name)
        for file in folder.glob("*.bin"):
            refuse_packed_weights(file)
    families()  # a package that brings one registers its configuration with transformers
    try:
        with quiet_libraries():
            config = transformers.AutoConfig.from_pretrained(where, **_AS_IT_IS_READ)
    # an odd configuration raises what its fields are made of: TypeError, KeyError, ...
    except Exception as error:
        if "custom code" in str(error):
            raise ModelError(
                f"{name} brings its model as Python code, which driftscope never runs; it loads "
                f"models of the type {_types()} that transformers knows"
            ) from None
        raise ModelError(unreadable_config(name, error)) from None
    backbone = family_of_type(config.model_type)
    if backbone is None:
        raise ModelError(unread_type(config.model_type, name))
    _refuse_without(backbone.needs, name)
    refuse_odd_sizes(backbone.vision_config(config), name)
    try:
        loaded, notes = _module(where, config, backbone, name)
    except _NoTextsError as lacking:
        if like is None or not like.has_text:
            raise
        vision = backbone.vision_config(config)
        return with_texts_of(like, lacking.state, vision, Path(where), name)
    module: Any = backbone.readable(loaded).eval()
    for part in loaded.modules():
        held: Any = getattr(part, "config", None)
        if held is not None:
            held.return_dict = True  # outputs are read by name
    image_size = int(backbone.vision_config(module.config).image_size)
    of_timm = getattr(config, "pretrained_cfg", None)
    pixels = pixel_convention(where, name, image_size, backbone, of_timm)
    return VisionLanguageModel(
        module=module,
        tokenizer=load_tokenizer(where, backbone.vocabulary_size(config), name)
        if backbone.has_text(config)
        else None,
        source=name,
        **{**pixels, "notes": (*pixels.get("notes", ()), *notes)},
    )


def _refuse_without(package: str, name: str) -> None:
    """Raises ModelError where the package that makes a model is not installed, with what it needs.

    transformers is asked, which looks once in a process.
    """
    import transformers

    if package and not getattr(transformers.utils, f"is_{package}_available")():
        raise ModelError(
            f"{name} is a model of {package}, which is not installed here, or not torchvision, "
            f"which it needs; install both with: pip install {package}"
        )


class _NoTextsError(ModelError):
    """A model's weights are those of its image tower, and whole but for the texts.

    Attributes:
        state: the weights.
    """

    def __init__(self, told: str, state: Mapping[str, Tensor]) -> None:
        super().__init__(told)
        self.state = state


def _module(
    where: str, config: Any, backbone: Backbone, name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The family's class with the weights of a folder, or of the hub, and what is to be said.

    Raises:
        ModelError: there are none, or they are not complete.
    """
    model_class = backbone.model_class(config)
    folder = Path(where)
    weights = weights_in(folder)
    if weights is not None:
        check_fetched(weights)
        if weights.name.endswith(".index.json"):
            check_shards(weights)
    elif folder.is_dir():
        raise ModelError(_without_weights(folder, name))
    # beside an adapter's configuration transformers would look for the adapter
    if weights is not None and (weights.name not in FILES or is_merged(folder)):
        return _filled(config, backbone, weights, name)
    try:
        with quiet_libraries():
            module, loading = model_class.from_pretrained(
                where,
                **backbone.options_for(config),
                **({} if backbone.has_attention_of_its_own else {"attn_implementation": "sdpa"}),
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    # torch and safetensors raise several kinds for files that are not what they seem
    except Exception as error:
        if "ignore_mismatched_sizes" in str(error):  # which weight that is, and why, is told there
            return _filled(config, backbone, weights or _fetched(where), name)
        raise ModelError(
            f"the weights of {name} cannot be loaded: {why_unreadable(error)}"
        ) from None
    stored = weights or _fetched(where)
    kinds = types_in(stored) if stored is not None else {}
    _refuse_whole_numbers(kinds, module, name)
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        return module, _fill(module, backbone, stored, name)
    idle = backbone.with_or_without_its_tower(backbone.idle_of(config))
    left_out = [key for key in loading["unexpected_keys"] if not key.startswith(idle)]
    left_out = sorted(key for key in left_out if not key.endswith(NO_WEIGHTS))
    _refuse_what_is_left_out(left_out, module, backbone, name)
    rest = told_of_rest(left_out, name)
    return module, (*rest, *told_of_rounding(kinds.values(), name))


def _refuse_what_is_left_out(
    left_out: Iterable[str], module: nn.Module, backbone: Backbone, name: str
) -> None:
    """Raises ModelError where transformers has passed over weights that change the function.

    Those are in the image tower, or in a layer that the module has, such as the scale of a
    quantised matrix, or in more blocks than the configuration tells. What stands beside, such as
    a head, does not matter.
    """
    tower = f"{backbone.tower_name}."
    is_whole = any(key.startswith(tower) for key in module.state_dict())
    tops = (tower,) if is_whole else tuple(f"{top}." for top, _ in module.named_children())
    own = {re.sub(r"\.\d+\.", ".0.", f"{key}.") for key in module.state_dict()}
    layers = {key.rpartition(".")[0].rpartition(".")[0] for key in own}
    for key in left_out:
        layer = re.sub(r"\.\d+\.", ".0.", key).rpartition(".")[0]
        is_inside = key.startswith(tops) or any(part in key for part in ADAPTER_PARTS)
        if is_inside and not (".0." in layer and layer in layers):
            raise ModelError(
                f"the weights of {name} are of another architecture than its configuration tells: "
                f"they have {key}, which the model would leave out; {about_extra(key)}"
            )
        if ".0." in layer and layer in layers:
            raise ModelError(
                f"the weights of {name} are of another architecture than its configuration tells: "
                f"they have {key}, which the model would leave out"
            )


_WHOLE = ("I", "U", "BOOL", "C", "int", "uint", "bool", "q", "complex")
"""How the types of numbers begin that are no weights, in safetensors' words and in torch's."""


def _refuse_whole_numbers(kinds: Mapping[str, str], module: nn.Module, name: str) -> None:
    """Raises ModelError where weights are stored as the whole numbers that they were rounded to."""
    own = {key for key, one in module.state_dict().items() if one.is_floating_point()}
    for key, kind in kinds.items():
        if key in own and kind.startswith(_WHOLE):
            raise ModelError(
                f"the weights of {name} are quantised: {key} is stored as {kind}; save the model "
                "in floating-point numbers (where it was made: dequantize(), then save_pretrained)"
            )


def _without_weights(folder: Path, name: str) -> str:
    found = sorted(one.name for one in folder.iterdir() if one.suffix in (*OF_OTHERS, *SUFFIXES))
    has = f"it has {', '.join(found[:3])}" if found else "model.safetensors is missing"
    return (
        f"the model folder {name} has no weights that are read ({has}); load it where it was made, "
        "and save it by save_pretrained"
    )


def _fetched(name: str) -> Path | None:
    """The weights of a repository in the cache, where transformers has put what it loads."""
    kept = (file_of(name, file, fetches=False) for file in FILES)
    return next(filter(None, kept), None)


def _filled(
    config: Any, backbone: Backbone, path: Path | None, name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The family's class with the weights of a file that transformers does not load by itself."""
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        module: nn.Module = backbone.model_class(config)(config, **backbone.load_options)
    return module, _fill(module, backbone, path, name)


def _fill(module: nn.Module, backbone: Backbone, path: Path | None, name: str) -> tuple[str, ...]:
    """Finds the weights that transformers did not, under the prefix of what held the model.

    Gives what is to be said of it.

    Raises:
        ModelError: they are not complete.
    """
    if path is None:
        raise ModelError(f"the weights of {name} are not complete")
    state = read_tensors_of(path)
    fit = fitted(state, module, backbone, name, "the model that its configuration tells")
    if fit.lacking:
        told = f"the weights of {name} are not complete: it has no {' and no '.join(fit.lacking)}"
        raise _NoTextsError(told, state) if "text tower" in fit.lacking else ModelError(told)
    module.load_state_dict(fit.tensors, strict=False)
    return fit.notes


_TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
"""What a tokenizer is read from: every folder that has a tokenizer has one of these files."""


def load_tokenizer(
    where: str, vocabulary_size: int, name: str | None = None
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder or hub id; None where it has none.

    Raises:
        ModelError: it has one that cannot be read, or of another vocabulary.
    """
    from transformers import AutoTokenizer

    doing = f"the tokenizer of {name or where} cannot be read"
    if (rules := file_of(where, _TOKENIZER_FILES[0])) is not None:
        refuse_growing_rules(rules.parent, name or where)
    try:
        with quiet_libraries(), quiet_panics(), told_as(ModelError, doing):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                where, trust_remote_code=False
            )
    except ModelError as error:
        if not _tokenizer_files(where):
            return None
        if "sentencepiece" in str(error).lower() and find_spec("sentencepiece") is None:
            raise ModelError(
                f"{doing}: it needs sentencepiece, which is not installed here; install it with: "
                "pip install sentencepiece protobuf"
            ) from None
        raise
    # without tokenizer files transformers makes up a CLIP tokenizer with an empty vocabulary
    if 2 * len(tokenizer) > vocabulary_size:
        refuse_slow_or_endless(tokenizer, name or where)
        return tokenizer
    if there := _tokenizer_files(where):
        raise ModelError(
            f"{doing}: it knows {len(tokenizer):,} tokens and the model {vocabulary_size:,}, so "
            f"{there[0]} is another model's, or cut off"
        )
    return None


def _tokenizer_files(where: str) -> list[str]:
    return [one for one in _TOKENIZER_FILES if file_of(where, one, fetches=False) is not None]


def unread_type(model_type: str, name: str) -> str:
    """Why a model of a type that is no family's is not read."""
    reason = why_type_is_refused(model_type) or f"driftscope loads models of the type {_types()}"
    return f"{name} is a {model_type!r} model; {reason}"


def _types() -> str:
    return ", ".join(repr(name) for one in families() for name in list(one.classes)[:1])


def unreadable_config(name: str, error: Exception) -> str:
    """Why a model's configuration cannot be had, and what to do."""
    if Path(name).exists():
        return f"the model folder {name} cannot be read: {one_line(error)}"
    if "@" not in name and neighbour(name):
        return f"no model {name!r}: {nothing_there(name)} Nor does the Hugging Face hub give it"
    from huggingface_hub import is_offline_mode
    from huggingface_hub.constants import HF_HUB_CACHE

    answer = "cannot be reached" if is_offline_mode() else f"did not give it ({one_line(error)})"
    return (
        f"no model {name!r}: it is not 'mini', there is no folder of that name here, it is not in "
        f"the cache {HF_HUB_CACHE}, and the Hugging Face hub {answer}; check the name, or give the "
        "folder of a copy as the model"
    )


def _looks_like_path(name: str) -> bool:
    is_file = name.endswith(SUFFIXES)
    return is_file or name.startswith((".", "/", "~")) or name.count("/") > 1 or not _ID(name)
