"""Which of the trained weights are a block's attention projections, or a block's at all."""

from __future__ import annotations

from torch import nn

from driftscope.adapt.model import ENCODER, AdaptedModel
from driftscope.backbones import find_image_tower
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config.interventions import PROJECTIONS, OnParts
from driftscope.errors import ModelError

_OF_PEFT = "base_model.model."


def trained_parts(adapted: AdaptedModel, asked: OnParts) -> dict[str, nn.Parameter]:
    """The trained weights of an intervention's parts, by their names in `trainable`.

    Of an adapted layer they are the adapter's, which start without effect.

    Raises:
        ModelError: the tower lacks such blocks or layers, or the method trains none of them.
    """
    model = adapted.model
    inside = _layers(model, asked)
    found = {
        name: parameter
        for name, parameter in adapted.trainable().items()
        if (placed := _in_block(model, name)) is not None
        and (not asked.blocks or placed[0] in asked.blocks)
        and placed[1].startswith(inside)
    }
    if not found:
        raise ModelError(
            f"{asked.label} acts on {asked.parts_text}, of which this training changes nothing; "
            "name a part that the method trains, or leave it out"
        )
    return found


def _in_block(model: VisionLanguageModel, name: str) -> tuple[int, str] | None:
    """The block of a trained weight, from 1, and its name within it; None outside the blocks."""
    if not name.startswith(ENCODER):
        return None
    whole = model.own_prefix + name.removeprefix(ENCODER).removeprefix(_OF_PEFT)
    block = model.backbone.block_of(whole)
    if block is None:
        return None
    return block + 1, whole.removeprefix(f"{model.backbone.blocks_name}.{block}.")


def _layers(model: VisionLanguageModel, asked: OnParts) -> tuple[str, ...]:
    """How the names, within a block, of what is asked for begin."""
    blocks = find_image_tower(model.module).blocks
    beyond = [block for block in asked.blocks if block > len(blocks)]
    if beyond:
        raise ModelError(
            f"{asked.label} names block {beyond[0]}, but the image tower of {model.source} has "
            f"{len(blocks)}"
        )
    if asked.what == "blocks":
        return ("",)
    there = {name for name, _ in blocks[-1].named_modules()}
    targets, wanted = model.backbone.adapter_targets, PROJECTIONS[asked.what]
    unknown = [one for one in wanted if targets.get(one) not in there]
    if unknown:
        raise ModelError(
            f"{asked.label} needs the layer {unknown[0]} of each block, which the image tower of "
            f"{model.source} does not have by itself; take what: blocks"
        )
    layers = {targets[one] for one in wanted}
    shared = layers & {targets.get(one) for one in PROJECTIONS["attention"] if one not in wanted}
    if shared:
        raise ModelError(
            f"{asked.label} cannot tell {asked.parts_text} apart: {model.source} keeps queries, "
            f"keys and values in one weight ({shared.pop()}); take what: attention"
        )
    return tuple(f"{layer}." for layer in layers)
