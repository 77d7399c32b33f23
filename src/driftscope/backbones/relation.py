"""Whether two models can be one before and one after adaptation: do they compute one function?

Weights of the same shapes do not tell. What else decides the function is compared by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftscope.backbones import find_image_tower
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError

_ONE_PREPROCESSOR = (
    "put the preprocessor_config.json that the model was trained with into both folders"
)


def function_facts(model: VisionLanguageModel) -> dict[str, object]:
    """What decides a model's function beside its weights and pixels, by a name to be shown.

    Of an image tower that is trained alone the image's side only.
    """
    tower = find_image_tower(model.module)
    facts = tower.backbone.image_facts(tower.config)
    config = getattr(model.plain, "config", None)
    return facts if config is None else facts | tower.backbone.text_facts(config)


def check_same_function(
    before: Mapping[str, object], after: Mapping[str, object], before_name: str, after_name: str
) -> None:
    """Compares the `function_facts` of two models, as far as both have them.

    Raises:
        ModelError: one differs; the sentence names it, and the way out.
    """
    for what in before.keys() & after.keys():
        if before[what] != after[what]:
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
