from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from driftscope.stats.effects import EffectSize, _noncentrality_interval, cohens_d, cohens_d_z
from driftscope.stats.groups import (
    MeanTest,
    coefficient_of_variation,
    paired_t,
    permutation_of_means,
    sign_flip,
    welch_t,
    wilcoxon_signed_rank,
)

A = np.array([3.1, 4.7, 2.2, 5.9, 4.4, 3.8])
B = np.array([2.0, 3.9, 2.9, 3.1, 4.1, 1.7])
DRAWS = 2_000
SLACK = 3 * np.sqrt(0.05 * 0.95 / DRAWS)


def test_welch_t_equals_its_textbook_formula():
    result = welch_t(A, B[:4])
    shares = A.var(ddof=1) / 6, B[:4].var(ddof=1) / 4
    df = sum(shares) ** 2 / (shares[0] ** 2 / 5 + shares[1] ** 2 / 3)
    t = (A.mean() - B[:4].mean()) / np.sqrt(sum(shares))
    assert (result.statistic, result.degrees_of_freedom) == pytest.approx((t, df))
    assert result.p_value == pytest.approx(2 * special.stdtr(df, -abs(t)))
    half = special.stdtrit(df, 0.975) * np.sqrt(sum(shares))
    assert (result.low, result.high) == pytest.approx(
        (result.difference - half, result.difference + half)
    )


def test_paired_t_equals_scipy():
    result = paired_t(A, B)
    reference = scipy_stats.ttest_rel(A, B)
    assert (result.statistic, result.p_value) == pytest.approx(tuple(reference))


def test_wilcoxon_equals_scipy_exact_without_ties():
    result = wilcoxon_signed_rank(A, B)
    reference = scipy_stats.wilcoxon(A, B, method="exact", alternative="greater")
    assert result.statistic == reference.statistic
    assert result.p_value == pytest.approx(scipy_stats.wilcoxon(A, B, method="exact").pvalue)
    assert result.p_floor == pytest.approx(2 / 2**6)


def test_wilcoxon_with_ties_and_a_zero_equals_enumeration_of_signs():
    differences = np.array([1.0, 1.0, -1.0, 2.0, 0.0, 3.0])
    ranks = scipy_stats.rankdata(np.abs(differences[differences != 0]))
    observed = abs(np.sign(differences[differences != 0]) @ ranks)
    null = np.abs([np.array(signs) @ ranks for signs in product((1, -1), repeat=5)])
    result = wilcoxon_signed_rank(differences, np.zeros(6))
    assert result.p_value == pytest.approx((null >= observed - 1e-12).mean())
    assert result.num_excluded == 1


def test_shared_splits_give_what_shuffling_the_values_gives():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, 1, 20), rng.normal(0, 1, 17)
    pooled = np.concatenate([a, b])
    shuffled = np.random.default_rng(0).permuted(np.tile(pooled, (9_999, 1)), axis=1)
    null = shuffled[:, :20].mean(axis=1) - shuffled[:, 20:].mean(axis=1)
    expected = (1 + np.sum(np.abs(null) >= abs(a.mean() - b.mean()) - 1e-12)) / 10_000
    assert permutation_of_means(a, b).p_value == expected
    assert permutation_of_means(b, a, seed=1).p_value != expected  # drawn by another seed


def test_permutation_of_means_equals_enumeration_of_splits():
    a, b = A[:3], B[:4]
    pooled = np.concatenate([a, b])
    null = []
    for chosen in combinations(range(7), 3):
        rest = [i for i in range(7) if i not in chosen]
        null.append(pooled[list(chosen)].mean() - pooled[rest].mean())
    null, observed = np.array(null), a.mean() - b.mean()
    extreme = np.abs(null) >= abs(observed) - 1e-12
    result = permutation_of_means(a, b)
    assert result.p_value == pytest.approx(extreme.mean())
    assert result.difference == pytest.approx(observed)


def test_three_against_three_cannot_give_a_p_below_one_tenth():
    result = permutation_of_means([1, 2, 3], [10, 20, 30])
    assert result.p_value == result.p_floor == pytest.approx(0.1)


def test_sign_flip_of_three_pairs_cannot_give_a_p_below_one_quarter():
    result = sign_flip([5, 6, 7], [1, 1, 1])
    assert result.p_value == result.p_floor == pytest.approx(0.25)


def test_monte_carlo_permutation_tests_agree_with_welch_and_paired_t_for_many_values():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.4, 1, size=40), rng.normal(0, 1, size=40)
    for ours, reference in (
        (permutation_of_means(a, b), welch_t(a, b)),
        (sign_flip(a, b), paired_t(a, b)),
    ):
        assert ours.p_standard_error > 0
        assert abs(ours.p_value - reference.p_value) < 4 * ours.p_standard_error + 0.005
        assert ours.p_floor == pytest.approx(1e-4)


@pytest.mark.parametrize("test", [permutation_of_means, sign_flip, wilcoxon_signed_rank])
def test_exact_tests_keep_their_size_under_a_skewed_null(test: Callable[..., MeanTest]):
    rng = np.random.default_rng(7)
    # Exchangeable groups, and symmetric differences, whatever the shape.
    rejected = sum(test(*rng.exponential(size=(2, 6))).p_value <= 0.05 for _ in range(DRAWS))
    assert 0.02 < rejected / DRAWS <= 0.05 + SLACK


