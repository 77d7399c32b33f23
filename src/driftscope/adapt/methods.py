"""Methods: from a frozen copy of the pretrained model to what is trained of it.

`METHODS` is the whole plug point. A method gets a copy in which nothing is trainable, switches on
what it trains, or wraps it with an adapter, and leaves what the encoder computes as it was.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from driftscope.adapt.dropout import use_quick_dropout
from driftscope.backbones import find_image_tower
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import merged
from driftscope.config.variants import Dora, FreezeFirst, Ia3, Lora, Peft, RsLora, Vera
from driftscope.errors import ModelError, did_you_mean, told_as
from driftscope.hugging_face import quiet_libraries


def _full_ft(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    return _training(model, model.backbone.is_encoder_weight)


def _freeze_first(model: VisionLanguageModel, method: FreezeFirst) -> VisionLanguageModel:
    backbone, num_blocks = model.backbone, _num_blocks(model)
    behind = (backbone.final_norm_name, backbone.projection_name, backbone.pooling_name)
    late = tuple(f"{name}." for name in behind if name is not None)
    if method.blocks > num_blocks:
        raise ModelError(
            f"freeze_first cannot freeze {method.blocks} blocks: the image tower of "
            f"{model.source} has {num_blocks}"
        )

    def is_late(name: str) -> bool:
        block = backbone.block_of(name)
        if block is not None:
            return block >= method.blocks
        return name.startswith(late)

    return _training(model, is_late)


def _last_block(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    last, backbone = _num_blocks(model) - 1, model.backbone
    final_norm = f"{backbone.final_norm_name}."
    return _training(
        model, lambda name: backbone.block_of(name) == last or name.startswith(final_norm)
    )


def _linear_probe(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    return model


def _bitfit(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    is_encoder = model.backbone.is_encoder_weight
    return _training(model, lambda name: is_encoder(name) and name.endswith(".bias"))


def _layer_norm(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    prefix, is_encoder = model.own_prefix, model.backbone.is_encoder_weight
    norms = tuple(
        f"{prefix}{name}."
        for name, module in model.module.named_modules()
        if isinstance(module, nn.LayerNorm) and is_encoder(prefix + name)
    )
    return _training(model, lambda name: name.startswith(norms))


def _flyp(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    return _training(model, lambda _name: True)


def _low_rank(model: VisionLanguageModel, method: Lora | Dora | RsLora) -> VisionLanguageModel:
    from peft import LoraConfig

    return _wrapped(
        model,
        LoraConfig(
            r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            use_dora=method.kind == "dora",
            use_rslora=method.kind == "rslora",
            target_modules=_target_pattern(model, method.targets),
            modules_to_save=_saved_whole(model, method.train_projection),
        ),
    )


def _ia3(model: VisionLanguageModel, method: Ia3) -> VisionLanguageModel:
    from peft import IA3Config

    # fc2 is scaled at its input, which is the MLP's activation; the others at their output
    return _wrapped(
        model,
        IA3Config(
            target_modules=_target_pattern(model, method.targets),
            feedforward_modules=_target_pattern(model, ("fc2",)) if "fc2" in method.targets else [],
            modules_to_save=_saved_whole(model, method.train_projection),
        ),
    )


def _vera(model: VisionLanguageModel, method: Vera) -> VisionLanguageModel:
    from peft import VeraConfig

    return _wrapped(
        model,
        VeraConfig(
            r=method.rank,
            vera_dropout=method.dropout,
            target_modules=_target_pattern(model, method.targets),
            modules_to_save=_saved_whole(model, method.train_projection),
        ),
    )


def _peft(model: VisionLanguageModel, method: Peft) -> VisionLanguageModel:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {one.value: config for one, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    fitting = [name for name, one in known.items() if _takes(one) >= _OURS]
    if method.type not in fitting:
        reason = "does not adapt linear layers" if method.type in known else "is not known here"
        raise ModelError(f"peft's {method.type} {reason}; {did_you_mean(method.type, fitting)}")
    plain = set(model.module.state_dict())
    taken, options = _takes(known[method.type]) - _OURS, dict(method.options)
    if unknown := [name for name in options if name not in taken]:
        raise ModelError(
            f"peft's {method.type} has no option {unknown[0]!r} to set: "
            f"{did_you_mean(unknown[0], sorted(taken))}"
        )
    with told_as(ModelError, f"peft cannot make {method.label} of {model.source}"):
        config = known[method.type](
            **options,
            target_modules=_target_pattern(model, method.targets),
            modules_to_save=_saved_whole(model, method.train_projection),
        )
        before = model.embed_images(_some_pixels(model))
        wrapped = _wrapped(model, config)
        after = wrapped.embed_images(_some_pixels(model))
        names = merged(wrapped).module.state_dict().keys()
    if not torch.allclose(after, before, rtol=1e-4, atol=1e-5):
        raise ModelError(
            f"peft's {method.type} changes the model before its first step, and drift would count "
            "that as training; give options by which it starts without effect, such as init_weights"
        )
    if unlike := sorted(names ^ plain):
        raise ModelError(
            f"peft's {method.type} cannot be merged into a plain model ({unlike[0]} is left over), "
            "and driftscope reads merged weights; take another type"
        )
    return wrapped


def _some_pixels(model: VisionLanguageModel) -> UInt8[Tensor, "image 3 size size"]:
    """Two images without content, on which a tuner's effect shows."""
    shape = (2, 3, model.image_size, model.image_size)
    return torch.arange(math.prod(shape)).remainder(251).to(torch.uint8).reshape(shape)


