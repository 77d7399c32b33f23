"""What was learned: how well images are told apart by their own classes, before and after."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.features import neighbour_votes

MIN_PER_CLASS = 5
"""Images that a class must have on average: with fewer, no neighbour of the same class is near."""


def own_classes(
    labels: Int64[Tensor, " image"] | None,
    before: Float[Tensor, "image dim"] | None,
    after: Float[Tensor, "image dim"] | None,
) -> dict[str, Any] | None:
    """Of how many images their nearest neighbours among the others tell the class, per model.

    Each image is left out once, and told by the votes of its 20 nearest (as `knn_scores` has them).
    So nothing is read again, and no classifier is needed: the share rises where training has
    drawn the images of a class together. It is no test accuracy, for the images may be those that
    the model was trained on. Classes of a single image are left out.

    Args:
        labels: the images' classes; None for unlabeled ones.
        before, after: their embeddings by either model.

    Returns:
        The number of images and classes, and of both models the share in percent with its Wilson
        interval. None without labels, with one class, or with too few images a class.
    """
    if labels is None or before is None or after is None or bool((labels < 0).any()):
        return None
    is_shared = torch.bincount(labels) > 1
    kept, num_classes = is_shared[labels], int(is_shared.sum())
    own = (is_shared.cumsum(0) - 1)[labels[kept]]
    if num_classes < 2 or len(own) < MIN_PER_CLASS * num_classes:
        return None
    return {
        "num_images": len(own),
        "num_classes": num_classes,
        "pretrained": _told(before[kept], own),
        "adapted": _told(after[kept], own),
    }


def _told(
    embeddings: Float[Tensor, "image dim"], labels: Int64[Tensor, " image"]
) -> dict[str, float]:
    votes = neighbour_votes(embeddings, embeddings, labels, int(labels.max()) + 1, leave_out=True)
    right = int((votes.argmax(dim=1) == labels.cpu()).sum())
    low, high = wilson_interval_pct(right, len(labels))
    return {
        "accuracy_pct": 100 * right / len(labels),
        "wilson_low_pct": low,
        "wilson_high_pct": high,
    }
