"""Signals of full attention maps as their definitions say, where the maps fit into memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from driftscope.signals.attention import entropy_bits, rollout_row, rollout_step


def patch_to_patch_entropy_bits(maps: Tensor, num_prefix: int = 1) -> Tensor:
    """Mean entropy of the patches' own attention to patches, [*head, token, token] to [*head]."""
    patches = maps[..., num_prefix:, num_prefix:].double()
    mass = patches.sum(dim=-1, keepdim=True)
    rows = torch.where(mass > 0, patches / mass.clamp_min(1e-300), 0.0)
    return entropy_bits(rows).mean(dim=-1)


def attention_rollout(maps: Sequence[Tensor], num_prefix: int = 1) -> Tensor:
    """The rollout row of the maps [image, head, token, token] of all layers."""
    product = rollout_step(None, maps[0].double().mean(dim=1))
    for layer_map in maps[1:]:
        product = rollout_step(product, layer_map.double().mean(dim=1))
    return rollout_row(product, num_prefix)