_OURS = frozenset({"target_modules", "modules_to_save"})
"""What driftscope says of every tuner."""


def _takes(config: type) -> frozenset[str]:
    return frozenset(one.name for one in dataclasses.fields(config))


METHODS: dict[str, Callable[[VisionLanguageModel, Any], VisionLanguageModel]] = {
    "full_ft": _full_ft,
    "freeze_first": _freeze_first,
    "last_block": _last_block,
    "linear_probe": _linear_probe,
    "lp_ft": _full_ft,
    "bitfit": _bitfit,
    "layer_norm": _layer_norm,
    "flyp": _flyp,
    "lora": _low_rank,
    "dora": _low_rank,
    "rslora": _low_rank,
    "ia3": _ia3,
    "vera": _vera,
    "peft": _peft,
}


def _training(model: VisionLanguageModel, is_trained: Callable[[str], bool]) -> VisionLanguageModel:
    """Switches on what a method trains, by its name in the family's whole model."""
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(is_trained(model.own_prefix + name))
    return model


def _num_blocks(model: VisionLanguageModel) -> int:
    return len(find_image_tower(model.module).blocks)


def _target_pattern(model: VisionLanguageModel, targets: tuple[str, ...]) -> str:
    """A pattern of whole module names: a bare list of names would hit the text tower too."""
    backbone = model.backbone
    block = find_image_tower(model.module).blocks[-1]
    parts = {name for name, _ in block.named_modules()}
    there = [target for target, leaf in backbone.adapter_targets.items() if leaf in parts]
    if lacking := [target for target in targets if target not in there]:
        raise ModelError(
            f"the image tower of {model.source} has no {lacking[0]!r} to adapt; it has "
            f"{', '.join(there)}"
        )
    leaves = "|".join(re.escape(backbone.adapter_targets[target]) for target in targets)
    blocks = backbone.blocks_name.removeprefix(model.own_prefix)
    return rf"{re.escape(blocks)}\.\d+\.({leaves})"


def _saved_whole(model: VisionLanguageModel, train_projection: bool) -> list[str] | None:
    projection = model.backbone.projection_name
    has_one = projection is not None and hasattr(model.plain, projection)
    return [str(projection)] if train_projection and has_one else None


def _wrapped(model: VisionLanguageModel, config: Any) -> VisionLanguageModel:
    from peft import get_peft_model

    with quiet_libraries():
        wrapped = get_peft_model(model.module, config)
    use_quick_dropout(wrapped)
    wrapped.peft_config["default"].base_model_name_or_path = model.source
    return replace(model, module=wrapped)
