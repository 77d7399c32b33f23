"""Whether a classifier on frozen features was trained long enough to be worth its name."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.features import NUM_NEIGHBOURS, knn_scores


def not_converged(
    correct: int,
    images: Float[Tensor, "image dim"],
    labels: Int64[Tensor, " image"],
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int64[Tensor, " bank"],
) -> str:
    """Why a classifier is not the linear probe that it is called; "" where it may well be.

    A linear classifier that has converged is seldom below nearest neighbours in the same features.
    They need no training, so whatever is surely below them was trained too little.

    Args:
        correct: how many of the images it has right.
        images, labels: that it was not trained on.
        bank, bank_labels: that it was trained on.
    """
    num_classes = int(max(labels.max(), bank_labels.max())) + 1
    votes = knn_scores(images, bank, bank_labels, num_classes)
    by_votes = int((votes.argmax(dim=1) == labels.cpu()).sum())
    ours, theirs = (wilson_interval_pct(one, len(labels)) for one in (correct, by_votes))
    if ours[1] >= theirs[0]:
        return ""
    own, near = (f"{100 * one / len(labels):.1f} %" for one in (correct, by_votes))
    return (
        f"the classifier seems not to have converged: it has {own} of {len(labels)} validation "
        f"images right, where the {NUM_NEIGHBOURS} nearest neighbours in the same features have "
        f"{near}; give a learning rate ten or a hundred times as high, or more epochs"
    )
