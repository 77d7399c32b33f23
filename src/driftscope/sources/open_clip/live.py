"""An open_clip model in memory, as a transformers CLIPModel that gives the same embeddings.

OpenAI's own package `clip` has the same parts by the same names, and is read alike.
What decides its function is asked of the module. One image and one text, embedded both ways, then
prove the conversion or refuse it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from driftscope.backbones.base import WRAPPERS
from driftscope.backbones.capture import uncompiled
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.library import OpenClipModel
from driftscope.backbones.mean_pooled import MeanPooledTower
from driftscope.backbones.weights import without_adapters
from driftscope.data.framing import Framing
from driftscope.errors import CaptureError, ModelError, told_as
from driftscope.sources.open_clip.weights import (
    TowerFacts,
    convert_open_clip,
    convert_tower_alone,
)
from driftscope.sources.reparametrized import put_together

_WHOLE = ("CLIP", "CustomTextCLIP", "CoCa")
_LEAST_COSINE = 0.9999
"""Of one input's embeddings, the model's own and the conversion's, in single precision."""
_LEAST_COSINE_OF_HALVES = 0.999
_GELUS = {"none": "gelu", "tanh": "gelu_pytorch_tanh"}


def is_live(module: nn.Module) -> bool:
    """Whether a module is an open_clip model, by class name, so that nothing need be imported."""
    return _is_of(module, _WHOLE)


class NotPlainError(ModelError):
    """An open_clip model that is no plain ViT CLIP, so that no CLIPModel computes what it does."""


def is_live_tower(module: nn.Module) -> bool:
    """Whether a module is open_clip's ViT, which is `model.visual` of a plain model."""
    return _is_of(module, ("VisionTransformer",))


def _is_of(module: nn.Module, names: tuple[str, ...]) -> bool:
    return any(
        base.__name__ in names
        # OpenAI's is copied into other packages, too
        and (
            base.__module__.startswith("open_clip") or f".{base.__module__}".endswith(".clip.model")
        )
        for base in type(module).__mro__
    )


def readable(model: nn.Module) -> nn.Module:
    """An open_clip model as it can be read: converted if it is a plain ViT, else as it is.

    Of a model whose text tower was taken out, the image tower.

    Raises:
        ModelError: neither can be done; the sentence says why.
    """
    whole: Any = model
    texts = getattr(model, "text", None) or getattr(model, "transformer", None)
    has_texts = isinstance(texts, nn.Module) and any(True for _ in texts.parameters())
    try:
        return converted(model) if has_texts else converted_tower(whole.visual)
    except NotPlainError as error:
        try:
            return OpenClipModel(model)
        except CaptureError as other:
            told = str(error).removesuffix(".")
            raise ModelError(f"{told}. Nor can it be read as it is: {other}") from None


def converted(model: nn.Module) -> nn.Module:
    """An open_clip model's copy as a transformers CLIPModel, on the same device.

    Raises:
        NotPlainError: it is no plain ViT CLIP.
        ModelError: it has adapters, and embeds otherwise than its copy does.
    """
    from transformers import CLIPModel

    plain: Any = without_adapters(model)
    text = getattr(plain, "text", plain)
    try:
        facts = _facts(plain.visual.transformer), _facts(text.transformer)
    except (AttributeError, IndexError, TypeError, KeyError):
        raise NotPlainError(
            "The open_clip model has no plain ViT as its image tower and no plain transformer as "
            "its text tower."
        ) from None
    try:
        config, state = convert_open_clip(_state_of(plain), *facts, source="the open_clip model")
    except ModelError as error:
        raise NotPlainError(str(error)) from None
    clip: Any = CLIPModel(config)
    _fill(clip, state)
    if getattr(plain.visual, "pool_type", "tok") == "avg":
        after = bool(getattr(plain.visual, "final_ln_after_pool", False))
        clip.vision_model = MeanPooledTower(clip.vision_model, norm_after=after)
    clip.to(next(model.parameters()).device).eval()
    if hasattr(model, "encode_image"):
        _check_faithful(model, clip)
    module: nn.Module = clip
    return module


def converted_tower(tower: nn.Module) -> nn.Module:
    """open_clip's ViT without a text tower, as transformers' image tower with its projection.

    Raises:
        NotPlainError: it is no plain ViT of a CLIP.
        ModelError: it has adapters, and embeds otherwise than its copy does.
    """
    from transformers import CLIPVisionModelWithProjection

    plain: Any = without_adapters(tower)
    try:
        facts = _facts(plain.transformer)
        config, state = convert_tower_alone(_state_of(plain), facts, "the open_clip ViT")
    except (AttributeError, IndexError, TypeError, KeyError):
        raise NotPlainError("The open_clip model has no plain ViT as its image tower.") from None
    except ModelError as error:
        raise NotPlainError(str(error)) from None
    found: Any = CLIPVisionModelWithProjection(config)
    _fill(found, state)
    found.to(next(tower.parameters()).device).eval()
    pixels = _an_image(tower, config.image_size)
    doing = "The open_clip image tower cannot be read: its own forward fails"
    with evaluating(tower), evaluating(found), uncompiled(), told_as(ModelError, doing):
        own, ours = tower(pixels.to(_weight_of(tower).dtype)), found(pixel_values=pixels)
    _refuse_another(tower, "an image", own, ours.image_embeds, _least_cosine(tower))
    module: nn.Module = found
    return module


