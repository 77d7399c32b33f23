"""The label-free estimators against loops, simulation and linear programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from driftscope.errors import CaptureError
from driftscope.signals import label_free


def distributions(count: int, num_classes: int, seed: int = 0, sharpness: float = 2.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(count, num_classes))
    return torch.tensor(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


def drawn_from(p: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A class of every row, by its probabilities."""
    return (
        (p.cumsum(1) < torch.tensor(rng.random(len(p)))[:, None]).sum(1).clamp(max=p.shape[1] - 1)
    )


def test_the_estimate_is_the_ratio_of_two_sums() -> None:
    p = distributions(50, 7)
    chosen = distributions(50, 7, seed=1).argmax(1)
    given = math.fsum(float(p[i, chosen[i]]) for i in range(50))
    most = math.fsum(max(map(float, row)) for row in p)
    assert label_free.estimated_retention_pct(p, chosen) == pytest.approx(100 * given / most)


def test_an_unchanged_model_keeps_everything_and_nothing_keeps_more() -> None:
    p = distributions(50, 7)
    assert label_free.estimated_retention_pct(p, p.argmax(1)) == 100
    assert label_free.estimated_retention_pct(p, p.argmin(1)) < 20


@pytest.mark.parametrize("share_changed", [0.1, 0.5, 0.9])
def test_of_a_calibrated_referee_the_estimate_is_the_retention(share_changed: float) -> None:
    rng = np.random.default_rng(3)
    p = distributions(40_000, 10)
    labels = drawn_from(p, rng)
    changed = torch.tensor(rng.random(len(p)) < share_changed)
    chosen = torch.where(changed, torch.tensor(rng.integers(0, 10, len(p))), p.argmax(1))
    measured = 100 * float((chosen == labels).sum() / (p.argmax(1) == labels).sum())
    # the standard error of a ratio of two such shares is about 0.4 points
    assert label_free.estimated_retention_pct(p, chosen) == pytest.approx(measured, abs=1.5)


def test_with_a_known_temperature_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    world = distributions(20_000, 10)
    other = distributions(20_000, 10, seed=9)
    everywhere = (0.6 * world + 0.4 * other).argmax(1)
    truth = label_free.estimated_retention_pct(world, everywhere)
    held = {90: 0, 95: 0}
    for draw in range(200):
        at = torch.tensor(rng.integers(0, len(world), 150))
        found = label_free.estimate_spread(
            world[at].log(), everywhere[at], temperature_sd=0, label_share=0, seed=draw
        )
        held[90] += found.low_90 <= truth <= found.high_90
        held[95] += found.low_95 <= truth <= found.high_95
    assert 0.85 <= held[90] / 200 <= 0.95
    assert 0.91 <= held[95] / 200 <= 0.985


def test_an_unknown_temperature_widens_the_interval() -> None:
    logits = distributions(200, 10).log()
    chosen = distributions(200, 10, seed=4).argmax(1)
    sure = label_free.estimate_spread(logits, chosen, temperature_sd=0)
    unsure = label_free.estimate_spread(logits, chosen, temperature_sd=0.5)
    assert unsure.low_90 < sure.low_90 < sure.high_90 < unsure.high_90
    assert sure == label_free.estimate_spread(logits, chosen, temperature_sd=0)


def test_drawn_labels_widen_the_interval_by_the_variance_that_drawing_them_shows() -> None:
    p = distributions(400, 10)
    chosen = torch.where(torch.arange(400) % 3 == 0, distributions(400, 10, seed=4).argmax(1),
                         p.argmax(1))  # fmt: skip
    rng = np.random.default_rng(1)
    own = p.argmax(1)
    drawn = [
        float((chosen == labels).sum() / (own == labels).sum())
        for labels in (drawn_from(p, rng) for _ in range(4000))
    ]
    given, most = p.gather(1, chosen[:, None])[:, 0].numpy(), p.amax(1).numpy()
    found = label_free._label_variance(given, most)
    assert found == pytest.approx(np.var(drawn), rel=0.08)


def test_a_model_that_chooses_as_before_keeps_everything_for_certain() -> None:
    p = distributions(100, 10)
    spread = label_free.estimate_spread(p.log(), p.argmax(1))
    assert (spread.low_95, spread.high_95) == (100, 100)


def test_the_information_share_is_zero_on_noise_and_one_on_certainty() -> None:
    assert label_free.information_share(torch.full((50, 10), 0.1).double()) == 0
    assert label_free.information_share(torch.eye(10).double()) == pytest.approx(1)
    same = torch.eye(10).double()[[3] * 20]
    assert label_free.information_share(same) == 0
    p = distributions(30, 5).numpy()
    entropy = [-(row * np.log(row)).sum() for row in p]
    mean = p.mean(0)
    expected = (-(mean * np.log(mean)).sum() - np.mean(entropy)) / np.log(5)
    assert label_free.information_share(torch.tensor(p)) == pytest.approx(expected)


def test_one_answer_to_all_keeps_the_commonest_class() -> None:
    p = torch.eye(4).double()[[0, 0, 0, 1, 2, 3]]
    assert label_free.constant_retention_pct(p) == 50


def test_agreement_counts_equal_choices() -> None:
    assert label_free.agreement_pct(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])) == 75


def test_embeddings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"got shapes \(3, 4\) and \(2, 5\)"):
        label_free.zero_shot_logits(torch.zeros(3, 4), torch.zeros(2, 5), 100.0)
