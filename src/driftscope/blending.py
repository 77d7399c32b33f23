"""W₀ + Σ α ΔW: models between the pretrained and the adapted one, in place on one working copy.

The delta is the effective weight change, adapters merged. It is divided into groups, each with a
strength α, or with one for every row of its weights: 0 is pretrained, 1 adapted, to the bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from driftscope.backbones.base import Backbone
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import merged
from driftscope.errors import ConfigError, ModelError, did_you_mean

TEXT = "text tower"
EMBEDDINGS = "embeddings"
NORMS = "outer norms"
POOLING = "pooling head"
PROJECTION = "projection"
_PARTS = (("attention", ("attn", "attention")), ("norms", ("norm", "ln_", "layer_scale")))
_POOLS = ("attn_pool", "attnpool")
_PROJECTS = ("visual.proj", "visual.head.")
"""How open_clip's models call what pools the patches, and what projects."""
_AT_THE_INPUT = ("embed", "pre", "stem", "conv", "bn", "token")

Strength: TypeAlias = float | Mapping[str, Float[Tensor, " row"]]
"""α of a group: one for all its weights, or by weight one for every row. A weight that is left out
keeps W₀. A row is what the first index names: an output of a linear layer, an entry of a vector."""
Part = tuple[str, tuple[slice, ...]]
"""The name of a weight, and where in it."""


class EqualModelsError(ModelError):
    """There is nothing between two models."""


@dataclass(frozen=True, eq=False)
class Delta:
    """The weights that differ between two models of one architecture, by group.

    Attributes:
        before, after: those weights by name, of equal shapes.
        groups: group -> names of its weights, in the order from the input to the output.
        depth: group -> where it is, from 0 at the input to 1 at the output.
    """

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    groups: Mapping[str, tuple[str, ...]]
    depth: Mapping[str, float]


def delta_of(before: VisionLanguageModel, after: VisionLanguageModel) -> Delta:
    """The effective weight change from one model to the other, adapters merged.

    Raises:
        ModelError: the models are not of one architecture.
        EqualModelsError: they are equal to the bit.
    """
    refuse_other_architecture(before, after)
    states = [floating_weights(one) for one in (before, after)]
    moved = [n for n, one in states[0].items() if not torch.equal(one, states[1][n])]
    if not moved:
        raise EqualModelsError(
            f"{after.source} equals {before.source} to the bit, so there is nothing between them; "
            "is one of them the wrong model?"
        )
    backbone, prefix = before.backbone, before.own_prefix
    num_blocks = 1 + max((backbone.block_of(prefix + n) or 0 for n in states[0]), default=0)
    placed = [(_group(backbone, prefix + name, num_blocks), name) for name in moved]
    groups = dict.fromkeys(group for group, _ in sorted(placed, key=lambda one: one[0][1]))
    return Delta(
        {name: states[0][name] for name in moved},
        {name: states[1][name] for name in moved},
        {one[0]: tuple(name for group, name in placed if group == one) for one in groups},
        {one[0]: one[1] for one in groups},
    )


def floating_weights(model: VisionLanguageModel) -> dict[str, Tensor]:
    """All weights that are numbers with fractions, by name, adapters merged, on the CPU."""
    found = merged(model).plain.state_dict()
    return {n: one.detach().cpu() for n, one in found.items() if one.is_floating_point()}


