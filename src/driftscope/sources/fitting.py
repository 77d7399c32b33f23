"""Weights without a configuration of their own, put into a copy of a model that is known.

What they lack (a text tower, a projection) is that model's, and the notes say so.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from driftscope.backbones.base import Backbone
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import merged
from driftscope.errors import ModelError, told_as
from driftscope.hugging_face import quiet_libraries
from driftscope.sources.elsewhere import elsewhere, of_shape
from driftscope.sources.state_dict import (
    about_extra,
    main_prefix,
    places_of_models,
    prefixes_of,
    refuse_no_plain_numbers,
    told_of_rounding,
)

ADAPTER_PARTS = (".base_layer.", "lora_", "hada_", "lokr_", "ia3_", "vera_", "oft_")
_OF_ROUNDED = (
    *(".SCB", ".absmax", ".quant_map", ".weight_scale", ".weight_scale_inv", ".qweight"),
    *("._data", "._scale", ".input_scale"),
    *(".qzeros", ".scales", ".zero_point", "._packed_params", "._packed_params.dtype"),
)
"""How what stands beside the whole numbers of a quantised weight is called."""
_OF_TRAINERS = ("optim", "scheduler", "lr_", "scaler", "ema")
"""How what trainers keep beside a model begins."""
_LEAST_SCALE = 0.1
"""Of the pretrained model's layer norms' scales."""
_ALIKE = 0.75
"""How alike a name must be to be taken for a misspelling: the share of characters in common."""
NO_WEIGHTS = ("position_ids", "attn_mask", "num_batches_tracked")
"""What older versions store of a model beside its weights."""


@dataclass(frozen=True)
class Fit:
    """Which tensors are which of a module's weights.

    Attributes:
        tensors: by the module's names.
        lacking: what of the module is not there, in words; never a part of the image tower.
        notes: what was passed over, a sentence each.
    """

    tensors: dict[str, Tensor]
    lacking: tuple[str, ...]
    notes: tuple[str, ...]


def completed(
    state: Mapping[str, Tensor], like: VisionLanguageModel, name: str
) -> VisionLanguageModel:
    """The weights in a copy of the model that they belong to, which lends what they lack.

    Raises:
        ModelError: they do not fit it, or half an image tower is missing.
    """
    known = _at_the_size_of(state, merged(like))
    fit = fitted(state, known.module, known.backbone, name)
    _refuse_differences(fit.tensors, known, name)
    module = copy.deepcopy(known.module)
    module.load_state_dict(fit.tensors, strict=False)
    notes = fit.notes
    if fit.lacking:
        notes += (f"{name} has no {' and no '.join(fit.lacking)}: those are {like.source}'s",)
    return replace(
        known,
        module=module.eval(),
        source=name,
        base_fingerprint=None,
        has_own_pixels=False,
        notes=notes,
    )


def _refuse_differences(
    tensors: Mapping[str, Tensor], known: VisionLanguageModel, name: str
) -> None:
    """Raises ModelError where the file holds changes of weights, or gradients, by their names.

    The scales of layer norms tell: no training takes all of them to nothing.
    """
    norms = [
        key
        for layer, module in known.plain.named_modules()
        if isinstance(module, nn.LayerNorm) and (key := f"{layer}.weight") in tensors
    ]
    if not norms:
        return
    before, after = (
        sum(float(weights[key].float().abs().mean()) for key in norms)
        for weights in (known.plain.state_dict(), tensors)
    )
    if after < _LEAST_SCALE * before:
        raise ModelError(
            f"{name} holds changes of weights or gradients, and no weights: the scales of its "
            f"layer norms are {after / before:.1g} of {known.source}'s; add them to the model's "
            "weights, and save those"
        )


def _at_the_size_of(state: Mapping[str, Tensor], known: VisionLanguageModel) -> VisionLanguageModel:
    """The model made for the image size whose positions are among the tensors.

    A family that fits its positions to any image goes on reading images of its own size.
    """
    backbone = known.backbone
    if backbone.positions_name is None:
        return known
    name = backbone.positions_name.removeprefix(known.own_prefix)
    own = known.plain.get_parameter(name)
    called = name.removeprefix(f"{backbone.tower_name}.")
    found = [one for key, one in state.items() if f".{key}".endswith(f".{called}")]
    alike = [one for one in found if one.ndim == own.ndim and one.shape[-1] == own.shape[-1]]
    if not alike or any(one.shape == own.shape for one in alike):
        return known
    side = max(map(backbone.grid_side, alike))
    module = backbone.at_grid(known.plain, side)
    weights = {key: one for key, one in known.plain.state_dict().items() if key != name}
    module.load_state_dict(weights, strict=False)
    resized = replace(known, module=module.eval().to(known.device))
    if not backbone.has_fixed_input_size:
        return resized
    size = int(backbone.vision_config(module.config).image_size)
    framing = None if known.framing.is_usual else known.framing.at(size)
    return replace(resized, image_size=size, own_framing=framing)


def fitted(
    state: Mapping[str, Tensor],
    module: nn.Module,
    backbone: Backbone,
    name: str,
    of: str = "the model that it is compared with",
) -> Fit:
    """Finds a module's weights among tensors, under whatever prefix and beside whatever else.

    `of` says whose module it is.

    Raises:
        ModelError: the image tower is not there or not complete, a weight has another shape, or
            there are weights in its towers that the module has not.
    """
    wanted = module.state_dict()
    state = _by_own_names(state, wanted, module, name)
    tower = f"{backbone.tower_name}."
    if not any(key.startswith(tower) for key in wanted):
        tower = ""  # the module is the tower
    places = {key: key for key in wanted}
    texts = [key for key in wanted if backbone.is_text_weight(key)]
    if not _holds_tower(state, wanted, tower):
        # an image tower that was saved by itself has no name for itself
        places = {key.removeprefix(tower): key for key in wanted if key.startswith(tower)}
        if not prefixes_of(state, places.keys() - _within(texts)):
            raise ModelError(_of_another_kind(state, wanted, texts, name, of))
    prefix, others = main_prefix(state, places, name)
    _refuse_another_tower(state, places, prefix, others, tower, name)
    inside = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    idle = backbone.with_or_without_its_tower(backbone.idle_names)
    extra = sorted(
        own
        for own in inside
        if own not in places and not own.endswith(NO_WEIGHTS) and not own.startswith(idle)
    )
    _refuse_unknown(extra, {own.partition(".")[0] for own in places if "." in own}, module, name)
    used = {places[own]: key for own, key in inside.items() if own in places}
    used |= elsewhere(state, wanted, used.keys(), backbone, others)
    tensors = {own: of_shape(state[key], wanted[own]) for own, key in used.items()}
    _refuse_other_shapes(tensors, wanted, name, of)
    refuse_no_plain_numbers(
        {key: one for key, one in tensors.items() if wanted[key].is_floating_point()}, name
    )
    missing = [key for key in wanted if key not in tensors]
    _refuse_half([key for key in missing if key.startswith(tower)], name)
    lacking = _lacking(missing, wanted, backbone, name)
    passed_over = (prefix, *others, *_OF_TRAINERS)
    left = [own for own in extra if inside[own] not in used.values()] + sorted(
        key for key in state.keys() - used.values() if not key.startswith(passed_over) and prefix
    )
    misspelt = _likely_misspelt(left, missing, state, wanted)
    notes = [
        *(
            f"{name} has no {own}, but {found} is of its shape and is not read; if it is meant, "
            f"save it as {own}"
            for found, own in misspelt.items()
        ),
        *told_of_rest([one for one in left if one not in misspelt], name),
        *told_of_rounding((str(one.dtype) for one in tensors.values()), name),
    ]
    if others:
        notes.append(f"of {name} the weights under {prefix!r} are read, not {', '.join(others)}")
    return Fit(tensors, tuple(lacking), tuple(notes))


def _likely_misspelt(
    left: Sequence[str],
    missing: Sequence[str],
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
) -> dict[str, str]:
    """Names that are not read, and the missing weight that each is of the name and shape of."""
    found: dict[str, str] = {}
    for own in missing:
        others = [one for one in left if one in state and not f".{one}".endswith(f".{own}")]
        alike = [one for one in others if state[one].shape == wanted[own].shape]
        found |= dict.fromkeys(get_close_matches(own, alike, n=1, cutoff=_ALIKE), own)
    return found


def told_of_rest(left: Sequence[str], name: str) -> tuple[str, ...]:
    """What is to be said of tensors that no image or text goes through here, such as a head."""
    if not left:
        return ()
    more = f" ({len(left)} such tensors)" if len(left) > 1 else ""
    return (f"{left[0]} of {name} is not used{more}",)


def _by_own_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], module: nn.Module, name: str
) -> Mapping[str, Tensor]:
    """Tensors that have the names which transformers writes, by the module's own names.

    Since version 5 the two differ for many families. What version 4 had as names of its own are
    those which are written.
    """
    written_names, own_name = own_names_of_written(wanted, module)
    found, better = (
        max(prefixes_of(state, names).values(), default=0) for names in (wanted, written_names)
    )
    if better <= found:
        return state
    if not own_name:
        return _converted(state, written_names, module, name)
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        parts = key.split(".")
        cuts = (".".join(parts[first:]) for first in range(len(parts)))
        written = next((one for one in cuts if one in own_name), "")
        renamed[key.removesuffix(written) + own_name.get(written, "")] = tensor
    return renamed


def _converted(
    state: Mapping[str, Tensor], written: Set[str], module: nn.Module, name: str
) -> Mapping[str, Tensor]:
    """Tensors as a module keeps them itself, made by transformers of those that it writes.

    What is no weight of the module stays as it is.
    """
    prefix, _ = main_prefix(state, written, name)
    own = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    used = {key: at for key, at in own.items() if key in written}
    kind: Any = type(module)
    with quiet_libraries(), told_as(ModelError, f"transformers cannot convert the weights {name}"):
        made, loading = kind.from_pretrained(
            None,
            config=module.config,
            state_dict={key: state[at] for key, at in used.items()},
            dtype=torch.float32,
            output_loading_info=True,
        )
    lacking = set(loading["missing_keys"])
    found = {prefix + key: one for key, one in made.state_dict().items() if key not in lacking}
    return found | {key: one for key, one in state.items() if key not in used.values()}


def own_names_of_written(
    wanted: Mapping[str, Tensor], module: nn.Module
) -> tuple[frozenset[str], dict[str, str]]:
    """The names that transformers gives a module's weights in a file, and its own names by them.

    The latter is empty where the weights themselves are converted, too.
    """
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    if not isinstance(module, PreTrainedModel):
        return frozenset(), {}
    own = {id(tensor): name for name, tensor in wanted.items()}
    written = revert_weight_conversion(module, dict(wanted))
    names = frozenset(written)
    if not all(id(tensor) in own for tensor in written.values()):
        return names, {}
    return names, {name: own[id(tensor)] for name, tensor in written.items()}


def _refuse_another_tower(
    state: Iterable[str],
    places: Mapping[str, str],
    prefix: str,
    averages: Iterable[str],
    tower: str,
    name: str,
) -> None:
    """Raises ModelError where a second image tower stands in a file, such as a frozen copy.

    The one with the most weights around it need not be the one that was trained.
    """
    own = [own for own, key in places.items() if key.startswith(tower)]
    found = prefixes_of(state, own)
    equal = [one for one, count in found.items() if count == found[prefix]]
    other = [one for one in places_of_models(equal) if one not in (prefix, *averages)]
    if other:
        raise ModelError(
            f"{name} holds {1 + len(other)} image towers, under {prefix!r} and {other[0]!r}; save "
            "the model that is meant by itself"
        )


def _within(names: Iterable[str]) -> frozenset[str]:
    """The names of a tower's weights by itself, of those that it has in a whole model."""
    return frozenset(own for name in names if "." in (own := name.partition(".")[2]))