@pytest.mark.parametrize("test", [welch_t, paired_t])
def test_t_tests_keep_their_size_and_their_intervals_cover_under_a_normal_null(
    test: Callable[..., MeanTest],
):
    rng = np.random.default_rng(9)
    results = [test(*rng.normal(size=(2, 6))) for _ in range(DRAWS)]
    assert 0.03 < np.mean([result.p_value <= 0.05 for result in results]) <= 0.05 + SLACK
    coverage = np.mean([result.low <= 0 <= result.high for result in results])
    assert 0.93 <= coverage <= 0.97


def test_values_that_are_not_finite_are_excluded_and_counted():
    assert welch_t([*A, np.nan], B).num_excluded == 1
    assert welch_t([*A, np.nan], B).p_value == welch_t(A, B).p_value
    assert paired_t([*A, np.nan], [*B, 1.0]).num_excluded == 1
    assert cohens_d([*A, np.inf], B).value == cohens_d(A, B).value


@pytest.mark.parametrize("test", [welch_t, paired_t])
def test_a_t_test_without_variance_or_with_one_value_is_undefined(test: Callable[..., MeanTest]):
    assert np.isnan(test([1, 1, 1], [2, 2, 2]).p_value)
    assert np.isnan(test([1], [2]).p_value)


def test_differences_that_are_rounding_noise_are_no_variance():
    a = np.array([0.1 + 0.2, 0.7, 1.1 + 2.2])
    b = np.array([0.3, 0.7, 3.3])
    assert np.ptp(a - b) > 0
    assert np.isnan(paired_t(a, b).p_value)
    assert np.isnan(cohens_d_z(a, b).value)


def test_cohens_d_and_d_z_equal_their_formulas():
    pooled = np.sqrt((5 * A.var(ddof=1) + 5 * B.var(ddof=1)) / 10)
    d = (A.mean() - B.mean()) / pooled
    assert cohens_d(A, B).value == pytest.approx(d)
    differences = A - B
    assert cohens_d_z(A, B).value == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_effect_size_intervals_solve_the_noncentral_t_and_widen_with_confidence():
    low, high = _noncentrality_interval(2.5, 10, 0.95)
    assert special.nctdtr(10, low, 2.5) == pytest.approx(0.975, abs=1e-6)
    assert special.nctdtr(10, high, 2.5) == pytest.approx(0.025, abs=1e-6)
    low, high = _noncentrality_interval(-26.0, 4, 0.95)
    assert special.nctdtr(4, -high, 26.0) == pytest.approx(0.975, abs=1e-4)
    assert special.nctdtr(4, -low, 26.0) == pytest.approx(0.025, abs=1e-4)
    narrow, wide = cohens_d(A, B, confidence=0.8), cohens_d(A, B, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_effect_size_intervals_of_many_pairs_approach_the_large_sample_formula():
    rng = np.random.default_rng(21)
    result = cohens_d_z(rng.normal(20, 1, size=1_000), np.zeros(1_000))
    half = 1.96 * np.sqrt(1 / 1_000 + result.value**2 / 2_000)
    assert (result.low, result.high) == pytest.approx(
        (result.value - half, result.value + half), rel=1e-3
    )


@pytest.mark.parametrize(("effect", "truth"), [(cohens_d, 1.0), (cohens_d_z, 1.0 / np.sqrt(2))])
def test_effect_size_intervals_cover_the_true_effect(
    effect: Callable[..., EffectSize], truth: float
):
    rng = np.random.default_rng(13)
    covered = 0
    for _ in range(DRAWS):
        result = effect(rng.normal(1, 1, size=5), rng.normal(0, 1, size=5))
        covered += result.low <= truth <= result.high
    assert 0.93 <= covered / DRAWS <= 0.97


def test_coefficient_of_variation_is_the_standard_deviation_over_the_mean():
    assert coefficient_of_variation([9.0, 11.0], ddof=0) == pytest.approx(0.1)
    assert coefficient_of_variation([-9.0, -11.0, np.nan]) == pytest.approx(np.sqrt(2) / 10)
    assert np.isnan(coefficient_of_variation([1.0]))
    assert np.isnan(coefficient_of_variation([-1.0, 1.0]))


def test_a_group_that_is_constant_but_for_rounding_neither_warns_nor_decides(
    recwarn: pytest.WarningsRecorder,
) -> None:
    constant = [0.1 + 0.2, 0.3, 0.3]
    result = welch_t(constant, [0.1, 0.4, 0.2])
    assert result.p_value == pytest.approx(welch_t([0.3, 0.3, 0.3], [0.1, 0.4, 0.2]).p_value)
    assert np.isnan(welch_t(constant, [0.7 + 0.1, 0.8, 0.8]).p_value)
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_cohens_d_of_cells_whose_seeds_agree_is_undefined():
    a, b = [0.1 + 0.2, 0.3, 0.3], [0.7, 0.7, 0.1 + 0.6]
    assert np.var(a) > 0
    effect = cohens_d(a, b)
    assert np.isnan([effect.value, effect.low, effect.high]).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160])
def test_tests_and_effects_do_not_depend_on_the_unit(scale: float):
    for test in (welch_t, paired_t, wilcoxon_signed_rank, permutation_of_means, sign_flip):
        assert test(scale * A, scale * B).p_value == pytest.approx(test(A, B).p_value)
    for test in (welch_t, paired_t):
        result, plain = test(scale * A, scale * B), test(A, B)
        assert result.statistic == pytest.approx(plain.statistic)
        assert (result.low / scale, result.high / scale) == pytest.approx((plain.low, plain.high))
    for effect in (cohens_d, cohens_d_z):
        assert effect(scale * A, scale * B).value == pytest.approx(effect(A, B).value)
