"""CKA, embedding drift and feature distance against brute-force references."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope.errors import CaptureError, NonFiniteError
from driftscope.signals.representation import (
    embedding_drift,
    feature_distance,
    linear_cka,
    linear_cka_debiased,
    unbiased_hsic,
)

Measure = Callable[[Tensor, Tensor], float]


def features(num_images: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(num_images, dim, generator=torch.Generator().manual_seed(seed))


def random_rotation(dim: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(features(dim, dim, seed).double()).Q.float()


# -------------------------------------------------------------------- references


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Biased CKA the long way: n×n kernels and an explicit centring matrix."""
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def matrix_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with the n×n matrices."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    ones = np.ones(n)
    total = np.trace(k @ m)
    total += (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    total -= 2 / (n - 2) * ones @ k @ m @ ones
    return float(total / (n * (n - 3)))


def tuple_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The U-statistic itself: mean over all ordered quadruples of different images."""
    k, m = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return float(np.mean(terms))


# -------------------------------------------------------------------- biased CKA


@pytest.mark.parametrize(("num_images", "dims"), [(10, (30, 7)), (60, (5, 8)), (2, (3, 3))])
def test_cka_equals_the_gram_matrix_form_for_few_and_many_images(
    num_images: int, dims: tuple[int, int]
) -> None:
    x, y = features(num_images, dims[0]), features(num_images, dims[1], seed=1) + 3
    expected = gram_cka(x.double().numpy(), y.double().numpy())
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("measure", [linear_cka, linear_cka_debiased])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: 7.5 * x,
        lambda x: -x,
        lambda x: x + 100,
        lambda x: x @ random_rotation(12),
    ],
    ids=["identical", "scaled", "mirrored", "shifted", "rotated"],
)
def test_cka_is_one_for_features_that_differ_only_by_what_it_ignores(
    measure: Measure, change: Callable[[Tensor], Tensor]
) -> None:
    x = features(40, 12)
    assert measure(x, change(x)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("measure", [linear_cka, linear_cka_debiased])
def test_cka_is_symmetric(measure: Measure) -> None:
    x, y = features(30, 8), features(30, 20, seed=1)
    assert measure(x, y) == pytest.approx(measure(y, x), abs=1e-12)


def test_cka_falls_as_noise_is_mixed_in() -> None:
    x, noise = features(200, 16), features(200, 16, seed=1)
    values = [linear_cka(x, (1 - share) * x + share * noise) for share in (0, 0.3, 0.6, 1)]
    assert values == sorted(values, reverse=True)


@settings(max_examples=40)
@given(st.integers(4, 30), st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_cka_stays_between_0_and_1(n: int, dim_x: int, dim_y: int, seed: int) -> None:
    x, y = features(n, dim_x, seed), features(n, dim_y, seed + 1)
    assert 0.0 <= linear_cka(x, y) <= 1.0
    assert linear_cka_debiased(x, y) <= 1.0 + 1e-9


# -------------------------------------------------------------------- the unbiased estimator


def test_unbiased_hsic_equals_the_mean_over_all_quadruples() -> None:
    x, y = features(7, 3), features(7, 4, seed=1) + 2
    expected = tuple_hsic(x.double().numpy(), y.double().numpy())
    assert unbiased_hsic(x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("num_images", "dims"), [(12, (40, 9)), (80, (6, 5))])
def test_unbiased_hsic_equals_the_matrix_formula(num_images: int, dims: tuple[int, int]) -> None:
    x, y = features(num_images, dims[0]) + 1, features(num_images, dims[1], seed=1)
    expected = matrix_hsic(x.double().numpy(), y.double().numpy())
    assert unbiased_hsic(x, y) == pytest.approx(expected, rel=1e-8)


def test_debiased_cka_is_near_0_for_unrelated_features_where_the_biased_one_is_not() -> None:
    pairs = [(features(200, 768, seed), features(200, 768, 1000 + seed)) for seed in range(12)]
    biased = np.array([linear_cka(x, y) for x, y in pairs])
    debiased = np.array([linear_cka_debiased(x, y) for x, y in pairs])
    assert biased.mean() > 0.75
    assert abs(debiased.mean()) < 3 * debiased.std(ddof=1) / np.sqrt(len(pairs)) + 1e-4
    assert np.abs(debiased).max() < 0.02


# -------------------------------------------------------------------- degenerate features


@pytest.mark.parametrize("measure", [linear_cka, linear_cka_debiased])
def test_cka_with_a_constant_side_is_0_and_of_two_constants_is_1(measure: Measure) -> None:
    constant = torch.full((20, 6), 0.7)
    assert measure(constant, features(20, 6)) == 0.0
    assert measure(features(20, 6), constant) == 0.0
    assert measure(constant, 2 * constant) == 1.0


def test_a_constant_that_carries_rounding_noise_counts_as_constant() -> None:
    noisy = torch.full((20, 6), 0.7) + 1e-8 * features(20, 6)
    assert linear_cka(noisy, features(20, 6, seed=1)) == 0.0


@pytest.mark.parametrize(("measure", "too_few"), [(linear_cka, 1), (linear_cka_debiased, 3)])
def test_too_few_images_are_refused_and_not_silently_nan(measure: Measure, too_few: int) -> None:
    with pytest.raises(CaptureError, match=f"got {too_few}"):
        measure(features(too_few, 5), features(too_few, 5))


@pytest.mark.parametrize("measure", [linear_cka, linear_cka_debiased, unbiased_hsic])
def test_features_of_different_numbers_of_images_are_refused(measure: Measure) -> None:
    with pytest.raises(CaptureError, match="same images"):
        measure(features(10, 5), features(11, 5))


# -------------------------------------------------------------------- embeddings


def test_embedding_drift_is_one_minus_the_mean_cosine() -> None:
    x, y = features(9, 5), features(9, 5, seed=1)
    pairs = zip(x.double().numpy(), y.double().numpy(), strict=True)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    assert embedding_drift(x, y) == pytest.approx(1 - np.mean(cosines), abs=1e-12)


def test_embedding_drift_ignores_length_and_reaches_2_for_reversal() -> None:
    x = features(9, 5)
    assert embedding_drift(x, 3 * x) == pytest.approx(0.0, abs=1e-7)
    assert embedding_drift(x, -x) == pytest.approx(2.0)


def test_a_zero_embedding_has_drifted_unless_it_was_zero_before() -> None:
    zero, other = torch.zeros(1, 4), torch.ones(1, 4)
    assert embedding_drift(zero, zero) == 0.0
    assert embedding_drift(other, zero) == 1.0


def test_feature_distance_is_the_mean_squared_length_of_the_change() -> None:
    x = features(9, 5)
    change = features(9, 5, seed=1)
    expected = (change.double() ** 2).sum(dim=1).mean().item()
    assert feature_distance(x, x + change) == pytest.approx(expected, rel=1e-5)
    assert feature_distance(x, x) == 0.0


@pytest.mark.parametrize("measure", [embedding_drift, feature_distance])
def test_embeddings_of_different_shapes_or_of_no_images_are_refused(measure: Measure) -> None:
    with pytest.raises(CaptureError, match="one shape"):
        measure(features(3, 5), features(3, 6))
    with pytest.raises(CaptureError, match="one shape"):
        measure(features(0, 5), features(0, 5))


@pytest.mark.parametrize(
    "measure", [linear_cka, linear_cka_debiased, embedding_drift, feature_distance]
)
def test_nan_never_passes_as_unchanged(measure: Callable[[Tensor, Tensor], float]) -> None:
    broken = torch.randn(8, 5)
    broken[3, 2] = float("nan")
    for pair in ((broken, torch.randn(8, 5)), (torch.randn(8, 5), broken), (broken, broken)):
        with pytest.raises(NonFiniteError, match="NaN"):
            measure(*pair)


def test_debiased_cka_where_it_does_not_exist_is_the_biased_one() -> None:
    all_but_one_alike = torch.zeros(10, 4)
    all_but_one_alike[7] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert linear_cka_debiased(all_but_one_alike, all_but_one_alike) == pytest.approx(1.0)
