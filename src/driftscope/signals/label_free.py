"""What is left of a model's accuracy, from unlabeled images: the pretrained model is the referee.

Every function takes zero-shot distributions [image, class] (rows sum to one) or chosen classes of
the same images. benchmarks/published_estimators.py sets other estimators against ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from driftscope.errors import CaptureError

TEMPERATURE_SD = 0.25
"""Standard deviation of the logarithm of the temperature at which a pretrained model would be
calibrated: what is not known of the referee (benchmarks/estimators.py shows what it covers)."""
LABEL_SHARE = 0.5
"""Share of the variance of drawn labels that an interval adds: the referee's probabilities are
trusted as if checked on twice as many labeled images (benchmarks/estimators.py shows the cover)."""
_TEMPERATURE_QUANTILES = np.linspace(0.05, 0.95, 10)
_DRAWS_A_TEMPERATURE = 200


def zero_shot_logits(
    images: Float[Tensor, "image dim"], texts: Float[Tensor, "class dim"], logit_scale: float
) -> Float[Tensor, "image class"]:
    """logit_scale · cos(image, text), in float64; softmax gives the zero-shot distribution.

    The softmax is right for sigmoid models (SigLIP), too: of an image that shows exactly one of
    the classes it is the posterior, σ(l)/(1 − σ(l)) being eˡ, and their bias falls out.

    Raises:
        CaptureError: the embeddings' shapes do not fit together, or there are none.
    """
    fits = images.ndim == texts.ndim == 2 and images.shape[1] == texts.shape[1]
    if not fits or 0 in (len(images), len(texts)):
        raise CaptureError(
            "Zero-shot logits need image embeddings [image, dim] and text embeddings [class, dim], "
            f"got shapes {tuple(images.shape)} and {tuple(texts.shape)}."
        )
    return logit_scale * normalize(images.double(), dim=-1) @ normalize(texts.double(), dim=-1).T


def estimated_retention_pct(
    pretrained: Float[Tensor, "image class"], chosen: Int64[Tensor, " image"]
) -> float:
    """100 · Σ p₀ᵢ(ŷᵢ) / Σ max p₀ᵢ, percent, in [0, 100].

    It asks the pretrained model how likely each of the adapted model's choices is. Where p₀ is
    calibrated on these images it is unbiased for retention.
    """
    given = pretrained.gather(1, chosen[:, None]).sum()
    return 100 * float(given / pretrained.amax(dim=1).sum())


def constant_retention_pct(pretrained: Float[Tensor, "image class"]) -> float:
    """What a model that gives one answer to every image would be estimated to keep, at most."""
    return 100 * float(pretrained.sum(dim=0).amax() / pretrained.amax(dim=1).sum())


def information_share(pretrained: Float[Tensor, "image class"]) -> float:
    """Share of the classes' information that a model finds in images, in [0, 1].

    The mutual information of image and class under the model's own distributions, over the most
    that it can be, ln min(images, classes). It is near 0 on noise and on images of other things,
    on which distributions are flat or the same few classes are named, and near 1 on images of all
    classes that the model is sure of.
    """
    mean = pretrained.mean(dim=0)
    told = torch.special.entr(mean).sum() - torch.special.entr(pretrained).sum(dim=1).mean()
    return max(0.0, float(told / math.log(min(pretrained.shape))))


def agreement_pct(first: Int64[Tensor, " image"], second: Int64[Tensor, " image"]) -> float:
    """Images that both models give the same class, in percent.

    Of the pretrained and the adapted model it is an estimate of retention; of two runs that differ
    in their seed one of their accuracy (generalised disagreement equality, Jiang et al. 2022).
    """
    return 100 * float((first == second).double().mean())


@dataclass(frozen=True)
class Spread:
    """How far an estimate may be off, in percent points of retention.

    low_90, high_90, low_95, high_95: ends of its intervals.
    """

    low_90: float
    high_90: float
    low_95: float
    high_95: float


def estimate_spread(
    logits: Float[Tensor, "image class"],
    chosen: Int64[Tensor, " image"],
    *,
    temperature: float = 1.0,
    temperature_sd: float = TEMPERATURE_SD,
    label_share: float = LABEL_SHARE,
    seed: int = 0,
) -> Spread:
    """Intervals of `estimated_retention_pct`: images resampled, the referee's calibration unknown.

    Every draw takes the images anew, with replacement, and one of ten temperatures at equal shares
    of a log-normal distribution around `temperature`. To it comes normal noise with a share of the
    variance that retention has when each image's label is drawn from p₀. It is what keeps the
    interval of a model that has changed few choices from being too sure. The ends are the draws'
    quantiles, in [0, 100].

    Args:
        logits: the pretrained model's, of every image.
        chosen: the adapted model's classes.
        temperature: the one that the referee is taken at.
        temperature_sd: standard deviation of its logarithm; 0 where it is known.
        label_share: share of the variance of drawn labels; 0 where p₀ is right on every image.
        seed: of the draws.
    """
    from scipy.special import ndtri

    count, drawn = len(chosen), []
    rng = np.random.default_rng(seed)
    for factor in np.exp(temperature_sd * ndtri(_TEMPERATURE_QUANTILES)):
        distribution = (logits / (temperature * factor)).softmax(dim=1)
        given = distribution.gather(1, chosen[:, None])[:, 0].numpy()
        most = distribution.amax(dim=1).numpy()
        times = rng.multinomial(count, np.full(count, 1 / count), size=_DRAWS_A_TEMPERATURE)
        noise = rng.normal(size=_DRAWS_A_TEMPERATURE)
        noise *= math.sqrt(label_share * _label_variance(given, most))
        drawn.append(np.clip(100 * ((times @ given) / (times @ most) + noise), 0, 100))
    return Spread(*map(float, np.quantile(drawn, [0.05, 0.95, 0.025, 0.975])))


def _label_variance(
    given: Float64[np.ndarray, " image"], most: Float64[np.ndarray, " image"]
) -> float:
    """Variance of retention, as a fraction, when each image's label is drawn from p₀.

    To first order in the ratio r = Σ right after / Σ right before: an image counts 1 where the
    adapted model alone is right, −r where the pretrained model alone is, and 1 − r where both are,
    which are of one choice then.

    Args:
        given: p₀ of the adapted model's choice.
        most: p₀ of the pretrained model's own; equal to `given` where both choose the same.
    """
    ratio = given.sum() / most.sum()
    same = given == most
    both = (1 - ratio) ** 2 * most * (1 - most)
    alone = given + ratio**2 * most - (given - ratio * most) ** 2
    return float(np.where(same, both, alone).sum() / most.sum() ** 2)
