"""Attention signals against float64 NumPy formulas written out here, and their properties."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from full_map_signals import attention_rollout, patch_to_patch_entropy_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftscope.signals import attention


def concentration(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return attention.entropy(rows), attention.erf(rows), attention.gini(rows)


# ------------------------------------------------------------ references, float64, one row a time


def numpy_entropy(row: np.ndarray) -> float:
    return float(-sum(a * math.log(a) for a in row if a > 0))


def numpy_erf(row: np.ndarray, p: float) -> float:
    mass = 0.0
    for k, weight in enumerate(sorted(row, reverse=True), start=1):
        mass += weight
        if mass >= (p - 1e-7) * row.sum():
            return k / len(row)
    return 1.0


def numpy_gini(row: np.ndarray) -> float:
    ascending = np.sort(row)
    n = len(row)
    ranks = np.arange(1, n + 1)
    return float(2 * (ranks * ascending).sum() / (n * ascending.sum()) - (n + 1) / n)


def numpy_gini_as_mean_difference(row: np.ndarray) -> float:
    """The textbook form: half the relative mean absolute difference."""
    return float(np.abs(row[:, None] - row[None, :]).mean() / (2 * row.mean()))


def numpy_head_diversity(rows: np.ndarray) -> float:
    heads = [row / np.linalg.norm(row) for row in rows]
    pairs = [1 - a @ b for i, a in enumerate(heads) for b in heads[i + 1 :]]
    return float(np.mean(pairs))


def numpy_rollout(maps: np.ndarray, num_prefix: int) -> np.ndarray:
    product = np.eye(maps.shape[-1])
    for layer in maps:
        product = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(maps.shape[-1])) @ product
    row = product[0, num_prefix:]
    return row / row.sum()


def numpy_patch_entropy_bits(head_map: np.ndarray, num_prefix: int) -> float:
    patches = head_map[num_prefix:, num_prefix:]
    patches = patches / patches.sum(axis=-1, keepdims=True)
    return float(np.mean([numpy_entropy(row) for row in patches]) / math.log(2))


def random_rows(*shape: int, seed: int = 0, sharpness: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, generator=generator)).softmax(dim=-1)


rows_of_weights = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(0, 1, width=32, allow_subnormal=False),
).filter(lambda row: row.sum() > 1e-3)


def as_row(weights: np.ndarray) -> torch.Tensor:
    row = torch.from_numpy(weights.astype(np.float64))
    return row / row.sum()


# ------------------------------------------------------------------------------- row by row


@pytest.mark.parametrize("num_patches", [1, 2, 49, 196, 576])
def test_row_signals_equal_the_written_out_formulas(num_patches: int) -> None:
    rows = random_rows(3, 4, num_patches, seed=num_patches)
    reference = rows.double().numpy()
    for signal, formula in (
        (attention.entropy(rows), numpy_entropy),
        (attention.erf(rows), lambda row: numpy_erf(row, 0.95)),
        (attention.gini(rows), numpy_gini),
        (attention.gini(rows), numpy_gini_as_mean_difference),
    ):
        expected = np.apply_along_axis(formula, -1, reference)
        np.testing.assert_allclose(signal.numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_patches", [1, 7, 20, 49, 100, 576])
def test_a_uniform_row_has_entropy_log_n_gini_zero_and_the_exact_receptive_field(
    num_patches: int,
) -> None:
    row = torch.full((num_patches,), 1 / num_patches)
    assert attention.entropy(row).item() == pytest.approx(math.log(num_patches), abs=1e-6)
    assert attention.gini(row).item() == pytest.approx(0.0, abs=1e-7)
    # round(): ceil(0.95·20) is 20 in floating point, 19 in arithmetic.
    assert attention.erf(row).item() == math.ceil(round(0.95 * num_patches, 9)) / num_patches


def test_a_one_hot_row_has_entropy_zero_and_the_extreme_gini_and_receptive_field() -> None:
    row = torch.zeros(49)
    row[17] = 1.0
    assert attention.entropy(row).item() == 0.0
    assert math.copysign(1.0, attention.entropy(row).item()) == 1.0
    assert attention.gini(row).item() == pytest.approx(48 / 49)
    assert attention.erf(row).item() == pytest.approx(1 / 49)


def test_a_single_patch_takes_everything() -> None:
    row = torch.ones(2, 3, 1)
    entropy, erf, gini = concentration(row)
    assert entropy.eq(0).all()
    assert erf.eq(1).all()
    assert gini.eq(0).all()


def test_bits_are_nats_over_ln_2() -> None:
    assert attention.entropy_bits(torch.full((8,), 0.125)).item() == pytest.approx(3.0)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1])
def test_a_mass_outside_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        attention.erf(torch.ones(4) / 4, p=p)


def test_full_mass_needs_every_patch_that_has_weight() -> None:
    assert attention.erf(torch.tensor([0.5, 0.3, 0.2, 0.0]), p=1.0).item() == 0.75


@settings(max_examples=60)
@given(rows_of_weights)
def test_row_signals_stay_in_their_documented_ranges(weights: np.ndarray) -> None:
    row = as_row(weights)
    n = len(row)
    assert 0.0 <= attention.entropy(row).item() <= math.log(n) + 1e-12
    assert 1 / n <= attention.erf(row).item() <= 1.0
    assert 0.0 <= attention.gini(row).item() <= (n - 1) / n + 1e-12


@settings(max_examples=60)
@given(rows_of_weights, st.randoms(use_true_random=False))
def test_row_signals_do_not_depend_on_the_order_of_patches(
    weights: np.ndarray, shuffler: random.Random
) -> None:
    order = list(range(len(weights)))
    shuffler.shuffle(order)
    before = concentration(as_row(weights))
    after = concentration(as_row(weights[order]))
    for a, b in zip(before, after, strict=True):
        assert a.item() == pytest.approx(b.item(), abs=1e-9)


@settings(max_examples=60)
@given(rows_of_weights, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_the_receptive_field_grows_with_p(weights: np.ndarray, p: float, q: float) -> None:
    row = as_row(weights)
    assert attention.erf(row, min(p, q)).item() <= attention.erf(row, max(p, q)).item()


@settings(max_examples=60)
@given(rows_of_weights)
def test_the_receptive_field_is_the_smallest_set_that_holds_the_mass(weights: np.ndarray) -> None:
    row = as_row(weights)
    k = round(attention.erf(row).item() * len(row))
    largest = row.sort(descending=True).values
    assert largest[:k].sum().item() >= 0.95 - 1e-6
    assert largest[: k - 1].sum().item() < 0.95 + 1e-6


@settings(max_examples=40)
@given(rows_of_weights, st.floats(0.05, 0.95))
def test_mixing_towards_uniform_raises_entropy_and_lowers_gini(
    weights: np.ndarray, share: float
) -> None:
    row = as_row(weights)
    mixed = (1 - share) * row + share / len(row)
    assert attention.entropy(mixed).item() >= attention.entropy(row).item() - 1e-12
    assert attention.gini(mixed).item() <= attention.gini(row).item() + 1e-12


def test_a_float32_row_with_underflowed_weights_gives_no_nan() -> None:
    row = torch.tensor([200.0, 0.0, -200.0, 50.0]).softmax(dim=0)
    assert row.min() == 0.0
    for signal in concentration(row):
        assert signal.isfinite()


# ------------------------------------------------------------------------------- head diversity


def test_head_diversity_is_the_mean_over_head_pairs() -> None:
    rows = random_rows(5, 6, 49)
    expected = [numpy_head_diversity(image) for image in rows.double().numpy()]
    np.testing.assert_allclose(attention.head_diversity(rows).numpy(), expected, atol=1e-9)


def test_equal_heads_have_no_diversity_and_disjoint_heads_have_all() -> None:
    row = random_rows(1, 1, 9)
    assert attention.head_diversity(row.expand(1, 4, 9)).item() == pytest.approx(0.0, abs=1e-9)
    assert attention.head_diversity(torch.eye(4)[None]).item() == pytest.approx(1.0)


def test_a_single_head_has_no_diversity_by_definition() -> None:
    assert attention.head_diversity(random_rows(3, 1, 9)).equal(torch.zeros(3, dtype=torch.float64))


def test_diversity_of_mean_rows_hides_what_images_differ_in() -> None:
    # On each image the two heads look at different patches, but over images at the same ones.
    opposite = torch.stack([torch.eye(2), torch.eye(2).flip(0)])
    assert attention.head_diversity(opposite).mean().item() == pytest.approx(1.0)
    assert attention.head_diversity(opposite.double().mean(dim=0)).item() == pytest.approx(
        0.0, abs=1e-9
    )


# ------------------------------------------------------------------------------- full maps


@pytest.mark.parametrize("num_prefix", [1, 5])
def test_rollout_equals_the_written_out_product(num_prefix: int) -> None:
    maps = random_rows(3, 2, 4, 14, 14)  # layer, image, head, token, token
    rollout = attention_rollout(list(maps), num_prefix)
    for image in range(2):
        expected = numpy_rollout(maps[:, image].double().numpy(), num_prefix)
        np.testing.assert_allclose(rollout[image].numpy(), expected, atol=1e-9)


def test_rollout_of_pure_self_attention_has_no_row_and_of_uniform_is_uniform() -> None:
    itself = torch.eye(10).expand(1, 2, 10, 10)
    assert attention_rollout([itself, itself]).tolist() == [[0.0] * 9]
    uniform = torch.full((1, 2, 10, 10), 0.1)
    rollout = attention_rollout([uniform, uniform])
    np.testing.assert_allclose(rollout.numpy(), np.full((1, 9), 1 / 9), atol=1e-7)


@pytest.mark.parametrize("num_prefix", [1, 3])
def test_patch_to_patch_entropy_equals_the_written_out_mean(num_prefix: int) -> None:
    maps = random_rows(2, 4, 12, 12)
    expected = [
        [numpy_patch_entropy_bits(head, num_prefix) for head in image]
        for image in maps.double().numpy()
    ]
    result = patch_to_patch_entropy_bits(maps, num_prefix)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("sharpness", "num_prefix"), [(0.0, 1), (1.0, 1), (6.0, 1), (1.0, 5)])
def test_the_headwise_reduction_equals_the_full_maps(sharpness: float, num_prefix: int) -> None:
    generator = torch.Generator().manual_seed(3)
    query = sharpness * torch.randn(3, 4, 26, 8, generator=generator)
    key = torch.randn(3, 4, 26, 8, generator=generator)
    full = (query.double() @ key.double().transpose(-1, -2) * 0.35).softmax(dim=-1)
    head_mean, entropies = attention.head_mean_and_patch_entropy(query, key, 0.35, num_prefix)
    np.testing.assert_allclose(head_mean.numpy(), full.mean(dim=1).numpy(), atol=1e-6)
    expected = patch_to_patch_entropy_bits(full, num_prefix)
    np.testing.assert_allclose(entropies.numpy(), expected.numpy(), atol=1e-5)


def test_a_single_patch_has_no_patch_to_patch_entropy() -> None:
    query = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    _, entropies = attention.head_mean_and_patch_entropy(query, query, 0.5)
    assert entropies.eq(0).all()


# ------------------------------------------------------------------------------- subsets


def test_the_coefficient_of_variation_between_equal_subsets_is_zero() -> None:
    values = torch.tensor([1.0, 2.0, 1.0, 2.0])
    assert attention.subset_coefficient_of_variation(values, [[0, 1], [2, 3]]) == 0.0


def test_the_coefficient_of_variation_is_spread_over_mean() -> None:
    values = torch.tensor([1.0, 1.0, 3.0, 3.0])
    subsets = [[0, 1], [2, 3]]
    assert attention.subset_coefficient_of_variation(values, subsets) == pytest.approx(0.5)
    sample = attention.subset_coefficient_of_variation(values, subsets, ddof=1)
    assert sample == pytest.approx(math.sqrt(2) / 2)


@pytest.mark.parametrize(("subsets", "ddof"), [([], 0), ([[0], []], 0), ([[0, 1]], 1)])
def test_subsets_that_define_no_spread_are_refused(subsets: list[list[int]], ddof: int) -> None:
    with pytest.raises(ValueError, match="spread between subsets"):
        attention.subset_coefficient_of_variation(torch.ones(4), subsets, ddof)


def test_patch_entropy_of_queries_that_look_past_the_patches_is_that_of_their_remaining_row() -> (
    None
):
    """A key that draws all attention (logit gap of 200) must not turn the rest into 0/0."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.ones(2, 3, 6, 4), torch.randn(2, 3, 6, 4, generator=generator)
    key[:, :, 0] = 50.0
    _, entropies = attention.head_mean_and_patch_entropy(query, key, 1.0)
    logits = (query.double() @ key.double().transpose(-1, -2))[..., 1:, 1:]
    expected = attention.entropy_bits(logits.softmax(dim=-1)).mean(dim=-1)
    torch.testing.assert_close(entropies.double(), expected, rtol=1e-5, atol=1e-6)
    head_mean, _ = attention.head_mean_and_patch_entropy(query, key, 1.0)
    full = (query.double() @ key.double().transpose(-1, -2)).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(head_mean.double(), full, rtol=1e-5, atol=1e-6)
    maps = torch.zeros(1, 3, 3)
    maps[:, :, 0] = 1.0
    assert patch_to_patch_entropy_bits(maps).tolist() == [0.0]
