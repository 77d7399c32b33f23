"""Calibration: whether a model is as often right as it is sure."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NUM_BINS = 15
"""As in the publications that report it for CLIP (CaRot, 2311.01723)."""


def expected_calibration_error_pct(
    probabilities: Float[Tensor, "image class"], is_right: Bool[Tensor, " image"]
) -> float:
    """Mean distance of confidence and accuracy, in percent, in [0, 100].

    Images are put into fifteen bins of equal width by the probability of their likeliest class, the
    upper end of a bin included. A bin's distance is between its mean probability and its share of
    right images, and it counts by its images (Naeini et al. 2015; Guo et al. 2017).

    Args:
        probabilities: a row an image, each sums to one.
        is_right: whether the likeliest class is the image's.
    """
    confidence = probabilities.double().amax(dim=1)
    bins = (confidence * NUM_BINS).ceil().clamp(1, NUM_BINS).long() - 1
    sure = torch.bincount(bins, weights=confidence, minlength=NUM_BINS)
    right = torch.bincount(bins, weights=is_right.double(), minlength=NUM_BINS)
    return 100 * float((sure - right).abs().sum()) / len(confidence)
