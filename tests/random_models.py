"""Randomly initialised encoders of real and tiny geometry, for tests without a download."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 56,
    "patch_size": 8,
}
TINY_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 100,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
# Width, heads, image size and patch of the published towers; depth is each test's to choose.
GEOMETRIES = {
    "B/32": {"hidden_size": 768, "num_attention_heads": 12, "image_size": 224, "patch_size": 32},
    "B/16": {"hidden_size": 768, "num_attention_heads": 12, "image_size": 224, "patch_size": 16},
    "L/14": {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 224, "patch_size": 14},
    "L/14-336": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
}


def random_clip(seed: int = 0, sharpness: float = 4.0, **vision: Any) -> CLIPModel:
    """A CLIPModel with random weights, whose attention is far from uniform.

    Freshly initialised CLIPs attend almost uniformly, which would hide mistakes: query and key
    weights are scaled up by `sharpness`.
    """
    config = CLIPConfig(vision_config={**TINY, **vision}, text_config=TINY_TEXT, projection_dim=32)
    model = build(CLIPModel, config, seed)
    sharpen(model, sharpness)
    return model


def build(model_class: Any, config: Any, seed: int = 0) -> Any:
    """A model from its configuration, in eval mode, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def sharpen(model: torch.nn.Module, sharpness: float) -> None:
    """Scales the query and key weights of every attention, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "query.weight", "key.weight")):
                parameter.mul_(sharpness)


def random_pixels(num_images: int, size: int = 56, seed: int = 1) -> Tensor:
    """Uint8 images of smooth random colour fields: unlike noise, they differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, 3, 4, 4, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (fields * 255).to(torch.uint8)


def normalised(pixels: Tensor) -> Tensor:
    """Floats as a bare module wants them, with mean and deviation 0.5."""
    return (pixels.float() / 255 - 0.5) / 0.5
