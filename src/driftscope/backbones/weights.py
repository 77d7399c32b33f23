"""The weights an image encoder actually computes with, adapters added in.

What weight drift compares. PEFT's own merge is asked, on a copy of one layer at a time, so every
adapter kind counts as PEFT applies it and the model itself is not touched.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from driftscope.backbones import encoder_parts, find_image_tower
from driftscope.backbones.base import WRAPPERS
from driftscope.backbones.capture import check_adapters_in_effect
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import CaptureError, NonFiniteError


def encoder_state(model: VisionLanguageModel) -> dict[str, Tensor]:
    """The image encoder's weights by their plain names, adapters merged in."""
    return encoder_weights(model.module)


def merged(model: VisionLanguageModel) -> VisionLanguageModel:
    """The same function as a plain model: a copy with the adapter's change added in."""
    if not model.is_adapter:
        return model
    return replace(model, module=copy.deepcopy(model.module).merge_and_unload())  # type: ignore[operator]


def encoder_fingerprint(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of the image encoder's weights (names, shapes, values)."""
    return _fingerprint(encoder_state(model))


def text_fingerprint(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of all other weights: text tower, its projection, logit scale."""
    parameters = model.plain.named_parameters()
    is_encoder, prefix = model.backbone.is_encoder_weight, model.own_prefix
    return _fingerprint({name: one for name, one in parameters if not is_encoder(prefix + name)})


def buffers_digest(model: VisionLanguageModel) -> str:
    """Sixteen hexadecimal digits of the numbers that no training moves by gradients.

    Such are the running statistics of batch norms, masks, and positions that are computed.
    """
    buffers = model.plain.named_buffers()
    return _fingerprint({name: one for name, one in buffers if one.is_floating_point()})


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoder_weights(module: nn.Module) -> dict[str, Tensor]:
    """The effective weights of the image tower and its projection, by their plain names.

    These are its parameters and the running statistics of batch norms, which training moves, too.
    Names are those of the family's whole model (CLIP: `vision_model.…`, `visual_projection.…`)
    whatever wraps it, so that a pretrained and an adapted model of any method can be compared.
    Adapted layers come as float64 on the CPU: a small change survives the addition to a large
    weight. All other tensors are the model's own (detached, not copied).

    Raises:
        CaptureError: no readable image tower, or an adapter that is present but not in effect.
    """
    check_adapters_in_effect(module)
    is_encoder_weight = find_image_tower(module).backbone.is_encoder_weight
    weights: dict[str, Tensor] = {}
    for name, part in encoder_parts(module).items():
        _collect(part, f"{name}.", weights)
    return {name: one for name, one in weights.items() if is_encoder_weight(name)}


def without_adapters(module: nn.Module) -> nn.Module:
    """A copy that computes the same without PEFT: adapters merged into plain layers.

    Of the model inside PEFT's wrappers, wherever they are; a `PeftModel` can merge itself.
    """
    copied = copy.deepcopy(module)
    replaced: list[str] = []
    for name, child in list(copied.named_modules()):
        effective = _effective(child)
        if effective is child or any(name.startswith(f"{above}.") for above in replaced):
            continue
        like = next(child.parameters())
        copied.set_submodule(name, effective.to(device=like.device, dtype=like.dtype))
        replaced.append(name)
    for child in copied.modules():  # what transformers would take for adapters still there
        child.__dict__.pop("peft_config", None)
        child.__dict__.pop("_hf_peft_config_loaded", None)
    return copied


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises `NonFiniteError` where weights hold NaN or infinities: such a model is never written.

    The sentence names the first tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"the model's weights hold NaN or infinities, first in {name}; nothing is written"
            )


def _collect(module: nn.Module, prefix: str, weights: dict[str, Tensor]) -> None:
    effective = _effective(module)
    made, parts = _made_of_parts(effective)
    for name, parameter in effective.named_parameters(recurse=False):
        if name not in parts:
            weights[prefix + name] = parameter.detach()
    weights |= {prefix + name: tensor.detach() for name, tensor in made.items()}
    weights |= {prefix + name: tensor.detach() for name, tensor in _statistics(effective).items()}
    for name, child in effective.named_children():
        if name != "parametrizations":
            _collect(child, prefix + WRAPPERS.sub("", f"{name}."), weights)


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that a batch norm computes with; no other buffer is learnt."""
    held = dict(module.named_buffers(recurse=False))
    if "running_var" not in held:
        return {}
    return {name: one for name, one in held.items() if one.is_floating_point()}


def _made_of_parts(module: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """The weights that torch computes before every forward, and the parameters they are made of."""
    if parametrize.is_parametrized(module):
        held: Any = module.parametrizations
        with evaluating(held):  # in training spectral norm takes a step whenever it is asked
            return {name: getattr(module, name) for name in held}, set()
    made: dict[str, Tensor] = {}
    parts: set[str] = set()
    for hook in module._forward_pre_hooks.values():
        made |= _made_by(hook, module)
        parts |= {f"{name}_{part}" for name in made for part in ("g", "v", "orig")}
    return made, parts


def _made_by(hook: Any, module: nn.Module) -> dict[str, Tensor]:
    if isinstance(hook, WeightNorm):
        return {hook.name: hook.compute_weight(module)}
    if isinstance(hook, SpectralNorm):
        return {hook.name: hook.compute_weight(module, do_power_iteration=False)}
    if isinstance(hook, prune.BasePruningMethod):
        name = hook._tensor_name
        return {name: hook.apply_mask(module)}  # type: ignore[no-untyped-call]
    return {}


def _effective(module: nn.Module) -> nn.Module:
    """The module whose parameters act: a PEFT wrapper's content with its adapters merged in.

    Of a layer of loralib, too.
    """
    if is_of_loralib(module):
        return _plain_linear(module)
    tuners: Any = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return module
    if isinstance(module, tuners.BaseTunerLayer):
        return _merged_copy(module)
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        wrapper: Any = module
        names = [name for name in wrapper.active_adapters if name in wrapper.modules_to_save]
        saved: nn.Module = wrapper.modules_to_save[names[0]] if names else wrapper.original_module
        return saved
    return module


def is_of_loralib(module: nn.Module) -> bool:
    """Whether a module is one of loralib's linear layers, by name, so that it is not imported."""
    names = ("Linear", "MergedLinear")
    is_its = any(
        one.__module__ == "loralib.layers" and one.__name__ in names for one in type(module).__mro__
    )
    return is_its and hasattr(module, "lora_A")


def _plain_linear(layer: Any) -> nn.Module:
    """A layer of loralib as a linear one on the CPU, its matrices added in, float64."""
    weight = layer.weight.detach().double().cpu()
    if not layer.merged:
        change = layer.merge_AB() if hasattr(layer, "merge_AB") else layer.lora_B @ layer.lora_A
        if layer.fan_in_fan_out and not hasattr(layer, "merge_AB"):
            change = change.T
        weight = weight + layer.scaling * change.detach().double().cpu()
    plain = nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(weight.T if layer.fan_in_fan_out else weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().double().cpu(), requires_grad=False)
    plain.out_features, plain.in_features = plain.weight.shape
    return plain


def _merged_copy(layer: Any) -> nn.Module:
    """The base layer of a copy in which PEFT has merged the active adapters, float64."""
    duplicate = copy.deepcopy(layer).to(device="cpu", dtype=torch.float64)
    # an attention's joint weight and its output projection are merged in a way of their own
    unload = getattr(duplicate, "unload_and_optionally_merge_module", None)
    if unload is not None:
        plain: nn.Module = unload(merge=True, safe_merge=False, adapter_names=None)
        return plain
    if not duplicate.merged:
        try:
            duplicate.merge()
        except NotImplementedError:
            raise CaptureError(
                f"The model's adapter is of PEFT's kind {type(layer).__module__.split('.')[-2]}, "
                "which cannot be added to weights, so that it has no change of them to measure."
            ) from None
    base: nn.Module = duplicate.get_base_layer()
    return base


def without_positions(
    model: VisionLanguageModel, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """An encoder's weights but for the embeddings of its patches' positions."""
    is_position = model.backbone.is_position
    return {name: one for name, one in weights.items() if not is_position(name)}
