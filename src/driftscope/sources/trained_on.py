"""What an adapter was trained on: a whole model, its image tower, or a module of the user's own.

PEFT finds layers by their names. So the module that was trained is built again, of the base's own
parts, by the names in the adapter's file.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError, told_as

_OF_PEFT = "base_model."
"""How the names of weights begin that an adapter's layers share."""


@dataclass(frozen=True)
class TrainedOn:
    """A module like the one that an adapter was trained on.

    Attributes:
        root: the module; the base's own where that was trained.
        inner: what of the base is in it.
        path: where that is, with a dot behind; empty where it is the root.
        projection: where the image projection is, if a user's module has it beside the tower.
        beside: names of weights in the adapter's file that are no change of the base, such as a
            head's.
    """

    root: nn.Module
    inner: nn.Module
    path: str
    projection: str
    beside: tuple[str, ...]


def trained_on(state: Mapping[str, Tensor], base: VisionLanguageModel, folder: Path) -> TrainedOn:
    """The module that the adapter of a folder was trained on, by the names of its weights."""
    path = _holders_prefix(state, base)
    projection = _projection_beside(state, path, base)
    _refuse_more_than_a_matrix(state, projection, base, folder)
    tower = f"{base.backbone.tower_name}."
    if projection and any(key.startswith(path + tower) for key in state):
        path += tower  # a class that calls its tower so, and has no projection of its own
    own = {key.removeprefix(path): one for key, one in state.items() if key.startswith(path)}
    inner = root = _trained_root(own, base, folder)
    if path:
        root = _held(base.plain if inner is base.module else inner, path, state)
    own_projection = _projection_of(base)
    if projection and own_projection is not None:
        _put(root, projection, own_projection)
    is_tower_alone = not base.own_prefix and inner is base.plain.get_submodule(tower[:-1])
    inside = [f"{path}{top}" for top in _tops(inner if is_tower_alone else base.plain)]
    inside += [_OF_PEFT, f"{projection}."] if projection else [_OF_PEFT]
    beside = tuple(sorted(key for key in state if not key.startswith(tuple(inside))))
    return TrainedOn(root, inner, path, projection, beside)


def take_back(merged: nn.Module, trained: TrainedOn, base: VisionLanguageModel) -> None:
    """Puts the parts of the module that was trained, its adapter merged in, into the base."""
    if trained.projection:
        projection = merged.get_submodule(trained.projection)
        above, _, last = trained.projection.rpartition(".")
        delattr(merged.get_submodule(above), last)
        base.plain.set_submodule(str(base.backbone.projection_name), projection)
    if trained.inner is not base.module:  # else the model itself was merged, inside its holder
        _take_back(merged.get_submodule(trained.path.removesuffix(".")), base)


def _tops(module: nn.Module) -> list[str]:
    """How the names of a module's weights begin."""
    children = [f"{name}." for name, _ in module.named_children()]
    return children + [name for name, _ in module.named_parameters(recurse=False)]


def _projection_of(base: VisionLanguageModel) -> nn.Module | None:
    """The base's own image projection, a linear layer; None where it has none."""
    found = dict(base.plain.named_children()).get(base.backbone.projection_name)
    return found if isinstance(found, nn.Linear) else None


def _projection_beside(state: Mapping[str, Tensor], path: str, base: VisionLanguageModel) -> str:
    """Where a user's module has the image projection beside the tower; empty where nowhere.

    It is told by its name, and, where it was trained whole, by its shape.
    """
    own = _projection_of(base)
    if own is None:
        return ""
    name, tower = str(base.backbone.projection_name), f"{base.backbone.tower_name}."
    places = {
        ".".join(parts[: parts.index(name) + 1])
        for parts in (key.split(".") for key in state)
        if name in parts
    }
    is_whole = any(key.startswith(path + tower) for key in state)
    has_texts = any(base.backbone.is_text_weight(key.removeprefix(path)) for key in state)
    if len(places) != 1 or (is_whole and (has_texts or f"{path}{name}" in places)):
        return ""
    place = places.pop()
    weight = state.get(f"{place}.weight", own.weight)
    return place if weight.shape == own.weight.shape else ""


def _refuse_more_than_a_matrix(
    state: Mapping[str, Tensor], projection: str, base: VisionLanguageModel, folder: Path
) -> None:
    """Raises ModelError where a user's projection has a bias or layers that the base's has not."""
    own = _projection_of(base)
    if not projection or own is None:
        return
    inside = [key.removeprefix(f"{projection}.") for key in sorted(state)
              if key.startswith(f"{projection}.")]  # fmt: skip
    more = [one for one in inside if re.fullmatch(r"(bias|\d+\..+)", one)]
    if more and (more[0] != "bias" or own.bias is None):
        what = "a bias" if more == ["bias"] else "several layers"
        raise ModelError(
            f"the adapter in {folder} was trained with an image projection that has {what} "
            f"({projection}.{more[0]}), and that of {base.source} is one matrix; the projections "
            "cannot be exchanged"
        )


