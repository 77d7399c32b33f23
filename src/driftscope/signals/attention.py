"""Where a ViT's attention goes: entropy, effective receptive field, Gini, head diversity, rollout.

A *row* is one query's attention over the N patch tokens: non-negative, summing to 1, with the CLS
token (and registers, where there are any) removed and the rest renormalised. All functions take
float32 rows (or any float type) and accumulate in float64, because sums over hundreds of patches
and thousands of images would otherwise depend on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NATS_PER_BIT = math.log(2.0)

# A float32 row knows its own mass to about this much; a cumulative mass this close to p has reached
# it. Without the slack, ERF of a uniform row would depend on how 1/N happens to round.
_MASS_RESOLUTION = 1e-7


def entropy(rows: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row"]:
    """Shannon entropy of each row, in nats, in [0, ln N].

    −Σ a ln a with 0·ln 0 = 0. ln N for a uniform row, 0 for a one-hot row or a single patch.
    Divide by ln 2 (`entropy_bits`) for bits. Source: paper, equation 1.
    """
    mass = rows.double()
    # Exactly one-hot rows would give −0.0.
    nats: Tensor = -torch.special.xlogy(mass, mass).sum(dim=-1) + 0.0
    return nats


def entropy_bits(rows: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row"]:
    """Shannon entropy of each row, in bits, in [0, log2 N]: `entropy` / ln 2."""
    return entropy(rows) / NATS_PER_BIT


def erf(rows: Float[Tensor, "*row patch"], p: float = 0.95) -> Float[Tensor, "*row"]:
    """Effective receptive field of each row, a fraction of the patches, in [1/N, 1].

    The smallest k/N such that the k largest weights hold at least the share p of the row's mass.
    Mass is compared to float32 resolution (1e-7), so ties at p do not depend on rounding. A step
    function: one row's value moves in steps of 1/N. Source: paper, section 3.2.

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0.0 < p <= 1.0:
        raise ValueError(f"The attention mass p must be in (0, 1], got {p}.")
    cumulative = _descending_cumulative(rows)
    short_of_p = cumulative < (p - _MASS_RESOLUTION) * cumulative[..., -1:]
    return (short_of_p.sum(dim=-1) + 1).double() / cumulative.shape[-1]


