"""What zero-shot ability is left: classification through the live, adapter-aware encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from driftscope.data import labelled, open_dataset
from driftscope.data.prompts import class_prompts
from driftscope.models import VisionLanguageModel
from driftscope.models.capture import check_adapters_in_effect


@dataclass(frozen=True)
class ZeroShotScore:
    """Zero-shot top-1 accuracy in percent with its 95 % Wilson interval and image count."""

    name: str
    num_correct: int
    num_images: int
    accuracy_pct: float
    wilson_low_pct: float
    wilson_high_pct: float

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self)


def score(name: str, num_correct: int, num_images: int) -> ZeroShotScore:
    """The accuracy of a count, with its interval (Wilson 1927, by scipy).

    Raises:
        ValueError: `num_images` is not positive.
    """
    interval = binomtest(num_correct, num_images).proportion_ci(method="wilson")
    return ZeroShotScore(
        name=name,
        num_correct=num_correct,
        num_images=num_images,
        accuracy_pct=100 * num_correct / num_images,
        wilson_low_pct=100 * float(interval.low),
        wilson_high_pct=100 * float(interval.high),
    )


def class_embeddings(
    model: VisionLanguageModel, class_names: Sequence[str]
) -> Float[Tensor, "class dim"]:
    """Normalised text embeddings of the class prompts; from the pretrained model, computed once."""
    return functional.normalize(model.embed_texts(class_prompts(class_names)), dim=-1)


def zero_shot(
    model: VisionLanguageModel,
    pixels: UInt8[Tensor, "image 3 height width"],
    labels: Int64[Tensor, "image"],
    text_embeddings: Float[Tensor, "class dim"],
    name: str,
    batch_size: int = 64,
) -> ZeroShotScore:
    """Top-1 zero-shot accuracy of the model's live image path against given class embeddings.

    Raises:
        CaptureError: an adapter is there but not in effect (the score would be the base's).
    """
    check_adapters_in_effect(model.clip)
    embeddings = functional.normalize(model.embed_images(pixels, batch_size), dim=-1)
    predicted = (embeddings @ text_embeddings.T).argmax(dim=-1).cpu()
    return score(name, int(torch.sum(predicted == labels)), len(labels))


def retention_pct(adapted: ZeroShotScore, pretrained: ZeroShotScore) -> float | None:
    """100 × adapted / pretrained accuracy, in percent; None where the pretrained score is 0."""
    if pretrained.num_correct == 0:
        return None
    return 100 * adapted.accuracy_pct / pretrained.accuracy_pct


@dataclass(frozen=True)
class TransferSet:
    """A zero-shot benchmark in memory, with its class embeddings from the frozen text tower."""

    name: str
    fingerprint: str
    pixels: UInt8[Tensor, "image 3 size size"]
    labels: Int64[Tensor, "image"]
    text_embeddings: Float[Tensor, "class dim"]

    def score(self, model: VisionLanguageModel) -> ZeroShotScore:
        """The model's zero-shot accuracy on it."""
        return zero_shot(model, self.pixels, self.labels, self.text_embeddings, self.name)


def transfer_set(
    name: str, pretrained: VisionLanguageModel, max_images: int | None = None
) -> TransferSet:
    """A labeled dataset's test split as a zero-shot benchmark of the pretrained model.

    Args:
        name: a dataset's name or folder.
        pretrained: whose text tower reads the class prompts, and whose input size the images get.
        max_images: the first so many images; None for all.

    Raises:
        DataError: no such dataset, or one without labels.
    """
    images = open_dataset(name, "test")
    labels, class_names = labelled(images)
    indices = torch.arange(min(len(images), max_images or len(images)))
    return TransferSet(
        name=name,
        fingerprint=images.fingerprint,
        pixels=images.pixels(indices, pretrained.image_size),
        labels=labels[indices],
        text_embeddings=class_embeddings(pretrained, class_names),
    )
