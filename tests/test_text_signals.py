"""Text-space drift against a written-out softmax, and its degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from driftscope.errors import CaptureError
from driftscope.signals.text import text_space_drift


def embeddings(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_logits(images: Tensor, texts: Tensor, scale: float) -> np.ndarray:
    return scale * unit(images.double().numpy()) @ unit(texts.double().numpy()).T


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_all_three_signals_equal_the_written_out_formulas() -> None:
    before, after = embeddings(11), embeddings(11, seed=1)
    vocabulary, random_texts = embeddings(5, seed=2), embeddings(7, seed=3)
    drift = text_space_drift(before, after, vocabulary, 10.0, random_texts)
    p, q = (softmax(numpy_logits(images, vocabulary, 10.0)) for images in (before, after))
    assert drift.kl_nats == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-9)
    agreement = 100 * (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert drift.top1_agreement_pct == pytest.approx(agreement)
    change = numpy_logits(after, random_texts, 10.0) - numpy_logits(before, random_texts, 10.0)
    assert drift.random_text_logit_change == pytest.approx(np.abs(change).mean(), rel=1e-9)


def test_nothing_moves_where_images_keep_their_directions() -> None:
    images, texts = embeddings(8), embeddings(4, seed=1)
    drift = text_space_drift(images, 5 * images, texts, 100.0, texts)
    assert drift.kl_nats == pytest.approx(0.0, abs=1e-9)
    assert drift.top1_agreement_pct == 100.0
    assert drift.random_text_logit_change == pytest.approx(0.0, abs=1e-4)


def test_kl_is_finite_where_a_probability_underflows() -> None:
    before, after = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    drift = text_space_drift(before, after, torch.eye(2), 2000.0)
    assert drift.kl_nats == pytest.approx(2000.0)
    assert drift.top1_agreement_pct == 0.0


def test_a_vocabulary_of_one_text_cannot_show_drift() -> None:
    drift = text_space_drift(embeddings(4), embeddings(4, seed=1), embeddings(1, seed=2), 100.0)
    assert drift.kl_nats == 0.0
    assert drift.top1_agreement_pct == 100.0


def test_without_random_texts_their_signal_is_absent() -> None:
    drift = text_space_drift(embeddings(4), embeddings(4), embeddings(3, seed=1), 100.0)
    assert drift.random_text_logit_change is None


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (embeddings(4), embeddings(5), embeddings(3)),
        (embeddings(4), embeddings(4), embeddings(3, dim=7)),
        (embeddings(0), embeddings(0), embeddings(3)),
        (embeddings(4), embeddings(4), embeddings(0)),
    ],
    ids=["other images", "other dimension", "no images", "no texts"],
)
def test_embeddings_that_do_not_fit_together_are_refused(
    before: Tensor, after: Tensor, texts: Tensor
) -> None:
    with pytest.raises(CaptureError, match="same images"):
        text_space_drift(before, after, texts, 100.0)