def gini(rows: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row"]:
    """Gini coefficient of each row, dimensionless, in [0, (N−1)/N].

    2 Σ i·x₍ᵢ₎ / (N Σ x) − (N+1)/N with x ascending and i from 1. 0 for a uniform row or a single
    patch, (N−1)/N for a one-hot row.
    """
    # With C the descending running sums, Σ i·x₍ᵢ₎ (ascending) = Σ C.
    cumulative = _descending_cumulative(rows)
    num_patches = cumulative.shape[-1]
    share = cumulative.sum(dim=-1) / cumulative[..., -1]
    return (2.0 * share / num_patches - (num_patches + 1) / num_patches).clamp_min(0.0)


def _descending_cumulative(rows: Tensor) -> Tensor:
    """Running sums of each row's weights, the largest first, in float64."""
    return rows.sort(dim=-1, descending=True).values.cumsum(dim=-1, dtype=torch.float64)


def head_diversity(rows: Float[Tensor, "*image head patch"]) -> Float[Tensor, "*image"]:
    """How differently the heads of one layer look at one image, in [0, 1].

    Mean over head pairs of 1 − cosine between the heads' rows. 0 where all heads agree, 1 where no
    two heads share a patch; 0 by definition for a single head, which has no pair. Average over
    images for the layer's value. Source: paper, section 3.2.
    """
    num_heads = rows.shape[-2]
    if num_heads == 1:
        return torch.zeros(rows.shape[:-2], dtype=torch.float64, device=rows.device)
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    # ‖Σ u‖² = H + Σ_{pairs, ordered} cos: the mean cosine without the H×H matrix.
    summed_cosines = unit.sum(dim=-2).square().sum(dim=-1) - num_heads
    return (1.0 - summed_cosines / (num_heads * (num_heads - 1))).clamp_min(0.0)


@torch.no_grad()
def head_mean_and_patch_entropy(
    query: Float[Tensor, "image head token dim"],
    key: Float[Tensor, "image head token dim"],
    scaling: float,
    num_prefix: int = 1,
) -> tuple[Float[Tensor, "image token token"], Float[Tensor, "image head"]]:
    """The head-averaged attention map and the patch-to-patch entropy (bits) of one layer.

    Works through the heads one at a time in float32 buffers of image × token², so the layer's full
    map (heads times larger) never exists. Patch-to-patch entropy is the mean, over the patches, of
    the entropy of a patch's attention to patches, renormalised (paper, section 4.3). It is taken
    from the logits z as ln Σe^z − Σ z e^z / Σe^z: one exponential an entry and no logarithm.
    Exponentials are taken relative to each query's largest patch logit: nothing is lost where the
    prefix tokens draw almost all attention.

    Args:
        query, key: as the attention function receives them, unscaled.
        scaling: what the logits are multiplied by.
        num_prefix: tokens before the patches (CLS, then registers); 0 where there are none.

    Returns:
        The mean over heads of the attention map, float32, and the mean over patch queries of the
        patch-to-patch entropy of every head, bits, float32; 0 where there is a single patch.
    """
    num_images, num_heads, num_tokens, _ = query.shape
    map_shape = (num_images, num_tokens, num_tokens)
    head_mean = query.new_zeros(map_shape, dtype=torch.float32)
    of_prefix, of_patches = head_mean[..., :num_prefix], head_mean[..., num_prefix:]
    logits, weights = torch.empty_like(of_patches), torch.empty_like(of_patches)
    entropies = []
    for head in range(num_heads):
        scaled_query = query[:, head].float() * scaling
        keys = key[:, head].float().transpose(-1, -2)
        torch.matmul(scaled_query, keys[..., num_prefix:], out=logits)
        largest = logits.amax(dim=-1, keepdim=True)
        logits -= largest
        torch.exp(logits, out=weights)
        mass = weights.sum(dim=-1, keepdim=True)

        # The softmax over all keys, relative to the largest logit of all of them.
        prefix_logits = scaled_query @ keys[..., :num_prefix] - largest
        excess = torch.zeros_like(largest)
        if num_prefix:
            excess = prefix_logits.amax(dim=-1, keepdim=True).clamp_min(0.0)
        prefix_weights, patch_factor = (prefix_logits - excess).exp(), (-excess).exp()
        total = mass * patch_factor + prefix_weights.sum(dim=-1, keepdim=True)
        of_prefix += prefix_weights / total
        of_patches.addcmul_(weights, patch_factor / total)

        logits *= weights
        nats = mass.log() - logits.sum(dim=-1, keepdim=True) / mass
        entropies.append(nats[:, num_prefix:, 0].clamp_min(0.0).mean(dim=-1))
    return head_mean.div_(num_heads), torch.stack(entropies, dim=-1) / NATS_PER_BIT


def rollout_step(
    product: Float[Tensor, "image token token"] | None,
    head_mean: Float[Tensor, "image token token"],
) -> Float[Tensor, "image token token"]:
    """The rollout product with one more layer: (½·head_mean + ½·I) @ product.

    Call from the first layer up, with None for the product before it. Source: Abnar & Zuidema 2020.
    """
    layer = 0.5 * head_mean
    layer.diagonal(dim1=-2, dim2=-1).add_(0.5)
    return layer if product is None else layer @ product


def rollout_row(
    product: Float[Tensor, "image token token"], num_prefix: int = 1
) -> Float[Tensor, "image patch"]:
    """The CLS row of a rollout product over the patches, renormalised to sum 1.

    All zero where nothing flows from any patch to the CLS token: there is no row then.
    """
    return _renormalised(product[:, 0, num_prefix:])


def mean_rollout_row(
    product: Float[Tensor, "image token token"], num_prefix: int
) -> Float[Tensor, "image patch"]:
    """The same of the patches' mean row, for an embedding that is their mean."""
    return _renormalised(product[:, num_prefix:, num_prefix:].mean(dim=1))


def _renormalised(rows: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row patch"]:
    """Rows divided by their sums; a row without mass stays all zero."""
    mass = rows.sum(dim=-1, keepdim=True)
    return torch.where(mass > 0, rows / mass.clamp_min(torch.finfo(rows.dtype).tiny), 0.0)


def subset_coefficient_of_variation(
    values: Float[Tensor, " image"], subsets: Sequence[Sequence[int]], ddof: int = 0
) -> float:
    """Relative spread of a signal's mean between subsets of the probe set, in [0, ∞).

    Standard deviation of the subsets' means divided by the absolute value of their mean. 0 where
    the means are equal (with one subset and ddof 0 they are); infinite where they differ around 0.

    Args:
        values: the signal of each image (averaged over layers and heads, say).
        subsets: the image indices of each subset.
        ddof: 0 divides by the number of subsets, as published (paper, table 2); 1 by one less.

    Raises:
        ValueError: a subset is empty, or there are not more subsets than ddof.
    """
    if len(subsets) <= ddof or any(len(subset) == 0 for subset in subsets):
        raise ValueError(
            f"The spread between subsets needs more than {ddof} subsets, none of them empty, got "
            f"subsets of {[len(subset) for subset in subsets]} images."
        )
    means = torch.stack([values.double()[list(subset)].mean() for subset in subsets])
    spread, centre = means.std(correction=ddof).item(), abs(means.mean().item())
    if spread == 0.0:
        return 0.0
    return spread / centre if centre > 0.0 else float("inf")
