"""What moved features say about texts: zero-shot distributions and logits of random texts."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from driftscope.errors import CaptureError, NonFiniteError
from driftscope.signals.label_free import estimated_retention_pct


@dataclass(frozen=True)
class TextSpaceDrift:
    """How image embeddings moved as seen from fixed text embeddings.

    kl_nats: mean over images of KL(pretrained ‖ adapted), nats, in [0, ∞).
    top1_agreement_pct: images whose best text stayed the same, percent, in [0, 100].
    random_text_logit_change: mean |Δ logit| for random texts, in logits; None without them.
    referee_pct: 100·Σ p₀(ŷ) / Σ max p₀ with ŷ the adapted model's nearest text, in [0, 100].
    """

    kl_nats: float
    top1_agreement_pct: float
    random_text_logit_change: float | None
    referee_pct: float


def text_space_drift(
    pretrained_images: Float[Tensor, "image dim"],
    adapted_images: Float[Tensor, "image dim"],
    vocabulary: Float[Tensor, "text dim"],
    logit_scale: float,
    random_texts: Float[Tensor, "random_text dim"] | None = None,
    *,
    logit_bias: float | None = None,
) -> TextSpaceDrift:
    """Text-space drift of paired image embeddings.

    The zero-shot distribution of an image is softmax(logit_scale · cos(image, text)) over the
    vocabulary. KL is taken from the pretrained to the adapted distribution in float64 from log
    probabilities, so it is finite. With one text in the vocabulary it is 0 and agreement 100.

    A model with a `logit_bias` judges each text by itself: it fits the image with probability
    sigmoid(logit_scale · cos(image, text) + logit_bias), independently of the others. KL is then
    that of all these judgements together, the sum over texts of each one's.
    The logit change for random texts follows Lipsum-FT (2404.00860), with the absolute value where
    that method's loss has the square.

    Args:
        pretrained_images, adapted_images: embeddings of the same images; normalised here.
        vocabulary: embeddings of the fixed vocabulary; normalised here.
        logit_scale: the model's own factor on cosines (CLIP's exp'ed logit scale, about 100).
        random_texts: embeddings of random texts, if that signal is wanted.
        logit_bias: of a model whose logits go through a sigmoid; None for a softmax.

    Raises:
        CaptureError: shapes do not fit together, or there are no images or texts.
    """
    _check_shapes(pretrained_images, adapted_images, vocabulary)
    before = _logits(pretrained_images, vocabulary, logit_scale)
    after = _logits(adapted_images, vocabulary, logit_scale)
    if logit_bias is None:
        kl = _kl(before.log_softmax(dim=-1), after.log_softmax(dim=-1))
    else:
        before, after = before + logit_bias, after + logit_bias
        fits = _kl(logsigmoid(before), logsigmoid(after))
        kl = fits + _kl(logsigmoid(-before), logsigmoid(-after))
    agreement = (before.argmax(dim=-1) == after.argmax(dim=-1)).double().mean()
    change = None
    if random_texts is not None:
        _check_shapes(pretrained_images, adapted_images, random_texts)
        random_before = _logits(pretrained_images, random_texts, logit_scale)
        random_after = _logits(adapted_images, random_texts, logit_scale)
        change = float((random_after - random_before).abs().mean())
    referee = estimated_retention_pct(before.softmax(dim=-1), after.argmax(dim=-1))
    return TextSpaceDrift(max(0.0, float(kl)), 100.0 * float(agreement), change, referee)


def _kl(log_before: Tensor, log_after: Tensor) -> Tensor:
    """Mean over images of Σ p·(ln p − ln q)."""
    return (log_before.exp() * (log_before - log_after)).sum(dim=-1).mean()


def _logits(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    directions = normalize(images.double(), dim=-1), normalize(texts.double(), dim=-1)
    return logit_scale * directions[0] @ directions[1].T


def _check_shapes(pretrained: Tensor, adapted: Tensor, texts: Tensor) -> None:
    fits = pretrained.shape == adapted.shape and pretrained.ndim == texts.ndim == 2
    if not fits or pretrained.shape[1] != texts.shape[1] or 0 in (len(pretrained), len(texts)):
        raise CaptureError(
            "Text-space drift needs image embeddings [image, dim] of the same images and text "
            f"embeddings [text, dim], got shapes {tuple(pretrained.shape)}, "
            f"{tuple(adapted.shape)} and {tuple(texts.shape)}."
        )
    for name, embeddings in (("pretrained", pretrained), ("adapted", adapted), ("text", texts)):
        if not bool(embeddings.isfinite().all()):
            raise NonFiniteError(
                f"Text-space drift cannot be taken: the {name} embeddings hold NaN or infinite "
                "values; the model they come from is broken."
            )
