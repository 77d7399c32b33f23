"""Methods: how a pretrained model becomes trainable, and how the result is kept.

A method is a function from a copy of the pretrained CLIP to what is trained. The pretrained
model itself is never touched. `METHODS` is the whole plug point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from driftscope.config import FullFineTuning, Lora
from driftscope.errors import ModelError
from driftscope.models import (
    ADAPTED_FILE,
    DELTA_FILE,
    VisionLanguageModel,
    encoder_fingerprint,
    is_encoder_weight,
    merged,
)

CLASSIFIER_FILE = "classifier.safetensors"
LORA_TARGET_MODULES = {
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    **{name: f"mlp.{name}" for name in ("fc1", "fc2")},
}


@dataclass(frozen=True)
class AdaptedModel:
    """A model in training: its live encoder and the linear classifier on its embedding."""

    model: VisionLanguageModel
    classifier: nn.Linear

    def logits(self, pixels: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image class"]:
        """Class logits from the unnormalised projected embedding, through the live path."""
        return self.classifier(self.model.image_embeddings(pixels))  # type: ignore[no-any-return]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that is optimised, by a name that survives a save and a reload."""
        encoder = {
            f"clip.{name}": parameter
            for name, parameter in self.model.clip.named_parameters()
            if parameter.requires_grad
        }
        head = {f"classifier.{name}": tensor for name, tensor in self.classifier.named_parameters()}
        return encoder | head

    def num_parameters(self) -> dict[str, int]:
        """Counts: trainable, and in total (both towers, adapter and classifier)."""
        everything = [
            parameter
            for name, parameter in self.model.clip.named_parameters()
            if "original_module" not in name  # peft keeps the frozen twin of what it trains whole
        ]
        return {
            "trainable": sum(parameter.numel() for parameter in self.trainable().values()),
            "total": sum(p.numel() for p in [*everything, *self.classifier.parameters()]),
        }


def adapt(
    pretrained: VisionLanguageModel,
    method: FullFineTuning | Lora,
    num_classes: int,
    seed: int,
) -> AdaptedModel:
    """A trainable copy of the pretrained model with a fresh classifier.

    The encoder equals the pretrained one at this point; the random parts (classifier, LoRA's A)
    come from `seed` alone, and the global random state is left as it was.
    """
    copy = replace(pretrained, clip=deepcopy(pretrained.clip))
    copy.clip.requires_grad_(False)
    with seeded(pretrained.device, seed, "initialisation"):
        classifier = nn.Linear(pretrained.embedding_dim, num_classes).to(pretrained.device)
        model = METHODS[method.kind](copy, method)
    return AdaptedModel(model, classifier)


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[None]:
    """A stretch of code whose global randomness comes from `parts` alone; restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(*parts))
        yield


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, unrelated to that of any other: a hash of the parts."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _full_ft(model: VisionLanguageModel, _method: Any) -> VisionLanguageModel:
    for name, parameter in model.clip.named_parameters():
        parameter.requires_grad_(is_encoder_weight(name))
    return model


def _lora(model: VisionLanguageModel, method: Lora) -> VisionLanguageModel:
    from peft import LoraConfig, get_peft_model

    leaves = "|".join(LORA_TARGET_MODULES[target].replace(".", r"\.") for target in method.targets)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        # a bare list of names would hit the text tower too
        target_modules=rf"vision_model\.encoder\.layers\.\d+\.({leaves})",
        modules_to_save=["visual_projection"] if method.train_projection else None,
    )
    wrapped = get_peft_model(model.clip, config)
    wrapped.peft_config["default"].base_model_name_or_path = model.source
    return replace(model, clip=wrapped)


METHODS: dict[str, Callable[[VisionLanguageModel, Any], VisionLanguageModel]] = {
    "full_ft": _full_ft,
    "lora": _lora,
}


# ---------------------------------------------------------------- keeping what was learned


def trainable_state(adapted: AdaptedModel) -> dict[str, Tensor]:
    """A copy of every optimised tensor: all that differs from the pretrained model."""
    return {name: tensor.detach().clone().cpu() for name, tensor in adapted.trainable().items()}


def restore_trainable(adapted: AdaptedModel, state: dict[str, Tensor]) -> None:
    """Puts a `trainable_state` back.

    Raises:
        ModelError: the state belongs to another method or model.
    """
    targets = adapted.trainable()
    if targets.keys() != state.keys():
        odd = sorted(targets.keys() ^ state.keys())[0]
        raise ModelError(f"the saved weights belong to another method or model: {odd} differs")
    with torch.no_grad():
        for name, parameter in targets.items():
            parameter.copy_(state[name])


def save_adapted(adapted: AdaptedModel, pretrained: VisionLanguageModel, folder: Path) -> None:
    """Writes the adapted encoder and classifier so that `models.load(folder)` gives it back.

    An adapter becomes a PEFT folder, anything else the tensors that were trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapted.model.is_adapter:
        adapted.model.clip.save_pretrained(str(folder))  # type: ignore[operator]
    else:
        delta = {
            name.removeprefix("clip."): tensor
            for name, tensor in trainable_state(adapted).items()
            if name.startswith("clip.")
        }
        save_file(delta, folder / DELTA_FILE)
    save_file(
        {name: tensor.detach().cpu() for name, tensor in adapted.classifier.state_dict().items()},
        folder / CLASSIFIER_FILE,
    )
    origin = {"base": pretrained.source, "base_fingerprint": encoder_fingerprint(pretrained)}
    (folder / ADAPTED_FILE).write_text(json.dumps(origin, indent=1), encoding="utf-8")


def load_classifier(folder: Path) -> nn.Linear:
    """The linear classifier saved beside an adapted encoder."""
    state = load_file(folder / CLASSIFIER_FILE)
    classes, dim = state["weight"].shape
    classifier = nn.Linear(dim, classes)
    classifier.load_state_dict(state)
    return classifier


def export_merged(model: VisionLanguageModel, folder: Path) -> None:
    """Writes a plain CLIPModel folder in hub layout that transformers loads, adapters merged in."""
    merged(model).clip.save_pretrained(str(folder))  # type: ignore[operator]
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(str(folder))
    side = {"height": model.image_size, "width": model.image_size}
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": model.image_size},
        "resample": 3,  # PIL's bicubic
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.mean),
        "image_std": list(model.std),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
