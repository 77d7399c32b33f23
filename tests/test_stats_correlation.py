from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from driftscope.errors import ConfigError, DriftscopeError
from driftscope.stats.correlation import correlation, partial_correlation, permutation_correlation

SCIPY = {
    "pearson": lambda x, y: scipy_stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: scipy_stats.spearmanr(x, y).statistic,
}
TIED = ([1.0, 2.0, 2.0, 3.0, 5.0, 4.0], [2.0, 1.0, 3.0, 3.0, 3.0, 7.0])


def brute_force_p(kind: str, x: list[float], y: list[float]):
    """Every permutation through scipy's coefficient."""
    null = np.array([SCIPY[kind](x, order) for order in permutations(y)])
    return np.mean(np.abs(null) >= abs(SCIPY[kind](x, y)) - 1e-12)


@pytest.mark.parametrize("kind", SCIPY)
def test_exact_p_equals_brute_force_enumeration_with_ties(kind: str):
    result = permutation_correlation(*TIED, kind=kind)
    assert result.statistic == pytest.approx(SCIPY[kind](*TIED), abs=1e-12)
    assert result.p_value == pytest.approx(brute_force_p(kind, *TIED), abs=1e-12)
    assert (result.procedure, result.num_arrangements) == ("exact", 720)


def test_four_rates_cannot_give_a_p_below_2_in_24():
    result = permutation_correlation([1, 2, 3, 4], [10, 20, 30, 40])
    assert result.p_floor == result.p_value == pytest.approx(2 / 24)
    assert not result.can_reach(0.05)


def test_permuting_within_three_seeds_lowers_the_floor_to_2_in_13824():
    x = np.tile([1.0, 2.0, 3.0, 4.0], 3)
    result = permutation_correlation(x, x, blocks=np.repeat([7, 11, 19], 4))
    assert (result.procedure, result.num_arrangements) == ("exact", 24**3)
    assert result.p_floor == result.p_value == pytest.approx(2 / 24**3)


@pytest.mark.parametrize("kind", SCIPY)
def test_blocked_p_equals_brute_force_over_the_product_of_blocks(kind: str):
    x = np.array([1.0, 2.0, 3.0, 2.0, 5.0, 4.0])
    y = np.array([3.0, 1.0, 2.5, 9.0, 8.0, 7.0])
    null = np.array(
        [
            SCIPY[kind](x, [*first, *second])
            for first in permutations(y[:3])
            for second in permutations(y[3:])
        ]
    )
    centred = np.abs(null - null.mean())
    expected = (centred >= abs(SCIPY[kind](x, y) - null.mean()) - 1e-12).mean()
    result = permutation_correlation(x, y, kind=kind, blocks=list("aaabbb"))
    assert result.p_value == pytest.approx(expected)
    assert (result.num_arrangements, result.num_blocks) == (36, 2)


def test_the_order_of_units_does_not_matter_to_a_blocked_test():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 12))
    blocks = np.repeat(["a", "b", "c"], 4)
    shuffle = rng.permutation(12)
    first = permutation_correlation(x, y, blocks=blocks)
    second = permutation_correlation(x[shuffle], y[shuffle], blocks=blocks[shuffle])
    assert first.p_value == second.p_value


@pytest.mark.parametrize("kind", SCIPY)
def test_monte_carlo_agrees_with_the_large_sample_p(kind: str):
    rng = np.random.default_rng(8)
    x = rng.normal(size=40)
    y = 0.3 * x + rng.normal(size=40)
    reference = {
        "pearson": scipy_stats.pearsonr,
        "spearman": scipy_stats.spearmanr,
    }[kind](x, y)
    result = permutation_correlation(x, y, kind=kind, seed=1)
    assert result.procedure == "monte carlo"
    assert abs(result.p_value - reference.pvalue) < 4 * result.p_standard_error + 0.005
    assert result.p_standard_error == pytest.approx(
        np.sqrt(result.p_value * (1 - result.p_value) / 10_000)
    )


def test_a_perfect_monte_carlo_result_keeps_the_plus_one():
    x = np.arange(30.0)
    result = permutation_correlation(x, x, num_resamples=999)
    assert result.p_value == result.p_floor == pytest.approx(1 / 1000)


def test_an_exact_5_percent_test_rejects_at_most_5_percent_of_null_draws():
    rng = np.random.default_rng(0)
    draws = 2_000
    x = np.arange(6.0)
    rejected = sum(
        permutation_correlation(x, rng.normal(size=6), kind="pearson").p_value <= 0.05
        for _ in range(draws)
    )
    assert rejected / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert rejected / draws > 0.03


