"""A model family in one file, as another package brings it: its modules, and what is read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from driftscope.backbones.base import Backbone


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    def __init__(self, hidden_size: int = 16, image_size: int = 32, **more: Any) -> None:
        super().__init__(**more)
        self.hidden_size, self.image_size, self.patch_size = hidden_size, image_size, 8
        self.depth, self.num_heads = 2, 2


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = (one(tokens) for one in (self.q_proj, self.k_proj, self.v_proj))
        heads = [part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts]
        seen = functional.scaled_dot_product_attention(*heads)
        tokens = tokens + self.out_proj(seen.transpose(1, 2).flatten(2))
        changed: Tensor = tokens + self.fc2(functional.gelu(self.fc1(tokens)))
        return changed


class ToyTower(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        width, side = config.hidden_size, config.image_size // config.patch_size
        self.patches = nn.Conv2d(3, width, config.patch_size, config.patch_size)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, side * side + 1, width))
        self.blocks = nn.ModuleList([Block(width) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(width)

    def tokens(self, pixels: Tensor) -> Tensor:
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(pixels), -1, -1), patches], dim=1) + self.positions

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.tokens(pixels)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.tower = ToyTower(config)
        self.post_init()

    def _init_weights(self, _module: nn.Module) -> None:
        """As torch draws them."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        embeddings: Tensor = self.tower(pixel_values)[:, 0]
        return embeddings


AutoConfig.register("toy", ToyConfig)


class Toy(Backbone):
    """What driftscope needs to know of it."""

    family = "toy"
    package = "toy_family"
    classes: ClassVar[Mapping[str, str]] = {"toy": "ToyModel"}
    towers: ClassVar[Mapping[str, str]] = {"ToyTower": "blocks"}
    trained_alone = ("ToyModel",)
    tower_name = "tower"
    blocks_name = "tower.blocks"
    final_norm_name = "tower.norm"
    positions_name = "tower.positions"
    adapter_targets: ClassVar[Mapping[str, str]] = {
        name: name for name in ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    }
    has_attention_of_its_own = True

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        embeddings: Tensor = module(pixel_values=pixel_values)
        return embeddings

    def image_facts(self, config: Any) -> dict[str, object]:
        return {"the image tower's number of attention heads": config.num_heads}
