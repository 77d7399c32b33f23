"""The names in an adapter's folder, by those of the base's module.

An adapter's file has the names of the modules that it was trained on. Version 5 of transformers has
renamed those of ViT, DINOv2 and DINOv3, and in a model's files weights have the old names still. So
those tell which layer an adapter of version 4 means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from driftscope.sources.fitting import own_names_of_written

_LISTS = ("modules_to_save", "feedforward_modules")
"""What of a configuration names layers by the ends of their names, beside its targets."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
"""What of it gives layers numbers of their own, by patterns of their names."""
_SELECTIONS = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""What of it takes layers out of its targets."""
NAMING = ("target_modules", *_LISTS, *_PATTERNS, *_SELECTIONS)
"""All that names layers in it."""


@dataclass(frozen=True)
class _Place:
    """A layer in an adapter's file.

    Attributes:
        before: what stands before its name, of whatever held the model.
        found: its name there.
        own: its name in the module.
    """

    before: str
    found: str
    own: str


def by_own_names(
    state: dict[str, Tensor], config: dict[str, Any], module: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter's weights and configuration by the module's own names, where they have others.

    Its targets are then the layers that it has weights for, each by its whole name.
    """
    own_name = _own_layers(module)
    places = {key: place for key in state if (place := _place(key, own_name))}
    if all(place.found == place.own for place in places.values()):
        return state, config
    renamed = {
        key if (place := places.get(key)) is None else _renamed(key, place): tensor
        for key, tensor in state.items()
    }
    layers = {place for key, place in places.items() if not key.endswith(_of_layer(place))}
    lists = {key: config[key] for key in _LISTS if isinstance(config.get(key), list)}
    told = {
        **{key: _own_ends(ends, own_name) for key, ends in lists.items()},
        **{key: _by_layer(config[key], layers) for key in _PATTERNS if config.get(key)},
        **{key: None for key in _SELECTIONS if key in config},
    }
    return renamed, {**config, **told, "target_modules": sorted({one.own for one in layers})}


def _own_layers(module: nn.Module) -> dict[str, str]:
    """A module's names of its layers, by those that its files have, and by themselves."""
    _, own_name = own_names_of_written(module.state_dict(), module)
    layers = {
        written.rpartition(".")[0]: own.rpartition(".")[0] for written, own in own_name.items()
    }
    return {**layers, **{own: own for own in layers.values()}}


def _place(key: str, own_name: Mapping[str, str]) -> _Place | None:
    """The layer that the name of a weight holds; the longest name counts."""
    for before, found in _cuts(key.split(".")):
        if found in own_name:
            return _Place(before, found, own_name[found])
    return None


def _cuts(parts: list[str]) -> Iterator[tuple[str, str]]:
    for first in range(len(parts)):
        for last in range(len(parts) - 1, first, -1):
            yield "".join(f"{one}." for one in parts[:first]), ".".join(parts[first:last])


def _renamed(key: str, place: _Place) -> str:
    return f"{place.before}{place.own}{key.removeprefix(place.before + place.found)}"


def _of_layer(place: _Place) -> tuple[str, ...]:
    """How the names of the layer's own weights end, where it was trained whole."""
    return f"{place.found}.weight", f"{place.found}.bias"


def _own_ends(names: list[str], own_name: Mapping[str, str]) -> list[str]:
    """The layers that the ends of names mean; what means none is something of a holder."""
    return [own for end in names for own in (_meant(end, own_name) or [end])]


def _meant(end: str, own_name: Mapping[str, str]) -> list[str]:
    found = {own for name, own in own_name.items() if f".{name}".endswith(f".{end}")}
    return sorted(found)


def _by_layer(numbers: Mapping[str, Any], layers: set[_Place]) -> dict[str, Any]:
    """The numbers by the own names of layers, as PEFT finds them: the first pattern that fits."""
    found: dict[str, Any] = {}
    for place in layers:
        name = f"{place.before}{place.found}"
        fitting = (one for one in numbers if re.match(rf"(.*\.)?({one})$", name))
        if (pattern := next(fitting, None)) is not None:
            found[place.own] = numbers[pattern]
    return found