def _holds_tower(state: Iterable[str], wanted: Iterable[str], tower: str) -> bool:
    return bool(prefixes_of(state, [key for key in wanted if key.startswith(tower)]))


def _refuse_unknown(extra: list[str], known: set[str], module: nn.Module, name: str) -> None:
    adapters = [own for own in extra if any(part in own for part in ADAPTER_PARTS)]
    if rounded := [own for own in extra if own.endswith(_OF_ROUNDED)]:
        raise ModelError(
            f"the weights of {name} are quantised: {rounded[0]} stands beside one; save the model "
            "in floating-point numbers (where it was made: dequantize(), then save_pretrained)"
        )
    if parametrized := [own for own in extra if ".parametrizations." in own]:
        raise ModelError(
            f"{name} holds weights under a parametrization ({parametrized[0]}); take it off by "
            "torch.nn.utils.parametrize.remove_parametrizations before saving"
        )
    if adapters and not any(".base_layer." in own for own in extra):
        raise ModelError(
            f"{name} holds {adapters[0]} beside the weights that it changes, and does not say "
            "whether it is added to them; add it in where it was trained (loralib does so in "
            "model.eval()), and save the state_dict without such names"
        )
    if adapters:
        raise ModelError(
            f"{name} holds an adapter's weights inside a model's ({adapters[0]}); save the adapter "
            "by save_pretrained and give its folder, or merge_and_unload() before saving"
        )
    unknown = [own for own in extra if own.partition(".")[0] in known and "." in own]
    if unknown:
        raise ModelError(
            f"{name} is of another architecture: it holds {unknown[0]}, which a "
            f"{type(module).__name__} of that size has not ({len(unknown)} such weights); "
            f"{about_extra(unknown[0])}"
        )