def _state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights as a plain module has them, whatever its parts are wrapped in or made of."""
    return put_together({WRAPPERS.sub("", key): one for key, one in module.state_dict().items()})


def _fill(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Raises NotPlainError where weights do not fit what they were taken for."""
    wanted = module.state_dict()
    for name, one in state.items():
        if name in wanted and wanted[name].shape != one.shape:
            sizes = f"{tuple(one.shape)} and not {tuple(wanted[name].shape)}"
            raise NotPlainError(
                f"The open_clip model is no plain ViT CLIP of square images: {name} is {sizes}."
            )
    module.load_state_dict(state)


def _weight_of(tower: Any) -> torch.Tensor:
    """What pixels are multiplied by first: its type is theirs, whatever the norms have."""
    first = getattr(getattr(tower, "conv1", None), "weight", None)
    weight: torch.Tensor = next(tower.parameters()) if first is None else first
    return weight


def _least_cosine(tower: nn.Module) -> float:
    is_single = all(one.dtype == torch.float32 for one in tower.parameters())
    return _LEAST_COSINE if is_single else _LEAST_COSINE_OF_HALVES


def _an_image(tower: nn.Module, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, side, side, generator=generator).to(_weight_of(tower).device)


def live_convention(model: nn.Module) -> dict[str, Any]:
    """The mean, std and framing that an open_clip model itself says its pixels have."""
    tower: Any = getattr(model, "visual", None)
    said = dict(getattr(tower, "preprocess_cfg", None) or {})
    for key in ("mean", "std"):
        said.setdefault(key, getattr(tower, f"image_{key}", None))
    size = getattr(tower, "image_size", None)
    return pixels_of(said, size[0] if isinstance(size, tuple | list) else size)


def pixels_of(said: dict[str, Any], image_size: int | None) -> dict[str, Any]:
    """What open_clip's preprocessing settings say, as fields of a `VisionLanguageModel`.

    Raises:
        ModelError: they say what is not followed.
    """
    pixels = {key: _three(said[key], key) for key in ("mean", "std") if said.get(key) is not None}
    if said.get("mode") not in (None, "RGB"):
        raise ModelError(
            f"the open_clip model reads images of mode {said['mode']!r}; driftscope follows 'RGB'"
        )
    way, resample = said.get("resize_mode", "shortest"), said.get("interpolation", "bicubic")
    if way not in ("shortest", "squash") or resample not in ("bicubic", "bilinear"):
        raise ModelError(
            f"the open_clip model resizes images by resize_mode {way!r} and interpolation "
            f"{resample!r}; driftscope follows shortest or squash, bicubic or bilinear"
        )
    if image_size is not None:
        framing = Framing(image_size, squashes=way == "squash", resample=resample)
        pixels["own_framing"] = None if framing.is_usual else framing
    return pixels


def _three(value: Any, key: str) -> Any:
    numbers = value if isinstance(value, list | tuple) else [value] * 3
    if len(numbers) != 3 or not all(isinstance(one, int | float) for one in numbers):
        raise ModelError(
            f"the open_clip model's preprocessing says {key} {value!r}; a number or one for each "
            "of the three colours would be right"
        )
    return tuple(map(float, numbers))


def _facts(transformer: Any) -> TowerFacts:
    block = transformer.resblocks[0]
    activation = block.mlp.gelu
    if type(activation).__name__ == "QuickGELU":
        name = "quick_gelu"
    else:
        name = _GELUS[getattr(activation, "approximate", "none")]
    width = block.attn.embed_dim // block.attn.num_heads
    return TowerFacts(name, width, getattr(getattr(block, "ln_1", None), "eps", 1e-5))


def _check_faithful(model: Any, clip: Any) -> None:
    """One image and one text, embedded by the model itself and by its conversion, must agree.

    Raises:
        ModelError: they do not: the model has a part that the conversion does not know.
    """
    text, side = clip.config.text_config, clip.config.vision_config.image_size
    pixels, generator = _an_image(model.visual, side), torch.Generator().manual_seed(0)
    tokens = torch.randint(
        1, text.vocab_size - 2, (1, text.max_position_embeddings), generator=generator
    )
    end = tokens.shape[1] // 2
    tokens[:, end], tokens[:, end + 1 :] = text.vocab_size - 1, 0
    tokens = tokens.to(pixels.device)
    doing = "The open_clip model cannot be read: its own forward fails"
    with evaluating(model), evaluating(clip), uncompiled(), told_as(ModelError, doing):
        pairs = {
            "an image": (
                model.encode_image(pixels.to(_weight_of(model.visual).dtype)),
                clip.get_image_features(pixel_values=pixels).pooler_output,
            ),
            "a text": (
                model.encode_text(tokens),
                clip.get_text_features(input_ids=tokens).pooler_output,
            ),
        }
    for what, (own, converted_one) in pairs.items():
        _refuse_another(model, what, own, converted_one, _least_cosine(model.visual))


def _refuse_another(
    model: nn.Module, what: str, own: Any, ours: torch.Tensor, least: float
) -> None:
    """Raises NotPlainError where a model's own embedding is not its conversion's.

    ModelError where it has an adapter.
    """
    told = "in another shape"
    if isinstance(own, torch.Tensor) and own.shape == ours.shape:
        cosine = float(functional.cosine_similarity(own.float(), ours.float()))
        if cosine > least:
            return
        told = f"cosine {cosine:.4f}"
    has_adapter = any(type(one).__module__.startswith("peft.") for one in model.modules())
    raise (ModelError if has_adapter else NotPlainError)(
        f"The open_clip model cannot be read: it embeds {what} as its conversion to a CLIPModel "
        f"does not ({told}), so it pools, masks or normalises otherwise than a plain ViT CLIP, or "
        "has an adapter that it does not call (as on out_proj, of which MultiheadAttention takes "
        "the weight alone)."
    )
