"""One representation for every model: a transformers CLIPModel, wrapped or not by PEFT.

`load` takes what a user has: `mini`, a hub id, a local folder in hub layout, a PEFT adapter
folder, a run folder of driftscope. What comes out is always called through the live path, so
that an adapter, where there is one, is in effect.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from driftscope.errors import ModelError
from driftscope.models.capture import find_image_tower
from driftscope.models.cls_only import last_block_for_cls
from driftscope.models.effective import encoder_weights
from driftscope.offline import offline_where_unreachable
from driftscope.records import ADAPTED_FOLDER

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

    from driftscope.data import PixelSource

MINI = "mini"
MINI_FOLDER = Path(__file__).parent / "mini"
EMBEDDED = {MINI: MINI_FOLDER, "mini-p14": Path(__file__).parent / "mini_p14"}
"""The models that come with driftscope: one with 49 patch tokens, one with 16."""
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTED_FILE = "adapted.json"
"""Written beside adapted weights: what they were adapted from, by name and fingerprint."""
DELTA_FILE = "delta.safetensors"
OPEN_CLIP_PREFIX = "open_clip:"
OPENAI_CLIP = "openai/clip-vit-base-patch32"
"""Whose tokenizer every open_clip model of OpenAI's text tower shares."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionLanguageModel:
    """A CLIP ready to be read: the module, its tokenizer and its pixel convention.

    `clip` is a `CLIPModel`, or a `PeftModel` around one; call it as it is. `tokenizer` is
    None where the folder holds none (then texts cannot be embedded). `base_fingerprint` is that
    of the encoder it was adapted from, where that is known.
    """

    clip: nn.Module
    tokenizer: PreTrainedTokenizerBase | None
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    base_fingerprint: str | None = None
    has_own_pixels: bool = True
    """Whether mean and std are the model's own, and not CLIP's for want of any."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.clip.parameters()).device

    @property
    def is_adapter(self) -> bool:
        """Whether a PEFT adapter wraps the model."""
        # peft leaves its peft_config on the wrapped model, too
        return hasattr(self.clip, "get_base_model")

    @property
    def plain_clip(self) -> CLIPModel:
        """The CLIPModel itself, with adapter layers inside where there are any."""
        return self.clip.get_base_model() if self.is_adapter else self.clip  # type: ignore[operator]

    @property
    def logit_scale(self) -> float:
        """The factor on cosine similarities in the model's own zero-shot softmax."""
        return float(self.plain_clip.logit_scale.detach().exp())

    @property
    def embedding_dim(self) -> int:
        """Length of a projected embedding."""
        return int(self.plain_clip.config.projection_dim)

    def normalise(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Pixels as the encoder wants them, on its device: scaled to [0, 1], mean and std off."""
        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, device=self.device).view(shape)
        std = torch.tensor(self.std, device=self.device).view(shape)
        return (pixels.to(self.device, non_blocking=True).float() / 255 - mean) / std

    def image_embeddings(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image dim"]:
        """Projected, unnormalised embeddings of one batch through the live path, with gradients."""
        with last_block_for_cls(self.plain_clip.vision_model):
            features = self.clip.get_image_features(pixel_values=self.normalise(pixels))  # type: ignore[operator]
        return features.pooler_output  # type: ignore[no-any-return]

    def embed_images(
        self, pixels: PixelSource, batch_size: int | None = None
    ) -> Float[Tensor, "image dim"]:
        """Projected, unnormalised embeddings in eval mode without gradients; mode restored."""
        batch_size = batch_size or find_image_tower(self.clip).images_per_forward
        starts = range(0, len(pixels), batch_size)
        with evaluating(self.clip):
            return torch.cat(
                [self.image_embeddings(pixels[start : start + batch_size]) for start in starts]
            )

    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Projected, unnormalised text embeddings.

        Raises:
            ModelError: the model came without a tokenizer.
        """
        parts = []
        with evaluating(self.clip):
            for start in range(0, len(texts), batch_size):
                tokens = self.tokenised(texts[start : start + batch_size])
                parts.append(self.clip.get_text_features(**tokens).pooler_output)  # type: ignore[operator]
        return torch.cat(parts)

    def tokenised(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the text tower takes them, on its device: padded, and cut to its length.

        Raises:
            ModelError: the model came without a tokenizer.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"{self.source} has no tokenizer, so class names cannot be turned into embeddings; "
                "put the tokenizer files (tokenizer.json, tokenizer_config.json) into its folder"
            )
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.plain_clip.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return dict(tokens.to(self.device))

    def to(self, device: torch.device | str) -> VisionLanguageModel:
        """The same model after moving its weights to a device."""
        self.clip.to(device)
        return self


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each submodule's mode is put back as it was."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, mode in modes:
            child.training = mode


def load(source: str | Path, *, device: torch.device | str = "cpu") -> VisionLanguageModel:
    """Loads a CLIP, adapted or not.

    Args:
        source: `"mini"` or `"mini-p14"` (`EMBEDDED`), a hub id such as
            `openai/clip-vit-base-patch32`, a folder in hub layout, a PEFT adapter folder (its base
            is loaded too), a run folder of driftscope (its selected model), or
            `open_clip:NAME:FILE` for an open_clip checkpoint.
        device: where the weights go, such as `cpu` or `cuda:0`.

    Raises:
        ModelError: nothing loadable is there, or no such device; the sentence says what was
            looked for and where.
    """
    place = usable_device(device)
    name = str(source)
    if name in EMBEDDED:
        return _load_clip_folder(EMBEDDED[name], name).to(place)
    if name.startswith(OPEN_CLIP_PREFIX):
        return _load_open_clip(name).to(place)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return _load_folder(folder, name).to(place)
    if name and folder.exists():
        raise ModelError(
            f"{name} is a file; a model is a folder in hub layout (with config.json), an open_clip "
            f"checkpoint is named {OPEN_CLIP_PREFIX}ViT-B-32:{name}"
        )
    if _looks_like_path(name):
        raise ModelError(f"no model at {name}: that folder does not exist")
    with offline_where_unreachable():
        return _load_clip_folder(name, name).to(place)


def from_clip(clip: CLIPModel) -> VisionLanguageModel:
    """A CLIPModel in memory, not copied, with what belongs to it where it was loaded from.

    Without a known place it gets OpenAI's pixel convention and no tokenizer.
    """
    where = str(clip.name_or_path or "")
    embedded = {str(folder): name for name, folder in EMBEDDED.items()}
    pixels: dict[str, Any] = {"mean": CLIP_MEAN, "std": CLIP_STD, "has_own_pixels": False}
    tokenizer = None
    if where:
        with offline_where_unreachable():
            pixels = _pixel_convention(where, where)
            tokenizer = _tokenizer(where, clip.config.text_config.vocab_size)
    return VisionLanguageModel(
        clip=clip,
        tokenizer=tokenizer,
        image_size=int(clip.config.vision_config.image_size),
        source=embedded.get(where, where or "the given CLIPModel"),
        **pixels,
    )


def from_open_clip(
    clip: CLIPModel, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> VisionLanguageModel:
    """A converted open_clip model, with OpenAI's tokenizer where that is at hand."""
    with offline_where_unreachable():
        tokenizer = _tokenizer(OPENAI_CLIP, clip.config.text_config.vocab_size)
    return VisionLanguageModel(
        clip=clip,
        tokenizer=tokenizer,
        image_size=int(clip.config.vision_config.image_size),
        mean=tuple(mean),
        std=tuple(std),
        source="open_clip",
    )


def default_device() -> str:
    """Where models run unless told: CUDA where there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        ModelError: there is no such device here.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelError(
            f"no device {str(device)!r} that this PyTorch can use; there is {', '.join(there)}"
        ) from None
    return place


def encoder_state(model: VisionLanguageModel) -> dict[str, Tensor]:
    """The image encoder's weights by their plain CLIPModel names, adapters merged in."""
    return encoder_weights(model.clip)


def is_encoder_weight(name: str) -> bool:
    """Whether a CLIPModel parameter belongs to the image tower or its projection."""
    return name.startswith(("vision_model.", "visual_projection."))


def merged(model: VisionLanguageModel) -> VisionLanguageModel:
    """The same function as a plain CLIPModel: a copy with the adapter's change added in."""
    if not model.is_adapter:
        return model
    from copy import deepcopy

    return replace(model, clip=deepcopy(model.clip).merge_and_unload())  # type: ignore[operator]


def encoder_fingerprint(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of the image encoder's weights (names, shapes, values)."""
    return _fingerprint(encoder_state(model))


def text_fingerprint(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of all other weights: text tower, its projection, logit scale."""
    parameters = model.plain_clip.named_parameters()
    return _fingerprint({name: one for name, one in parameters if not is_encoder_weight(name)})


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- the kinds of folder


def _load_folder(folder: Path, name: str) -> VisionLanguageModel:
    if (folder / ADAPTED_FOLDER / ADAPTED_FILE).exists():
        folder = folder / ADAPTED_FOLDER
    if (folder / "adapter_config.json").exists():
        return _load_adapter(folder, name)
    if (folder / ADAPTED_FILE).exists():
        return _load_delta(folder, name)
    if (folder / "config.json").exists():
        return _load_clip_folder(folder, name)
    raise ModelError(
        f"{name} holds no model: there is no config.json (a model in hub layout), "
        "adapter_config.json (a PEFT adapter) or adapted/ (a finished run) in it"
    )


def _load_adapter(folder: Path, name: str) -> VisionLanguageModel:
    """A PEFT adapter on the base that its configuration names."""
    from peft import PeftModel

    base_name = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base_name:
        raise ModelError(
            f"the adapter {name} does not say what it adapts "
            "(base_model_name_or_path is empty in adapter_config.json)"
        )
    if not any((folder / file).exists() for file in ADAPTER_WEIGHTS):
        raise ModelError(f"the adapter {name} has no weights: {ADAPTER_WEIGHTS[0]} is missing")
    base = load(base_name)
    fingerprint = _checked_base(folder, name, base)
    try:
        with quiet_libraries(), warnings.catch_warnings():
            # peft only warns where the file lacks what the configuration promises
            warnings.filterwarnings("error", ".*missing adapter keys", UserWarning)
            clip = PeftModel.from_pretrained(base.clip, str(folder))
    except (RuntimeError, ValueError, OSError, KeyError, TypeError, UserWarning) as error:
        raise ModelError(
            f"the adapter {name} does not fit its base {base_name}: {_one_line(error)}"
        ) from None
    except SafetensorError as error:
        raise ModelError(f"the weights of {name} cannot be loaded: {_one_line(error)}") from None
    return replace(base, clip=clip, source=name, base_fingerprint=fingerprint)


def _load_delta(folder: Path, name: str) -> VisionLanguageModel:
    """A fully fine-tuned encoder: its tensors put over the base it came from."""
    from safetensors.torch import load_file

    base = load(_noted(folder, "base"))
    fingerprint = _checked_base(folder, name, base)
    try:
        state = load_file(folder / DELTA_FILE)
        unknown = base.clip.load_state_dict(state, strict=False).unexpected_keys
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"the weights of {name} cannot be loaded: {_one_line(error)}") from None
    if unknown:
        raise ModelError(f"{name} does not fit its base {base.source}: it has {unknown[0]}")
    return replace(base, source=name, base_fingerprint=fingerprint)


def _checked_base(folder: Path, name: str, base: VisionLanguageModel) -> str:
    """The base's fingerprint, which must be the one noted when driftscope saved the weights."""
    found = encoder_fingerprint(base)
    if not (folder / ADAPTED_FILE).exists():
        return found
    if (expected := _noted(folder, "base_fingerprint")) != found:
        raise ModelError(
            f"{name} was adapted from a model with fingerprint {expected}, but its base "
            f"{base.source} now has {found}: the base differs"
        )
    return found


def _noted(folder: Path, key: str) -> str:
    """What was written beside adapted weights about where they come from."""
    value = _read_json(folder / ADAPTED_FILE).get(key)
    if not isinstance(value, str):
        raise ModelError(f"{folder / ADAPTED_FILE} is damaged: it has no {key!r}")
    return value


def _load_open_clip(name: str) -> VisionLanguageModel:
    """`open_clip:NAME:FILE`."""
    from driftscope.models.open_clip_convert import load_open_clip

    parts = name.removeprefix(OPEN_CLIP_PREFIX).split(":", maxsplit=1)
    if len(parts) != 2 or not Path(parts[1]).expanduser().is_file():
        raise ModelError(
            f"{name!r} names no open_clip checkpoint; write open_clip:NAME:FILE, such as "
            "open_clip:ViT-B-32:/models/open_clip_model.safetensors"
        )
    clip = load_open_clip(Path(parts[1]).expanduser(), parts[0])
    return replace(from_open_clip(clip), source=name)


def _load_clip_folder(place: Path | str, name: str) -> VisionLanguageModel:
    """A CLIPModel from a folder or from the hub (its cache first, as transformers does)."""
    from transformers import AutoConfig, CLIPModel

    where = str(place)
    try:
        config = AutoConfig.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise ModelError(_not_found(name, error)) from None
    if config.model_type != "clip":
        raise ModelError(
            f"{name} is a {config.model_type!r} model; driftscope adapts and compares CLIP models "
            "(model_type 'clip'), whose image tower has a CLS token"
        )
    try:
        with quiet_libraries():
            clip, loading = CLIPModel.from_pretrained(
                where,
                attn_implementation="sdpa",
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights of {name} cannot be loaded: {_one_line(error)}") from None
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        missing = sorted(loading["missing_keys"])
        raise ModelError(
            f"the weights of {name} are not complete: {missing[0]} is missing "
            f"({len(missing)} in all)"
        )
    clip.eval()
    return VisionLanguageModel(
        clip=clip,
        tokenizer=_tokenizer(where, config.text_config.vocab_size),
        image_size=int(config.vision_config.image_size),
        source=name,
        **_pixel_convention(where, name),
    )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries' chatter out of our own display while a model is loaded or saved.

    transformers shows a bar for weights that load in a blink; peft asks transformers by a name
    that is deprecated there.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _pixel_convention(where: str, name: str) -> dict[str, Any]:
    """Mean and std of the folder's preprocessor; OpenAI's, and said so, where it ships none."""
    from transformers import CLIPImageProcessorPil

    try:
        processor, _ = CLIPImageProcessorPil.get_image_processor_dict(where)
    except (OSError, ValueError) as error:
        if (Path(where) / "preprocessor_config.json").exists():
            raise ModelError(
                f"the preprocessor_config.json of {name} cannot be read: {_one_line(error)}"
            ) from None
        return {"mean": CLIP_MEAN, "std": CLIP_STD, "has_own_pixels": False}
    return {
        "mean": tuple(processor.get("image_mean", CLIP_MEAN)),
        "std": tuple(processor.get("image_std", CLIP_STD)),
    }


def _tokenizer(where: str, vocabulary_size: int) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # without tokenizer files transformers makes up a CLIP tokenizer with an empty vocabulary
    return tokenizer if 2 * len(tokenizer) > vocabulary_size else None


def _not_found(name: str, error: Exception) -> str:
    if Path(name).exists():
        return f"the model folder {name} cannot be read: {_one_line(error)}"
    from huggingface_hub import is_offline_mode
    from huggingface_hub.constants import HF_HUB_CACHE

    answer = "cannot be reached" if is_offline_mode() else f"did not give it ({_one_line(error)})"
    return (
        f"no model {name!r}: it is not 'mini', there is no folder of that name here, it is not in "
        f"the cache {HF_HUB_CACHE}, and the Hugging Face hub {answer}; check the name, or give the "
        "folder of a copy as the model"
    )


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
