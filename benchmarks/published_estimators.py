"""Published label-free estimators of accuracy, each over its value for the pretrained model.

`estimators.py` sets them against `driftscope.signals.label_free.estimated_retention_pct`. Functions
take zero-shot distributions [image, class] (rows sum to one) of the same images.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment, minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

_MOST_TEMPERATURE = 20.0


def confidence_ratio_pct(
    pretrained: Float[Tensor, "image class"], adapted: Float[Tensor, "image class"]
) -> float:
    """Average confidence (AC) of the adapted model over that of the pretrained one, in percent."""
    return 100 * float(adapted.amax(dim=1).mean() / pretrained.amax(dim=1).mean())


def difference_of_confidences_pct(
    pretrained: Float[Tensor, "image class"],
    adapted: Float[Tensor, "image class"],
    pretrained_accuracy: float,
) -> float:
    """DoC (Guillory et al. 2021), in percent: accuracy falls by as much as mean confidence does.

    Args:
        pretrained, adapted: zero-shot distributions.
        pretrained_accuracy: the pretrained model's accuracy on a labeled sample, in (0, 1].
    """
    fall = float(pretrained.amax(dim=1).mean() - adapted.amax(dim=1).mean())
    return 100 * ((pretrained_accuracy - fall) / pretrained_accuracy)


def thresholded_confidence_pct(
    pretrained: Float[Tensor, "image class"],
    adapted: Float[Tensor, "image class"],
    pretrained_accuracy: float | None = None,
) -> float:
    """ATC (Garg et al. 2022), in percent: the share of images above a confidence, over the same.

    The threshold is where the pretrained model's share is its accuracy: that of a labeled sample,
    or without one its mean confidence.
    """
    before, after = pretrained.amax(dim=1), adapted.amax(dim=1)
    accuracy = float(before.mean()) if pretrained_accuracy is None else pretrained_accuracy
    threshold = torch.quantile(before, 1 - accuracy)
    return 100 * float((after >= threshold).sum() / (before >= threshold).sum())


def transport_pct(
    pretrained: Float[Tensor, "image class"], adapted: Float[Tensor, "image class"]
) -> float:
    """COT (Lu et al. 2023), in percent: 1 − transport cost, over that of the pretrained model.

    The cost is that of the optimal transport from a model's distributions to one-hot labels, half
    the L1 distance apiece. The labels' shares are those that the pretrained model names.
    """
    labels = pretrained.argmax(dim=1).numpy()

    def accuracy(distributions: Tensor) -> float:
        cost = 1 - distributions.numpy()[:, labels]  # half the L1 distance to a one-hot label
        return 1 - float(cost[linear_sum_assignment(cost)].mean())

    return 100 * (accuracy(adapted) / accuracy(pretrained))


def fitted_temperature(
    logits: Float[Tensor, "image class"], labels: Int64[Tensor, " image"]
) -> float:
    """The temperature that a labeled sample calls for (Guo et al. 2017): least cross-entropy."""

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits / np.exp(log_temperature), labels))

    end = math.log(_MOST_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=(-end, end), method="bounded").x))