def _refuse_other_shapes(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str, of: str
) -> None:
    for key, tensor in tensors.items():
        if tensor.numel() == 0 < wanted[key].numel():
            raise ModelError(
                f"{name} holds {key} without its numbers, as DeepSpeed's ZeRO-3 and FSDP leave a "
                "part of a sharded model; make one file of all parts (python zero_to_fp32.py, in "
                "the folder above) and give that"
            )
        if tensor.shape != wanted[key].shape:
            raise ModelError(
                f"{name} is of another architecture: {key} is {tuple(tensor.shape)} in it and "
                f"{tuple(wanted[key].shape)} in {of}"
            )


def _lacking(missing: list[str], wanted: Iterable[str], backbone: Backbone, name: str) -> list[str]:
    """The parts that are not there; each is wholly there or not at all."""
    is_text = backbone.is_text_weight
    texts = [key for key in missing if is_text(key)]
    if len(texts) < sum(map(is_text, wanted)):
        _refuse_half(texts, name)
    parts = []
    if any(key.startswith(f"{backbone.projection_name}.") for key in missing):
        parts.append("image projection")
    if texts:
        parts.append("text tower")
    elif "logit_scale" in missing:
        parts.append("logit scale")
    return parts


def _refuse_half(missing: Iterable[str], name: str) -> None:
    """Raises ModelError where weights of a tower are missing whose others are there."""
    half = [key for key in missing if not key.endswith(NO_WEIGHTS)]
    if half:
        raise ModelError(
            f"the weights of {name} are not complete: {half[0]} is missing ({len(half)} in all); "
            "save the model's whole state_dict()"
        )


def _of_another_kind(
    state: Iterable[str], wanted: Iterable[str], texts: Collection[str], name: str, of: str
) -> str:
    if any(part in key for key in state for part in ADAPTER_PARTS):
        return (
            f"{name} holds an adapter's weights alone; give the folder that PEFT's save_pretrained "
            "wrote, with its adapter_config.json, or, of another library, add them to the model "
            "where they were trained and save its state_dict()"
        )
    of_texts = {*texts, *(_within(texts) - _within(key for key in wanted if key not in texts))}
    if prefixes_of(state, of_texts):
        first = next(key for key in sorted(state) if prefixes_of([key], of_texts))
        return (
            f"{name} has weights of the texts' side, such as {first}, and no image tower; "
            "driftscope reads image towers"
        )
    first = next(iter(wanted))
    return (
        f"{name} has none of the weights of {of}, such as {first}; "
        f"it has {', '.join(sorted(state)[:2])} …, so it is of another model, or holds only what "
        "was trained beside one, such as prompts, a head or an adapter"
    )