def _trained_root(
    state: Mapping[str, Tensor], base: VisionLanguageModel, folder: Path
) -> nn.Module:
    """What the adapter was trained on: the whole model, or its image tower in a class of its own.

    `q_proj` means the text tower, too, on the whole model. So an adapter without weights for the
    text tower, whose targets are in there as well, was trained on less.
    """
    from peft import PeftConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    if base.own_prefix:
        return base.module
    is_text, tower = base.backbone.is_text_weight, base.backbone.tower_name
    if not any(key.startswith(f"{tower}.") or is_text(key) for key in state):
        alone: nn.Module = base.plain.get_submodule(tower)
        return alone
    with (
        told_as(ModelError, f"the adapter in {folder} is of a kind that peft does not know"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        config = PeftConfig.from_pretrained(str(folder))
    names = [name for name, _ in base.plain.named_modules() if is_text(f"{name}.")]
    means_texts = any(check_target_module_exists(config, name) for name in names)
    if any(map(is_text, state)) or (not means_texts and not _layers_beside(state, base)):
        return base.module
    holder = nn.Module()
    for name, child in base.plain.named_children():
        if not is_text(f"{name}."):
            holder.add_module(name, child)
    _add_layers(holder, _layers_beside(state, base), state)
    return holder


def _holders_prefix(state: Mapping[str, Tensor], base: VisionLanguageModel) -> str:
    """The path to the model in what was trained, a module of the user's own; empty without one."""
    layers = {name for name, _ in base.plain.named_modules() if "." in name}
    tower = f"{base.backbone.tower_name}."
    within = {name.removeprefix(tower) for name in layers if name.startswith(tower)}
    for known in (layers, {name for name in within if "." in name}):
        found: Counter[str] = Counter()
        for key in state:
            found.update(_prefixes_before(key, known))
        if found:
            return min(found, key=lambda one: (-found[one], len(one)))
    return ""


def _prefixes_before(key: str, layers: Container[str]) -> set[str]:
    """What stands before the name of a layer in the name of one of its weights."""
    parts = key.split(".")
    return {
        "".join(f"{part}." for part in parts[:first])
        for first in range(len(parts))
        for last in range(first + 2, len(parts))
        if ".".join(parts[first:last]) in layers
    }


def _held(inner: nn.Module, path: str, state: Mapping[str, Tensor]) -> nn.Module:
    """A module that has another at a path, as the user's own had, with the layers beside it."""
    outer = nn.Module()
    _put(outer, path.removesuffix("."), inner)
    beside = {key for key in state if not key.startswith(path) and ".lora_" not in key}
    _add_layers(outer, {key.rpartition(".")[0] for key in beside}, state)
    return outer


def _layers_beside(state: Mapping[str, Tensor], base: VisionLanguageModel) -> set[str]:
    """Linear layers that were trained beside the adapter on top of the tower, by name."""
    known = dict(base.plain.named_children())
    return {
        name
        for key, weight in state.items()
        if (name := key.removesuffix(".weight")) != key and "." not in name
        if name not in known and weight.ndim == 2
    }


def _add_layers(holder: nn.Module, names: Iterable[str], state: Mapping[str, Tensor]) -> None:
    """Puts in the layers that an adapter's file has whole, so that peft finds their places."""
    for name in sorted(names):
        weight = state.get(f"{name}.weight")
        if weight is None or weight.ndim != 2:
            continue
        has_bias = f"{name}.bias" in state
        _put(holder, name, nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias))


def _put(holder: nn.Module, place: str, module: nn.Module) -> None:
    """Adds a module at a path, with empty modules on the way to it."""
    *above, last = place.split(".")
    for name in above:
        if name not in dict(holder.named_children()):
            holder.add_module(name, nn.Module())
        holder = holder.get_submodule(name)
    holder.add_module(last, module)


def _take_back(root: nn.Module, base: VisionLanguageModel) -> None:
    """Puts the merged parts of the image tower's class into the whole model."""
    own = dict(base.plain.named_children())
    if not own.keys() & dict(root.named_children()).keys():
        base.plain.set_submodule(base.backbone.tower_name, root)
    for name, child in root.named_children():
        if name in own:
            base.plain.set_submodule(name, child)
