"""The parts around an image tower that stand elsewhere in a file than the tower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from torch import Tensor

from driftscope.backbones.base import Backbone
from driftscope.sources.state_dict import places_of_models, prefixes_of


def elsewhere(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    used: Set[str],
    backbone: Backbone,
    averages: Sequence[str],
) -> dict[str, str]:
    """The parts around the image tower, of a holder that has them in other places than the tower.

    Or beside a tower without a name for itself. A part is found where one place alone has it, whole
    and in its shapes.
    """
    projection = f"{backbone.projection_name}."
    texts = [key for key in wanted if backbone.is_text_weight(key)]
    parts = (
        texts,
        [key for key in wanted if key.startswith(projection)],
        *([key] for key in ("logit_scale", "logit_bias") if key in wanted),
    )
    found: dict[str, str] = {}
    for part in parts:
        if used.isdisjoint(part):
            found |= _in_one_place(state, wanted, {key: key for key in part}, averages)
    if used.isdisjoint(texts) and found.keys().isdisjoint(texts):
        found |= _texts_elsewhere(state, wanted, texts, averages)
    return found


def _texts_elsewhere(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    texts: Iterable[str],
    averages: Sequence[str],
) -> dict[str, str]:
    """The text tower under a name of the user's own, and its projection under its usual one.

    Empty where one of the two is nowhere, or in several places.
    """
    parts: dict[str, dict[str, str]] = {}
    for key in texts:
        top, _, within = key.partition(".")
        parts.setdefault(top, {})[within if "." in within else key] = key
    found = [_in_one_place(state, wanted, part, averages) for part in parts.values()]
    return {own: key for part in found for own, key in part.items()} if all(found) else {}


def _in_one_place(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    part: Mapping[str, str],
    averages: Sequence[str],
) -> dict[str, str]:
    """Where a part of a module is, by the module's names; empty unless in one place, and whole.

    `part` has the module's names by those that are looked for.
    """
    whole = [one for one, count in prefixes_of(state, part).items() if count == len(part)]
    places = [place for place in places_of_models(whole) if place not in averages]
    if len(places) != 1:
        return {}
    found = {own: places[0] + name for name, own in part.items()}
    fits = all(
        of_shape(state[key], wanted[own]).shape == wanted[own].shape for own, key in found.items()
    )
    return found if fits else {}


def of_shape(tensor: Tensor, wanted: Tensor) -> Tensor:
    """A single number as the module keeps it: with dimensions or without."""
    return tensor.reshape(wanted.shape) if tensor.numel() == wanted.numel() == 1 else tensor
