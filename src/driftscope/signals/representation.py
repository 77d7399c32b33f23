"""How far features of the same images have moved: CKA, embedding drift, feature distance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from driftscope.errors import CaptureError, NonFiniteError

# Features whose spread over images is below float32 resolution of their size carry rounding noise
# and nothing else. The CKA of such features is 0/0; the published tables contain it as 0.0004.
_CONSTANT_BELOW = 1e-6


def linear_cka(x: Float[Tensor, "image dim"], y: Float[Tensor, "image other_dim"]) -> float:
    """Linear centred kernel alignment of two feature sets of the same images, in [0, 1].

    ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of column-centred features: 1 where one is a rotation, shift or
    scaling of the other. Exact on the whole set (no minibatch estimate), float64. Biased upwards
    where images are few against features: see `linear_cka_debiased`. If one side is constant over
    the images, 0; if both are, 1 (nothing differs). Source: Kornblith et al. 2019.

    Raises:
        CaptureError: the image counts differ, there are fewer than 2 images, or (`NonFiniteError`,
            as for every measure here) features that are not finite.
    """
    x, y = _centred_pair(x, y, at_least=2, measure="CKA")
    degenerate = _degenerate_cka(x, y)
    if degenerate is not None:
        return degenerate
    return min(1.0, float(_cross(x, y) / (_cross(x, x) * _cross(y, y)).sqrt()))


def linear_cka_debiased(
    x: Float[Tensor, "image dim"], y: Float[Tensor, "image other_dim"]
) -> float:
    """Linear CKA from the unbiased HSIC estimator, about 0 for unrelated features, at most 1.

    May be slightly negative. Does not grow with the number of features as the biased one does.
    If one side is constant over the images, 0; if both are, 1. Where a side's own unbiased HSIC
    is not positive (all its images but one are alike) the ratio does not exist, and the biased CKA
    is given. Source: Song et al. 2012 (HSIC₁), Nguyen et al. 2021.

    Raises:
        CaptureError: the image counts differ, or there are fewer than 4 images, where the
            estimator does not exist.
    """
    x, y = _centred_pair(x, y, at_least=4, measure="Debiased CKA")
    degenerate = _degenerate_cka(x, y)
    if degenerate is not None:
        return degenerate
    self_x, self_y = unbiased_hsic(x, x), unbiased_hsic(y, y)
    if self_x <= _noise(x) or self_y <= _noise(y):
        return linear_cka(x, y)
    return unbiased_hsic(x, y) / math.sqrt(self_x * self_y)


def _noise(centred: Tensor) -> float:
    """A self-HSIC below this is rounding, of the size that float64 leaves of the biased one."""
    return 1e-12 * float(_cross(centred, centred)) / centred.shape[0] ** 2


def unbiased_hsic(x: Float[Tensor, "image dim"], y: Float[Tensor, "image other_dim"]) -> float:
    """Unbiased estimate of the HSIC of two feature sets under linear kernels.

    With K̃ = XXᵀ and L̃ = YYᵀ, diagonals set to zero, and n images:
    [tr K̃L̃ + ΣK̃ ΣL̃ / ((n−1)(n−2)) − 2 Σ K̃L̃ / (n−2)] / (n(n−3)). Computed from the features, so
    memory does not grow with n². Source: Song et al. 2012, equation 5.

    Raises:
        CaptureError: the image counts differ, or there are fewer than 4 images.
    """
    # The estimator does not change under shifts; centring spares it cancellation.
    x, y = _centred_pair(x, y, at_least=4, measure="Unbiased HSIC")
    n = x.shape[0]
    diagonal_x, diagonal_y = x.square().sum(dim=1), y.square().sum(dim=1)
    row_sums_x = x @ x.sum(dim=0) - diagonal_x
    row_sums_y = y @ y.sum(dim=0) - diagonal_y
    trace = _cross(x, y) - diagonal_x @ diagonal_y
    between = row_sums_x.sum() * row_sums_y.sum() / ((n - 1) * (n - 2))
    within = 2.0 * (row_sums_x @ row_sums_y) / (n - 2)
    return float((trace + between - within) / (n * (n - 3)))


def embedding_drift(x: Float[Tensor, "image dim"], y: Float[Tensor, "image dim"]) -> float:
    """1 − mean cosine between paired embeddings, in [0, 2].

    0 where no embedding has turned, whatever its length. An all-zero embedding has cosine 0 with
    any other and 1 with another all-zero one.

    Raises:
        CaptureError: the shapes differ or there are no images.
    """
    _check_same_shape(x, y, "embedding drift")
    before, after = x.double(), y.double()
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=1, eps=1e-300)
    both_zero = (before == 0).all(dim=1) & (after == 0).all(dim=1)
    return max(0.0, float(1.0 - cosine.masked_fill(both_zero, 1.0).mean()))


def feature_distance(x: Float[Tensor, "image dim"], y: Float[Tensor, "image dim"]) -> float:
    """Mean over images of the squared L2 distance ‖f − f₀‖², in feature units squared, in [0, ∞).

    Of the features given; LDIFS (Mukhoti et al. 2023, 2308.13320) joins those of several layers.

    Raises:
        CaptureError: the shapes differ or there are no images.
    """
    _check_same_shape(x, y, "feature distance")
    return float((x.double() - y.double()).square().sum(dim=1).mean())


def _cross(x: Tensor, y: Tensor) -> Tensor:
    """‖XᵀY‖²_F, through whichever of the Gram and the cross-covariance form is smaller."""
    if x.shape[0] <= max(x.shape[1], y.shape[1]):
        return ((x @ x.T) * (y @ y.T)).sum()
    return (x.T @ y).square().sum()


def _degenerate_cka(x: Tensor, y: Tensor) -> float | None:
    """The defined value where a side does not vary over the images; None where both do."""
    x_is_constant, y_is_constant = bool((x == 0).all()), bool((y == 0).all())
    if not (x_is_constant or y_is_constant):
        return None
    return 1.0 if x_is_constant and y_is_constant else 0.0


def _centred_pair(x: Tensor, y: Tensor, at_least: int, measure: str) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise CaptureError(
            f"{measure} compares two tables [image, dim] of the same images, got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}."
        )
    if x.shape[0] < at_least:
        raise CaptureError(
            f"{measure} needs at least {at_least} images, got {x.shape[0]}; probe more images."
        )
    _check_finite(x, y, measure)
    return _centred(x), _centred(y)


def _centred(features: Tensor) -> Tensor:
    """Features minus their mean over images, float64; exactly zero where only noise is left."""
    features = features.double()
    centred = features - features.mean(dim=0, keepdim=True)
    if centred.norm() <= _CONSTANT_BELOW * features.norm():
        return torch.zeros_like(centred)
    return centred


def _check_same_shape(x: Tensor, y: Tensor, measure: str) -> None:
    if x.shape != y.shape or x.ndim != 2 or x.shape[0] == 0:
        raise CaptureError(
            f"The {measure} compares two tables [image, dim] of one shape, got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}."
        )
    _check_finite(x, y, measure)


def _check_finite(x: Tensor, y: Tensor, measure: str) -> None:
    """NaN must not pass as 'unchanged' through a comparison or a clamp."""
    for which, features in (("first", x), ("second", y)):
        if not bool(torch.isfinite(features).all()):
            raise NonFiniteError(
                f"{measure} cannot be taken: the {which} features hold NaN or infinite values; "
                "the model they come from is broken."
            )