def refuse_other_architecture(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    """Raises `ModelError` where two models' weights have not the same names and shapes."""
    shapes = [
        {name: one.shape for name, one in floating_weights(model).items()}
        for model in (before, after)
    ]
    if shapes[0] != shapes[1]:
        names = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise ModelError(
            f"{before.source} and {after.source} are not of one architecture: {names[0][0]} is in "
            "one alone or of another shape; only weights of equal shapes can be blended"
        )


def _group(backbone: Backbone, name: str, num_blocks: int) -> tuple[str, float]:
    """The group of a weight, and how deep it is."""
    block = backbone.block_of(name)
    if block is not None:
        inside = name.removeprefix(backbone.blocks_name).lower()
        part = next((part for part, words in _PARTS if any(w in inside for w in words)), "MLP")
        return f"block {block + 1} {part}", (block + 1) / (num_blocks + 1)
    if backbone.is_text_weight(name) or not backbone.is_encoder_weight(name):
        return TEXT, 1.0
    pools = (*_POOLS, *filter(None, [backbone.pooling_name]))
    if any(word in name for word in pools):
        return POOLING, 1.0
    projects = (*_PROJECTS, *filter(None, [backbone.projection_name]))
    if any(word in name for word in projects):
        return PROJECTION, 1.0
    inside = name.removeprefix(f"{backbone.tower_name}.")
    if any(word in inside for word in _AT_THE_INPUT):
        return EMBEDDINGS, 0.0
    return NORMS, 1.0


class Blend:
    """One working copy that becomes any model between two.

    Args:
        before: the pretrained model.
        after: the adapted one.

    Raises:
        ModelError: as `delta_of`.
    """

    def __init__(self, before: VisionLanguageModel, after: VisionLanguageModel) -> None:
        self.delta = delta_of(before, after)
        module = copy.deepcopy(merged(before).module).eval()
        self.model = replace(merged(after), module=module, source=f"between {before.source} and "
                             f"{after.source}", base_fingerprint=None)  # fmt: skip
        self._own = dict(self.model.plain.state_dict())
        self._now = dict.fromkeys(self.delta.groups, 0.0)

    @property
    def moves_images(self) -> bool:
        """Whether a weight of the image tower differs, and not of the text tower alone."""
        return any(group != TEXT for group in self.groups)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups whose weights differ, from the input to the output."""
        return tuple(self.delta.groups)

    def uniform(self, strength: float) -> dict[str, float]:
        """The same strength for every group (WiSE-FT, Wortsman et al. 2022)."""
        return dict.fromkeys(self.groups, strength)

    def linear_in_depth(self, strength: float) -> dict[str, float]:
        """From nothing at the embeddings to the strength at the projection (LiNeS, 2410.17146)."""
        return {group: strength * depth for group, depth in self.delta.depth.items()}

    def set(self, strengths: Mapping[str, Strength]) -> VisionLanguageModel:
        """Makes the working copy W₀ + α·ΔW, and returns it; it is the same object every time.

        Args:
            strengths: α of each group; groups that are left out keep W₀.

        Raises:
            ConfigError: a group or a weight that there is not, as many strengths as a weight has
                not rows, or one that is no finite number.
        """
        _refuse_unknown(strengths, self.delta)
        with torch.no_grad():
            for group, names in self.delta.groups.items():
                strength = strengths.get(group, 0.0)
                if self._now[group] == strength:
                    continue
                for name in names:
                    self._own[name].copy_(self.between(name, of_weight(strength, name)))
                self._now[group] = math.nan if isinstance(strength, Mapping) else strength
        return self.model

    def set_part(self, group: str, parts: Iterable[Part], *, adapted: bool) -> None:
        """Puts parts of a group's weights to one end, such as those of one attention head.

        The next `set` makes the group whole again.
        """
        source = self.delta.after if adapted else self.delta.before
        self._now[group] = math.nan
        with torch.no_grad():
            for name, where in parts:
                if name in source:
                    self._own[name][where] = source[name][where].to(self._own[name].dtype)

    def between(self, name: str, strength: float | Tensor) -> Tensor:
        """One weight at a strength, or at one for every row; the ends are exact."""
        before, after = self.delta.before[name], self.delta.after[name]
        if not isinstance(strength, Tensor) and strength in (0, 1):
            return after if strength else before
        along = along_rows(strength, before)
        along = along.double() if isinstance(along, Tensor) else along
        mixed: Tensor = torch.lerp(before.double(), after.double(), along)
        return mixed.to(before.dtype)


def of_weight(strength: Strength, name: str) -> float | Tensor:
    """What a group's strength is for one of its weights."""
    return strength.get(name, 0.0) if isinstance(strength, Mapping) else strength


def num_rows(weight: Tensor) -> int:
    """How many strengths a weight can have."""
    return weight.shape[0] if weight.ndim else 1


def along_rows(
    strength: float | Float[Tensor, " row"], weight: Tensor
) -> float | Float[Tensor, "..."]:
    """What a weight is multiplied by: one strength, or its rows' in a shape that fits it."""
    if not isinstance(strength, Tensor):
        return strength
    return strength.reshape(-1, *[1] * (weight.ndim - 1)) if weight.ndim else strength.squeeze()


def mean_strength(strength: Strength) -> float:
    """A group's strength, or the mean over the rows of all its weights, large or small."""
    if not isinstance(strength, Mapping):
        return strength
    return float(torch.cat([one.flatten().double() for one in strength.values()]).mean())


def _refuse_unknown(strengths: Mapping[str, Strength], delta: Delta) -> None:
    for group, strength in strengths.items():
        if group not in delta.groups:
            raise ConfigError(f"no group {group!r}: {did_you_mean(group, tuple(delta.groups))}")
        if isinstance(strength, Mapping):
            _refuse_other_rows(group, strength, delta)
        elif not math.isfinite(strength):
            raise ConfigError(f"the strength of {group} is {strength}; give a number")


def _refuse_other_rows(group: str, by_weight: Mapping[str, Tensor], delta: Delta) -> None:
    names = delta.groups[group]
    for name, rows in by_weight.items():
        if name not in names:
            raise ConfigError(f"no weight {name!r} in {group}: {did_you_mean(name, names)}")
        count = num_rows(delta.before[name])
        if rows.numel() != count:
            raise ConfigError(
                f"{rows.numel()} strengths are given for {name}, and it has {count} rows; give one "
                "for each row"
            )
        if not bool(torch.isfinite(rows).all()):
            raise ConfigError(f"a strength of {name} is NaN or infinite; give numbers")


Strengths: TypeAlias = float | Mapping[str, Strength]
"""One for all groups, or by group; groups that are left out keep W₀."""


def blend(
    before: VisionLanguageModel,
    after: VisionLanguageModel | Sequence[VisionLanguageModel],
    strengths: Strengths | Sequence[Strengths],
) -> VisionLanguageModel:
    """The model W₀ + Σ α ΔW as a plain one of its own, of one or of several changes.

    Args:
        before: the pretrained model.
        after: the adapted one, or several (a soup); adapters are merged.
        strengths: one for all groups, or by group (`Blend.groups`), where a group may have one for
            every row of its weights; of several models one of these for each.

    Raises:
        ModelError, ConfigError: as `Blend`; several models have not as many strengths.
    """
    if not isinstance(after, VisionLanguageModel):
        return _soup(before, after, strengths)
    if isinstance(strengths, Sequence):
        raise ConfigError(
            f"one model has one strength, or one by group; {len(strengths)} are given"
        )
    working = Blend(before, after)
    if not isinstance(strengths, Mapping):
        strengths = working.uniform(strengths)
    return working.set(strengths)


def _soup(
    before: VisionLanguageModel,
    several: Sequence[VisionLanguageModel],
    strengths: Strengths | Sequence[Strengths],
) -> VisionLanguageModel:
    """Several changes added up in float64, each by its strengths."""
    given = list(strengths) if isinstance(strengths, Sequence) else []
    if not several or len(given) != len(several):
        raise ConfigError(
            f"{len(several)} models are given, and {len(given) or 'no list of'} strengths; give a "
            "list of one for each model"
        )
    sums: dict[str, Tensor] = {}
    for one, of_one in zip(several, given, strict=True):
        delta = delta_of(before, one)
        by_group = of_one if isinstance(of_one, Mapping) else dict.fromkeys(delta.groups, of_one)
        _refuse_unknown(by_group, delta)
        for group, strength in by_group.items():
            for name in delta.groups[group]:
                start = delta.before[name].double()
                along = along_rows(of_weight(strength, name), start)
                change = along * (delta.after[name].double() - start)
                sums[name] = sums.get(name, start) + change
    module = copy.deepcopy(merged(before).module).eval()
    names = ", ".join(one.source for one in several)
    soup = replace(merged(several[0]), module=module, source=f"a soup of {names} on "
                   f"{before.source}", base_fingerprint=None)  # fmt: skip
    own = soup.plain.state_dict()
    with torch.no_grad():
        for name, weight in sums.items():
            own[name].copy_(weight)
    return soup


class ImagePath(nn.Module):
    """A model's image path as a module, so that its weights can be given from outside."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.inner = model.plain
        self._embed = model.backbone.embed_images

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Unnormalised image embeddings."""
        return self._embed(self.inner, pixel_values)
