"""open_clip's checkpoints and folders as a transformers CLIPModel, without open_clip.

`open_clip:NAME:FILE` names a file and the model that it is of. A folder of `push_to_hf_hub` says
itself what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from driftscope.backbones import find_image_tower
from driftscope.backbones.clip import Clip
from driftscope.backbones.library import OpenClipModel
from driftscope.backbones.mean_pooled import MeanPooledTower, pooled
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError
from driftscope.files import named_path, write_whole
from driftscope.sources.fitting import completed
from driftscope.sources.form import Beside
from driftscope.sources.open_clip import library
from driftscope.sources.open_clip.live import (
    converted,
    converted_tower,
    is_live,
    is_live_tower,
    live_convention,
    pixels_of,
    readable,
)
from driftscope.sources.open_clip.names import (
    OPEN_CLIP_NAMES,
    SIZES,
    activation_of,
    checked_name,
    names_of,
    size_of,
    vision_head_width,
)
from driftscope.sources.open_clip.names import QUICK_SUFFIX as _QUICK_SUFFIX
from driftscope.sources.open_clip.texts import tokenizer_of
from driftscope.sources.open_clip.weights import (
    TowerFacts,
    convert_open_clip,
    convert_tower,
    file_notes,
    holds,
    is_tower_alone,
    num_layers,
    to_open_clip,
    without_prefix,
)
from driftscope.sources.origin import read_json
from driftscope.sources.preprocessor import OPENAI_PIXELS, framing_notes
from driftscope.sources.state_dict import read_tensors_of
from driftscope.sources.torchscript import is_torchscript

if TYPE_CHECKING:
    from transformers import CLIPModel

KIND = "open_clip"
TOWER_KIND = "VisionTransformer of open_clip"
"""Its image tower by itself, `model.visual`."""
TOWER_FAMILY = Clip()
"""What that is read as."""
PREFIX = "open_clip:"
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_model.bin"),
)
"""What open_clip calls a model's weights in a folder."""
_OF_A_FOLDER = ("hf-hub:", "local-dir:")
"""What open_clip puts before the name of a folder."""
_VISION_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_TOKENIZER_KEYS = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")
_HARMLESS_KEYS = {"patch_dropout", "output_tokens"}


def recognises(name: str) -> bool:
    """Whether it is meant to name an open_clip checkpoint, or is a folder of one."""
    folder = _folder(name)
    is_folder = (folder / CONFIG_FILE).exists() and not (folder / "config.json").exists()
    return is_folder or name.startswith((PREFIX, *_OF_A_FOLDER))


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """The checkpoint as a CLIPModel, with OpenAI's tokenizer where that is at hand."""
    if not name.startswith(PREFIX):
        if name.startswith(_OF_A_FOLDER[0]):
            return beside.load(name.removeprefix(_OF_A_FOLDER[0]))
        return _load_folder(_folder(name), name)
    parts = name.removeprefix(PREFIX).split(":", maxsplit=1)
    path = weights_in(named_path(parts[-1]))
    if len(parts) != 2 or path is None:
        raise ModelError(
            f"{name!r} names no open_clip checkpoint; write open_clip:NAME:FILE, such as "
            "open_clip:ViT-B-32:/models/open_clip_model.safetensors"
        )
    if parts[0] not in OPEN_CLIP_NAMES and (said := library.configuration(parts[0])) is not None:
        return _by_open_clip(path, name, said, f"{parts[0]} is no plain ViT")
    clip, notes = _named(path, parts[0])
    named, own = SIZES[parts[0].removesuffix(_QUICK_SUFFIX)], clip.config.vision_config.image_size
    if own != named.image_size:
        notes += (f"{path} reads images of {own} pixels, a {parts[0]} those of {named.image_size}",)
    return from_open_clip(clip, name, OPENAI_PIXELS, notes)


def weights_in(path: Path) -> Path | None:
    """The file itself, or the one that open_clip wrote into a folder."""
    if path.is_file():
        return path
    return next((path / file for file in WEIGHT_FILES if (path / file).is_file()), None)


