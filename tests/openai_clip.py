"""The models of OpenAI's package `clip`, as their paper and state dicts describe them, and small.

Written for the tests alone, with that package's names of modules and parameters.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        parts = {"c_fc": nn.Linear(width, 4 * width), "gelu": QuickGELU()}
        self.mlp = nn.Sequential(OrderedDict({**parts, "c_proj": nn.Linear(4 * width, width)}))
        self.attn_mask = mask

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.ln_1(tokens)
        seen = self.attn(normed, normed, normed, need_weights=False, attn_mask=self.attn_mask)[0]
        tokens = tokens + seen
        changed: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return changed


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, mask: Tensor | None = None) -> None:
        super().__init__()
        blocks = (ResidualAttentionBlock(width, heads, mask) for _ in range(layers))
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, tokens: Tensor) -> Tensor:  # [token, image, width]
        found: Tensor = self.resblocks(tokens)
        return found


class VisionTransformer(nn.Module):
    def __init__(self, side: int, patch: int, width: int, layers: int, heads: int, out: int):
        super().__init__()
        self.input_resolution, self.output_dim = side, out
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(0.1 * torch.randn(width))
        self.positional_embedding = nn.Parameter(0.1 * torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.proj = nn.Parameter(0.1 * torch.randn(width, out))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positional_embedding
        seen = self.transformer(self.ln_pre(tokens).transpose(0, 1)).transpose(0, 1)
        projected: Tensor = self.ln_post(seen[:, 0]) @ self.proj
        return projected


class ModifiedResNet(nn.Module):
    """Its four layers, a convolution and a batch norm each; the pool is a mean and a projection."""

    def __init__(self, side: int, width: int, out: int) -> None:
        super().__init__()
        self.input_resolution, self.output_dim = side, out
        self.conv1 = nn.Conv2d(3, width, 4, stride=4, bias=False)
        for number in range(1, 5):
            layer = (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            self.add_module(f"layer{number}", nn.Sequential(nn.Sequential(*layer)))
        self.attnpool = nn.Linear(width, out)

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.conv1(pixels)
        for number in range(1, 5):
            found = self.get_submodule(f"layer{number}")(found)
        pooled: Tensor = self.attnpool(found.mean(dim=(2, 3)))
        return pooled


class CLIP(nn.Module):
    def __init__(self, visual: nn.Module, out: int = 32, width: int = 64, length: int = 16):
        super().__init__()
        self.context_length, self.vocab_size, self.visual = length, 60, visual
        mask = torch.full((length, length), float("-inf")).triu(1)
        self.transformer = Transformer(width, 2, 2, mask)
        self.token_embedding = nn.Embedding(self.vocab_size, width)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(0.1 * torch.randn(width, out))
        self.logit_scale = nn.Parameter(torch.tensor(4.0))

    def encode_image(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.visual(pixels)
        return found

    def encode_text(self, texts: Tensor) -> Tensor:
        tokens = self.token_embedding(texts) + self.positional_embedding
        seen = self.ln_final(self.transformer(tokens.transpose(0, 1)).transpose(0, 1))
        pooled: Tensor = seen[torch.arange(len(texts)), texts.argmax(dim=-1)] @ self.text_projection
        return pooled


for _one in (
    QuickGELU,
    ResidualAttentionBlock,
    Transformer,
    VisionTransformer,
    ModifiedResNet,
    CLIP,
):
    _one.__module__ = "clip.model"


def openai_clip(visual: str = "ViT") -> Any:
    """A small random model of that package: its ViT, or its ResNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if visual == "ViT":
            return CLIP(VisionTransformer(32, 8, 128, 3, 2, 32)).eval()
        return CLIP(ModifiedResNet(64, 16, 32)).eval()
