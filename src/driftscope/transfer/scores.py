"""Scores on labeled images: accuracy, its interval, what is retained, and where images went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.calibration import expected_calibration_error_pct

TOP = 5
BESIDE_RETENTION = (
    "above_chance_pct",
    "pretrained_accuracy_pct",
    "pretrained_low_pct",
    "pretrained_high_pct",
    "chance_pct",
    "constant_pct",
    "ece_pct",
    "pretrained_ece_pct",
    "ece_change_points",
    "doubts",
    "notes",
)
"""What a score says besides its retention: what it is a share of, its calibration, its doubts."""
_MOST_FLOWS = 20


@dataclass(frozen=True)
class ZeroShotScore:
    """Zero-shot top-1 accuracy in percent with its 95 % Wilson interval and image count.

    `top5_pct` counts images whose class is among the five likeliest (all, where there are
    fewer classes); `mean_per_class_pct` is the mean of the classes' accuracies, over classes
    that have images; `per_class_correct` and `per_class_images` are in label order. None and
    empty for a score that is only a count.
    """

    name: str
    num_correct: int
    num_images: int
    accuracy_pct: float
    wilson_low_pct: float
    wilson_high_pct: float
    top5_pct: float | None = None
    mean_per_class_pct: float | None = None
    ece_pct: float | None = None
    per_class_correct: tuple[int, ...] = ()
    per_class_images: tuple[int, ...] = ()

    @property
    def chance_pct(self) -> float:
        """What guessing scores on average: 100 / classes; 0 where the classes are not known."""
        return 100 / len(self.per_class_images) if self.per_class_images else 0.0

    @property
    def constant_pct(self) -> float:
        """The most that one answer to every image scores, as a model without a view gives it."""
        return 100 * max(self.per_class_images, default=0) / self.num_images

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A score with the class that each image was given, in percent and label numbers."""

    score: ZeroShotScore
    predicted: Int64[Tensor, " image"]


def score(name: str, num_correct: int, num_images: int) -> ZeroShotScore:
    """The accuracy of a count, with its interval.

    Raises:
        ValueError: `num_images` is not positive.
    """
    low, high = wilson_interval_pct(num_correct, num_images)
    return ZeroShotScore(
        name=name,
        num_correct=num_correct,
        num_images=num_images,
        accuracy_pct=100 * num_correct / num_images,
        wilson_low_pct=low,
        wilson_high_pct=high,
    )


def outcome_of(
    embeddings: Float[Tensor, "image dim"],
    labels: Int64[Tensor, " image"],
    text_embeddings: Float[Tensor, "class dim"],
    name: str,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> Outcome:
    """The score and predicted classes of image embeddings that are there already.

    Args:
        embeddings: of any length; normalised where a logit scale is given.
        labels: the images' classes.
        text_embeddings: the classes'.
        name: of the set.
        logit_scale: the factor on cosines in the model's logits; None for no calibration.
        logit_bias: of a model whose logits go through a sigmoid; None for a softmax.
    """
    similarities = _similarities(embeddings, text_embeddings)
    probabilities = None
    if logit_scale is not None:
        logits = logit_scale * similarities.double()
        if logit_bias is None:
            probabilities = logits.softmax(dim=-1)
        else:
            probabilities = (logits + logit_bias).sigmoid()
    return outcome_of_scores(similarities, labels, name, probabilities)


def outcome_of_scores(
    similarities: Float[Tensor, "image class"],
    labels: Int64[Tensor, " image"],
    name: str,
    probabilities: Float[Tensor, "image class"] | None = None,
) -> Outcome:
    """The score and predicted classes where every image has a number for every class.

    With the model's `probabilities` of the classes also its calibration error.
    """
    # ties go to the lowest class number, as argmax breaks them; topk promises nothing
    predicted = similarities.argmax(dim=-1).cpu()
    num_classes = similarities.shape[1]
    likeliest = similarities.topk(min(TOP, num_classes), dim=-1)
    is_among = (likeliest.indices.cpu() == labels[:, None]) & likeliest.values.cpu().isfinite()
    correct = predicted == labels
    ece = None
    if probabilities is not None:
        ece = expected_calibration_error_pct(probabilities.cpu(), correct)
    images = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[correct], minlength=num_classes)
    counted = score(name, int(correct.sum()), len(labels))
    seen = images > 0
    return Outcome(
        ZeroShotScore(
            **{
                **asdict(counted),
                "top5_pct": 100 * float(is_among.any(dim=1).double().mean()),
                "mean_per_class_pct": 100 * float((hits[seen] / images[seen].double()).mean()),
                "ece_pct": ece,
                "per_class_correct": tuple(hits.tolist()),
                "per_class_images": tuple(images.tolist()),
            }
        ),
        predicted,
    )


