"""What the monitor's tests share: tiny models in training, and histories without any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

import driftscope as ds
from driftscope.monitor import Observation
from driftscope.reading import Drift

QV = r".*vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
WORDS = ["a photo of a red", "a photo of a green", "a photo of a blue"]
# Scalars of one model, its adapter merged and not: one rounding of a float32 mean is 1.2e-5 of a
# percent change, and merging rounds a few times.
MERGING_ROUNDS = 1e-4


def clip_of(folder: Path, **config: Any) -> nn.Module:
    """A CLIPModel in training mode, as a user's own code loads it."""
    from transformers import CLIPModel

    clip: nn.Module = CLIPModel.from_pretrained(folder, **config)
    return clip.train()


def with_lora(model: nn.Module, dropout: float = 0.0, **options: Any) -> nn.Module:
    wrapped: nn.Module = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=QV, r=4, lora_dropout=dropout, **options)
    )
    return wrapped.train()


def moved(model: nn.Module, share: float = 0.3, seed: int = 1) -> nn.Module:
    """The model after all that is trainable of its image side has been pushed somewhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("vision" in name or "visual" in name):
                spread = parameter.std(correction=0).clamp_min(0.05)
                parameter.add_(share * spread * torch.randn(parameter.shape, generator=generator))
    return model


class Classifier(nn.Module):
    """A model of one's own: an encoder and a head."""

    def __init__(self, encoder: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings = self.encoder.get_image_features(pixel_values=pixels).pooler_output
        logits: Tensor = self.head(self.dropout(embeddings))
        return logits


def monitor_of(folder: Path, images: Any, **options: Any) -> ds.Monitor:
    """A silent monitor."""
    return ds.Monitor(folder, images, **{"vocabulary": None, "echo": None, **options})


DRIFT = Drift(
    num_images=8,
    delta_entropy_pct=1.0,
    delta_erf95_pct=1.0,
    delta_gini_pct=1.0,
    delta_head_diversity_pct=1.0,
    delta_entropy_pct_per_layer=[1.0] * 6,
    delta_erf95_pct_per_layer=[1.0] * 6,
    delta_gini_pct_per_layer=[1.0] * 6,
    delta_head_diversity_pct_per_layer=[1.0] * 6,
    cka=0.9,
    cka_per_block=[0.9] * 6,
    cka_debiased=0.9,
    cka_debiased_per_block=[0.9] * 6,
    embedding_drift=0.1,
)


def observed(
    step: int, accuracy: float | None = None, retention: float | None = None, **drift: float
) -> Observation:
    transfer = {"set": {"accuracy_pct": retention, "retention_pct": retention}}
    return Observation(
        step=step,
        epoch=None,
        val_accuracy_pct=accuracy,
        drift=replace(DRIFT, **drift),
        transfer={} if retention is None else transfer,
    )