def test_a_blocked_test_keeps_its_size_when_blocks_differ_in_level():
    rng = np.random.default_rng(1)
    draws = 2_000
    blocks = np.repeat([0, 1, 2], 4)
    x = np.tile(np.arange(4.0), 3) + blocks
    rejected = sum(
        permutation_correlation(
            x, rng.normal(size=12) + 10.0 * blocks, kind="spearman", blocks=blocks
        ).p_value
        <= 0.05
        for _ in range(draws)
    )
    assert rejected / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert rejected / draws > 0.03


def test_a_monte_carlo_test_keeps_its_size():
    rng = np.random.default_rng(2)
    draws = 2_000
    x = np.arange(12.0)
    rejected = sum(
        permutation_correlation(x, rng.normal(size=12), num_resamples=199).p_value <= 0.05
        for _ in range(draws)
    )
    # The draws share their 199 permutations, whose own error adds to the binomial one.
    assert 0.03 < rejected / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 * (1 / draws + 1 / 199))


def test_pairs_that_are_not_finite_are_excluded_and_counted():
    x = [1.0, 2.0, np.nan, 4.0, 5.0, 6.0]
    y = [2.0, 1.0, 3.0, np.inf, 6.0, 5.0]
    result = permutation_correlation(x, y)
    clean = permutation_correlation([1, 2, 5, 6], [2, 1, 6, 5])
    assert (result.num_units, result.num_excluded) == (4, 2)
    assert (result.statistic, result.p_value) == (clean.statistic, clean.p_value)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [3, 4]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([], [])])
def test_an_undefined_correlation_is_nan_and_says_so(x: list[float], y: list[float]):
    result = permutation_correlation(x, y)
    assert result.procedure == "undefined"
    assert np.isnan([result.statistic, result.p_value, result.p_floor]).all()
    assert not result.can_reach(0.05)


def test_unknown_kinds_name_the_nearest_choice():
    with pytest.raises(ConfigError, match="did you mean 'spearman'"):
        permutation_correlation([1, 2, 3], [1, 2, 3], kind="speerman")
    with pytest.raises(DriftscopeError, match="equally many"):
        permutation_correlation([1, 2, 3], [1, 2])
    with pytest.raises(DriftscopeError, match="one block per unit"):
        permutation_correlation([1, 2, 3], [1, 2, 3], blocks=[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=12))
def test_coefficients_equal_scipy_on_small_integers_full_of_ties(pairs: list[tuple[int, int]]):
    x, y = np.array(pairs, dtype=float).T
    for kind, reference in SCIPY.items():
        ours = correlation(x, y, kind=kind)
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert np.isnan(ours)
        else:
            assert ours == pytest.approx(reference(x, y), abs=1e-9)


def test_partial_correlation_equals_the_closed_form_for_one_covariate():
    rng = np.random.default_rng(11)
    z = rng.normal(size=50)
    x = z + rng.normal(size=50)
    y = -z + 0.5 * x + rng.normal(size=50)
    for kind in ("pearson", "spearman"):
        xy, xz, yz = (SCIPY[kind](first, second) for first, second in ((x, y), (x, z), (y, z)))
        expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
        result = partial_correlation(x, y, [z], kind=kind)
        assert result == pytest.approx(expected, abs=1e-12)


def test_partial_correlation_is_undefined_where_the_covariate_explains_a_side():
    x = np.arange(8.0)
    assert np.isnan(partial_correlation(x, x**2, [2 * x], kind="spearman"))
    assert np.isnan(partial_correlation([1, 2, 3], [3, 1, 2], [[1, 3, 2]]))


@pytest.mark.parametrize("kind", SCIPY)
def test_a_correlation_does_not_depend_on_the_unit(kind: str):
    x, y = TIED
    plain = permutation_correlation(x, y, kind=kind)
    for scale in (1e-300, 1e-160, 1e160):
        tiny = permutation_correlation([scale * v for v in x], [scale * v for v in y], kind=kind)
        assert (tiny.statistic, tiny.p_value) == pytest.approx((plain.statistic, plain.p_value))


def test_a_side_that_is_constant_but_for_rounding_has_no_correlation():
    result = permutation_correlation([0.1 + 0.2, 0.3, 0.3, 0.3], [1.0, 2.0, 3.0, 4.0])
    assert np.isnan([result.statistic, result.p_value]).all()
