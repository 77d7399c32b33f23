"""Whether two models can be one before and one after adaptation: do they compute one function?

Weights of the same shapes do not tell. What else decides the function is compared by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import TOLD_BY_PARTS, WRAPPERS
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError

_ONE_PREPROCESSOR = (
    "put the preprocessor_config.json that the model was trained with into both folders"
)


def function_facts(model: VisionLanguageModel) -> dict[str, object]:
    """What decides a model's function beside its weights and pixels, by a name to be shown.

    What its configuration says, and then what its parts themselves say: a model in memory may have
    been changed since it was made. Of an image tower that is trained alone the image's side only.
    """
    tower = find_image_tower(model.module)
    facts = tower.backbone.image_facts(tower.config)
    config = getattr(model.plain, "config", None)
    if config is not None:
        facts |= tower.backbone.text_facts(config)
    facts |= _facts_of_parts(tower.encoder.named_modules(prefix=tower.backbone.tower_name))
    texts = (
        (name, part)
        for name, part in model.plain.named_modules()
        if tower.backbone.is_text_weight(f"{name}.")
    )
    return facts | _facts_of_parts(texts)


_DECIDING = (
    *("eps", "num_heads", "num_attention_heads", "head_dim", "scale", "scaling", "is_causal"),
    *("stride", "padding", "dilation", "approximate", "negative_slope"),
)
"""What a part says of itself by these names decides what it computes."""
_NOTHING_IN_USE = ("Dropout", "DropPath", "Identity", "PatchDropout", "QuickDropout")
"""What computes nothing once a model is trained, and may differ."""


def _facts_of_parts(parts: Iterable[tuple[str, nn.Module]]) -> dict[str, object]:
    """What parts without weights are, and what all say of themselves."""
    facts: dict[str, object] = {}
    for name, part in parts:
        kind = type(part).__name__
        if kind in _NOTHING_IN_USE or type(part).__module__.startswith("peft.") or "lora_" in name:
            continue
        plain = WRAPPERS.sub("", name.replace(".base_layer", "")).removesuffix(".")
        if not any(True for _ in part.children()) and not any(True for _ in part.parameters()):
            facts[plain] = kind
        for attribute in _DECIDING:
            value = getattr(part, attribute, None)
            if isinstance(value, int | float | tuple | str):
                facts[f"{plain}.{attribute}"] = value
    return facts


def check_same_function(
    before: Mapping[str, object], after: Mapping[str, object], before_name: str, after_name: str
) -> None:
    """Compares the `function_facts` of two models, as far as both have them.

    Raises:
        ModelError: one differs; the sentence names it, and the way out.
    """
    both = [what for what in before if what in after]
    differing = [what for what in both if before[what] != after[what]]
    parts = {what.rpartition(".")[2] for what in both if "." in what}
    have_other_parts = any("." in what for what in differing)
    for what in differing:
        # of a model in memory the parts compute, whatever its configuration says by now
        by = next((names for end, names in TOLD_BY_PARTS.items() if what.endswith(end)), ())
        if have_other_parts or parts.isdisjoint(by):
            raise ModelError(
                f"{before_name} and {after_name} compute different functions of the same weights: "
                f"{what} is {before[what]} in one and {after[what]} in the other; "
                f"{_way_out(what, before_name, after_name)}"
            )


def check_same_pixels(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    """Compares how two models normalise pixels, where each has a convention of its own.

    Raises:
        ModelError: mean or standard deviation differs.
    """
    if not (before.has_own_pixels and after.has_own_pixels):
        return
    framings = before.framing, after.framing.at(before.framing.size)
    if framings[0] != framings[1]:
        raise ModelError(
            f"{before.source} and {after.source} are read on different pixels: images are "
            f"{framings[0].described} in one and {framings[1].described} in the other; "
            f"{_ONE_PREPROCESSOR}"
        )
    for what in ("mean", "std"):
        own, other = getattr(before, what), getattr(after, what)
        if not _close(own, other):
            raise ModelError(
                f"{before.source} and {after.source} normalise pixels differently: image_{what} is "
                f"{_listed(own)} in one and {_listed(other)} in the other; {_ONE_PREPROCESSOR}"
            )


def _way_out(what: str, *names: str) -> str:
    if "activation" in what and any(name.startswith("open_clip:") for name in names):
        return (
            "name the checkpoint by the model that it was trained as: OpenAI's weights, and what "
            "was fine-tuned from them, have the suffix -quickgelu (open_clip:ViT-B-32-quickgelu:"
            "FILE), others have none"
        )
    return "compare models of one configuration, or correct the config.json that is wrong"


def _close(own: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(own, other, strict=True))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