def _similarities(
    embeddings: Float[Tensor, "image dim"], texts: Float[Tensor, "class dim"]
) -> Float[Tensor, "image class"]:
    """Of every image to every class; equal texts have equal ones, which rounding would tell apart.

    Of classes with equal texts all but the first are as far as can be: they are one class.
    """
    first: dict[bytes, int] = {}
    rows = texts.cpu().numpy()
    is_first = [first.setdefault(row.tobytes(), at) == at for at, row in enumerate(rows)]
    similarities = embeddings @ texts.to(embeddings.device).T
    return similarities.masked_fill(~torch.tensor(is_first, device=embeddings.device), -torch.inf)


def share_kept_pct(adapted: float, pretrained: float) -> float:
    """100 × adapted / pretrained, in percent: exactly 100 of equal ones."""
    return 100 * (adapted / pretrained)


def retention_pct(adapted: ZeroShotScore, pretrained: ZeroShotScore) -> float | None:
    """100 × adapted / pretrained accuracy, in percent.

    None where the pretrained score is 0, or its interval reaches chance: there is no ability of
    which a share could be left.
    """
    if pretrained.num_correct == 0 or pretrained.wilson_low_pct <= pretrained.chance_pct:
        return None
    return share_kept_pct(adapted.accuracy_pct, pretrained.accuracy_pct)


def above_chance_pct(adapted: ZeroShotScore, pretrained: ZeroShotScore) -> float | None:
    """100 × (adapted − chance) / (pretrained − chance): 0 for a model that guesses.

    None where `retention_pct` is.
    """
    if retention_pct(adapted, pretrained) is None:
        return None
    chance = pretrained.chance_pct
    return share_kept_pct(adapted.accuracy_pct - chance, pretrained.accuracy_pct - chance)


def per_class_retention(
    adapted: ZeroShotScore, pretrained: ZeroShotScore, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Which classes were forgotten: a row a class with images, the most forgotten first.

    `retention_pct` is None where the pretrained model had none of the class right; those come
    last.
    """
    rows = []
    for label, name in enumerate(class_names):
        images = pretrained.per_class_images[label]
        before, after = pretrained.per_class_correct[label], adapted.per_class_correct[label]
        if images:
            rows.append(
                {
                    "class": name,
                    "num_images": images,
                    "pretrained_pct": 100 * before / images,
                    "adapted_pct": 100 * after / images,
                    "retention_pct": share_kept_pct(after, before) if before else None,
                }
            )
    return sorted(
        rows, key=lambda row: (row["retention_pct"] is None, row["retention_pct"], row["class"])
    )


def confusion_flows(
    adapted: Outcome,
    pretrained: Outcome,
    labels: Int64[Tensor, " image"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Where images went: of those that the pretrained model had right, which class now has them.

    Returns:
        `num_lost` (right before, wrong after), `num_gained` (the other way), and `lost_to`: the
        largest flows, each with its class, the class it is now taken for, and the images.
    """
    was_right = pretrained.predicted == labels
    is_right = adapted.predicted == labels
    lost = was_right & ~is_right
    flows = Counter(zip(labels[lost].tolist(), adapted.predicted[lost].tolist(), strict=True))
    largest = sorted(flows.items(), key=lambda flow: (-flow[1], flow[0]))[:_MOST_FLOWS]
    return {
        "num_lost": int(lost.sum()),
        "num_gained": int((is_right & ~was_right).sum()),
        "lost_to": [
            {"class": class_names[one], "taken_for": class_names[other], "num_images": count}
            for (one, other), count in largest
        ],
    }