def from_open_clip(
    clip: Any,
    source: str = KIND,
    pixels: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    said_of_texts: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> VisionLanguageModel:
    """An open_clip model that can be read, with its tokenizer where that is at hand.

    Args:
        clip: converted, or behind the calls that driftscope makes.
        source: how the user knows it.
        pixels: what is known of its pixels.
        notes: what is to be said of it.
        said_of_texts: the `text_cfg` of its configuration.
        folder: its own, where its tokenizer may lie, too.
    """
    backbone = find_image_tower(clip).backbone
    has_texts = backbone.has_text(clip.config)
    vocabulary = backbone.vocabulary_size(clip.config) if has_texts else 0
    tokenizer = tokenizer_of(said_of_texts or {}, vocabulary, folder, source) if has_texts else None
    known = {name: OPENAI_PIXELS[name] for name in ("mean", "std")}
    return VisionLanguageModel(
        module=clip,
        tokenizer=tokenizer,
        image_size=int(backbone.vision_config(clip.config).image_size),
        source=source,
        notes=notes,
        **{**known, **(pixels or {})},
    )


def load_open_clip(path: Path | str, name: str) -> CLIPModel:
    """A CLIPModel from an open_clip checkpoint file, float32, in eval mode.

    Args:
        path: a .safetensors file, or a .pt/.bin file that holds tensors only (it is read with
            weights_only=True; of a training checkpoint the entry of its weights is used).
        name: the open_clip model name, one of `OPEN_CLIP_NAMES`; it decides the activation, and
            the weights must have its shape. The image size may be another.

    Raises:
        ModelError: the name is unknown, the file cannot be read safely, or the weights are not
            those of a plain open_clip ViT of that name.
    """
    return _named(Path(path), name)[0]


def _named(path: Path, name: str) -> tuple[CLIPModel, tuple[str, ...]]:
    """The model of a name, and what is to be said of its file."""
    activation = activation_of(checked_name(name))
    held = read_tensors_of(path)
    state = without_prefix(held, str(path))
    clip = _clip(state, activation, str(path))
    found, named = (
        size_of(state, num_layers(state, "visual.")),
        SIZES[name.removesuffix(_QUICK_SUFFIX)],
    )
    if not found.is_of(named):
        others = " or ".join(names_of(found)) or "another architecture"
        raise ModelError(
            f"{path} is not a {name} but {others}: it has {found.described}, and a {name} has "
            f"{named.described}"
        )
    return clip, file_notes(held, str(path))


def from_state(
    state: Mapping[str, Tensor], name: str, like: VisionLanguageModel | None, path: Path
) -> VisionLanguageModel:
    """The model of a file that is not named by one of open_clip's names.

    OpenAI's own archives tell their activation; of others it is the compared model's.

    Raises:
        ModelError: nothing tells the activation, or it is no plain ViT.
    """
    plain, told = without_prefix(state, name), file_notes(state, name)
    facts = None if like is None else _facts_of(like)
    if is_torchscript(path):
        note = f"{name} is a TorchScript archive as OpenAI's are, so its activation is QuickGELU"
        if facts is None or like is None:
            clip = _clip(plain, "quick_gelu", name)
        else:
            vision, text = (replace(one, activation="quick_gelu") for one in facts)
            clip = _built(plain, vision, text, name)
        return from_open_clip(clip, name, OPENAI_PIXELS, (*told, note))
    if like is None or facts is None:
        names = names_of(size_of(plain, num_layers(plain, "visual."))) or ["NAME"]
        raise ModelError(
            f"{name} holds an open_clip model, and a file does not tell its activation; name the "
            f"model: open_clip:{names[0]}:{path} (open_clip:{names[0]}{_QUICK_SUFFIX}:{path} for "
            "OpenAI's weights and what was fine-tuned from them)"
        )
    activation = facts[0].activation
    note = f"{name} does not tell its activation: it is taken to be {like.source}'s, {activation}"
    return from_open_clip(_built(plain, *facts, name), name, OPENAI_PIXELS, (*told, note))


def completed_tower(
    state: Mapping[str, Tensor], like: VisionLanguageModel, name: str
) -> VisionLanguageModel:
    """An image tower by itself in a copy of the CLIP that it belongs to, which tells its function.

    Raises:
        ModelError: that is no CLIP, or the tower does not fit it.
    """
    if like.backbone.whole != "CLIPModel":
        raise ModelError(
            f"{name} is the image tower of an open_clip CLIP without its text tower, and "
            f"{like.source} is no CLIP; compare it with the CLIP that it was made from"
        )
    model = completed(convert_tower(state, name), like, name)
    activation = like.plain.config.vision_config.hidden_act
    note = f"{name} does not tell its activation: it is taken to be {like.source}'s, {activation}"
    return replace(model, notes=(*model.notes, note))


def _facts_of(like: VisionLanguageModel) -> tuple[TowerFacts, TowerFacts] | None:
    """What a CLIP says of its towers; None of another family."""
    if like.backbone.whole != "CLIPModel":
        return None
    towers = (getattr(like.plain.config, name) for name in ("vision_config", "text_config"))
    vision, text = (
        TowerFacts(one.hidden_act, one.hidden_size // one.num_attention_heads, one.layer_norm_eps)
        for one in towers
    )
    return vision, text


def _clip(state: Mapping[str, Tensor], activation: str, source: str) -> CLIPModel:
    """With the head widths and the epsilon of all plain ViTs of open_clip."""
    width = len(state["visual.conv1.weight"])
    return _built(
        state, TowerFacts(activation, vision_head_width(width)), TowerFacts(activation), source
    )


def _built(
    state: Mapping[str, Tensor], vision: TowerFacts, text: TowerFacts, source: str
) -> CLIPModel:
    from transformers import CLIPModel

    config, weights = convert_open_clip(state, vision, text, source)
    model = CLIPModel(config)
    model.load_state_dict(weights)
    return model.eval()


# ---------------------------------------------------------------- a folder


def _folder(name: str) -> Path:
    return named_path(name.removeprefix(_OF_A_FOLDER[1]))


def _load_folder(folder: Path, name: str) -> VisionLanguageModel:
    """What a folder of `push_to_hf_hub` says of its model, and its weights.

    Raises:
        ModelError: there is no such folder, or it is of no plain ViT.
    """
    if not (folder / CONFIG_FILE).exists():
        raise ModelError(f"{name} is no folder of open_clip: {CONFIG_FILE} is missing")
    said = read_json(folder / CONFIG_FILE)
    model_config = said.get("model_cfg")
    if not isinstance(model_config, dict):
        raise ModelError(f"{folder / CONFIG_FILE} has no 'model_cfg'")
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(model_config.get(key), dict):
            raise ModelError(f"{folder / CONFIG_FILE} has no {key!r} in its 'model_cfg'")
    path = weights_in(folder)
    if path is None:
        raise ModelError(
            f"the open_clip folder {name} has no weights: {WEIGHT_FILES[0]} is missing"
        )
    vision, text = (dict(model_config[key]) for key in ("vision_cfg", "text_cfg"))
    for settings, what in ((vision, "head_width"), (text, "heads"), (text, "width")):
        if not isinstance(settings.get(what, 1), int) or settings.get(what, 1) < 1:
            raise ModelError(
                f"{folder / CONFIG_FILE} says {what} {settings[what]!r}; a whole number would be "
                "right"
            )
    for settings, plain in ((vision, _VISION_KEYS), (text, _TEXT_KEYS)):
        if unknown := _unknown_setting(settings, plain):
            why = f"its configuration says {unknown} {settings[unknown]!r}"
            return _by_open_clip(path, name, said, why, folder)
    activation = "quick_gelu" if model_config.get("quick_gelu") else "gelu"
    held = read_tensors_of(path)
    clip = _built(
        without_prefix(held, str(path)),
        TowerFacts(
            _activation(vision, activation), int(vision.get("head_width", 64)), _eps(vision)
        ),
        TowerFacts(
            _activation(text, activation),
            int(text.get("width", 512)) // int(text.get("heads", 8)),
            _eps(text),
        ),
        name,
    )
    _refuse_another_model(model_config, clip.config, name)
    if vision.get("pool_type") == "avg":
        norm_after = bool(vision.get("final_ln_after_pool"))
        clip.vision_model = MeanPooledTower(clip.vision_model, norm_after=norm_after)
    pixels = pixels_of(dict(said.get("preprocess_cfg") or {}), clip.config.vision_config.image_size)
    framing = pixels["own_framing"]
    notes = file_notes(held, name) + (
        () if framing is None else tuple(framing_notes(framing, name))
    )
    return from_open_clip(clip, name, pixels, notes, text, folder)


def _refuse_another_model(said: Mapping[str, Any], built: Any, name: str) -> None:
    """Raises ModelError where a configuration describes other weights than the folder holds.

    Then what weights do not tell, such as the width of heads, is of another model, too.
    """
    vision, text = built.vision_config, built.text_config
    size = said.get("vision_cfg", {}).get("image_size")
    found = {
        ("vision_cfg", "layers"): vision.num_hidden_layers,
        ("vision_cfg", "width"): vision.hidden_size,
        ("vision_cfg", "patch_size"): vision.patch_size,
        ("vision_cfg", "image_size"): vision.image_size,
        ("text_cfg", "layers"): text.num_hidden_layers,
        ("text_cfg", "width"): text.hidden_size,
        ("text_cfg", "context_length"): text.max_position_embeddings,
        ("text_cfg", "vocab_size"): text.vocab_size,
    }
    if isinstance(size, int) and size // vision.patch_size * vision.patch_size == vision.image_size:
        del found["vision_cfg", "image_size"]  # of no whole number of patches
    named = {place: said.get(place[0], {}).get(place[1]) for place in found}
    named["model_cfg", "embed_dim"] = said.get("embed_dim")
    found["model_cfg", "embed_dim"] = built.projection_dim
    for place, own in found.items():
        if named[place] not in (None, own, [own, own]):
            raise ModelError(
                f"{CONFIG_FILE} of {name} says {' '.join(place)} {named[place]}, and its weights "
                f"are of {own}: they do not belong together; put the configuration of the model "
                "that was saved beside them"
            )


def write_folder(model: VisionLanguageModel, folder: Path) -> None:
    """Writes a converted model as open_clip keeps it, where transformers has no class for it."""
    config = model.plain.config
    vision, text = config.vision_config, config.text_config
    activation = _ACTIVATIONS.get(vision.hidden_act, {})
    epsilons = ({"norm_kwargs": {"eps": one.layer_norm_eps}} for one in (vision, text))
    towers = {
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
            **pooled(model.plain),
            **activation,
            **next(epsilons),
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            **activation,
            **next(epsilons),
        },
    }
    framing = model.framing
    said = {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": vision.hidden_act == "quick_gelu",
            **towers,
        },
        "preprocess_cfg": {
            "mean": list(model.mean),
            "std": list(model.std),
            "interpolation": framing.resample,
            "resize_mode": "squash" if framing.squashes else "shortest",
        },
    }
    save_file(to_open_clip(model.plain.state_dict()), folder / WEIGHT_FILES[0])
    write_whole(folder / CONFIG_FILE, json.dumps(said, indent=1).encode())


_ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}


def _activation(tower: Mapping[str, Any], named: str) -> str:
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return "gelu_pytorch_tanh" if tanh and named == "gelu" else named


def _eps(tower: Mapping[str, Any]) -> float:
    return float((tower.get("norm_kwargs") or {}).get("eps", 1e-5))


def _unknown_setting(tower: Mapping[str, Any], plain: set[str]) -> str:
    """The first setting of a tower that no conversion knows; empty where all are known."""
    pools = tower.get("pool_type", "tok") in (
        ("tok", "avg") if plain is _VISION_KEYS else ("argmax",)
    )
    known = {
        *plain,
        *_HARMLESS_KEYS,
        *(("pool_type",) if pools else ()),
        *(("act_kwargs",) if tower.get("act_kwargs") in (None, {"approximate": "tanh"}) else ()),
        *(("norm_kwargs",) if set(tower.get("norm_kwargs") or {}) <= {"eps"} else ()),
        *_TOKENIZER_KEYS,
        *(("final_ln_after_pool",) if tower.get("pool_type") == "avg" and pools else ()),
    }
    return next(iter(sorted(tower.keys() - known)), "")


def _by_open_clip(
    path: Path, name: str, said: Mapping[str, Any], why: str, folder: Path | None = None
) -> VisionLanguageModel:
    """A model that is no plain ViT, built by open_clip itself, where that is installed."""
    model, told = library.built(said["model_cfg"], path, name, why)
    clip = OpenClipModel(model, said)
    pixels = pixels_of(dict(said.get("preprocess_cfg") or {}), clip.config.image_size)
    framing = pixels.get("own_framing")
    notes = told + (() if framing is None else tuple(framing_notes(framing, name)))
    return from_open_clip(clip, name, pixels, notes, said["model_cfg"].get("text_cfg"), folder)


__all__ = [
    "KIND",
    "OPEN_CLIP_NAMES",
    "PREFIX",
    "TOWER_FAMILY",
    "TOWER_KIND",
    "completed_tower",
    "convert_open_clip",
    "converted",
    "converted_tower",
    "from_open_clip",
    "from_state",
    "holds",
    "is_live",
    "is_live_tower",
    "is_tower_alone",
    "live_convention",
    "load",
    "load_open_clip",
    "readable",
    "recognises",
    "to_open_clip",
    "write_folder",
]
