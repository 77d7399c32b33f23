import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from driftscope.errors import ConfigError, DriftscopeError
from driftscope.stats.discrimination import roc_auc
from driftscope.stats.frontier import hypervolume, non_dominated
from driftscope.stats.multiplicity import Family, adjust

FAMILY = Family("four tests", ("a", "b", "c", "d"))
P_VALUES = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}


def holm_by_hand(p_values: list[float]):
    ordered = sorted(p_values)
    running, adjusted = 0.0, {}
    for rank, p in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p))
        adjusted[p] = running
    return [adjusted[p] for p in p_values]


def test_holm_of_a_textbook_family():
    adjusted = adjust(FAMILY, P_VALUES)
    assert adjusted.p_adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12, unique=True))
def test_holm_equals_the_step_down_by_hand(p_values: list[float]):
    family = Family("any", tuple(str(i) for i in range(len(p_values))))
    adjusted = adjust(family, dict(zip(family.members, p_values, strict=True)))
    assert list(adjusted.p_adjusted.values()) == pytest.approx(holm_by_hand(p_values))


def test_holm_equals_statsmodels_with_ties_zero_and_one():
    p_values = [0.02, 0.02, 1.0, 0.0, 0.3, 0.011, 0.02, 0.7]
    family = Family("eight tests", tuple("abcdefgh"))
    adjusted = adjust(family, dict(zip(family.members, p_values, strict=True)))
    expected = multipletests(p_values, method="holm")[1]
    assert list(adjusted.p_adjusted.values()) == pytest.approx(list(expected))


def test_one_nan_is_excluded_reported_and_does_not_contaminate_the_family():
    adjusted = adjust(FAMILY, {**P_VALUES, "b": float("nan")})
    without = adjust(Family("three", ("a", "c", "d")), {k: P_VALUES[k] for k in "acd"})
    assert adjusted.excluded == ("b",)
    assert adjusted.num_tests == 3
    assert np.isnan(adjusted.p_adjusted["b"])
    assert {k: adjusted.p_adjusted[k] for k in "acd"} == without.p_adjusted


def test_a_family_without_any_p_value_has_no_tests():
    adjusted = adjust(FAMILY, {})
    assert adjusted.num_tests == 0
    assert np.isnan(list(adjusted.p_adjusted.values())).all()


def test_a_test_that_was_not_declared_is_refused():
    with pytest.raises(ConfigError, match="declared without"):
        adjust(FAMILY, {**P_VALUES, "e": 0.0001})
    with pytest.raises(ConfigError, match="between 0 and 1"):
        adjust(FAMILY, {"a": 1.5})
    with pytest.raises(ConfigError, match="names a test twice"):
        Family("twice", ("a", "a"))


def test_a_family_of_true_nulls_is_rejected_at_most_5_percent_of_the_time():
    rng = np.random.default_rng(0)
    draws = 2_000
    family = Family("nulls", tuple("abcde"))
    p_values = (dict(zip("abcde", rng.uniform(size=5), strict=True)) for _ in range(draws))
    rejected = sum(min(adjust(family, ps).p_adjusted.values()) <= 0.05 for ps in p_values)
    assert 0.03 < rejected / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_auc_equals_the_share_of_pairs_in_order_ties_a_half():
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.35])
    positive = np.array([False, True, False, True, False])
    pairs = [(s > t) + 0.5 * (s == t) for s in scores[positive] for t in scores[~positive]]
    result = roc_auc(scores, positive, higher_means_positive=True)
    assert result.auc == pytest.approx(np.mean(pairs))
    assert (result.num_positive, result.num_negative) == (2, 3)


def test_the_wrong_direction_gives_a_low_auc_and_the_oriented_one_is_an_upper_bound():
    scores, positive = [1, 2, 3, 4], [False, False, True, True]
    result = roc_auc(scores, positive, higher_means_positive=False)
    assert (result.auc, result.oriented_auc) == (0.0, 1.0)


def test_auc_of_one_class_is_nan_and_scores_that_are_not_finite_are_counted():
    assert np.isnan(roc_auc([1, 2], [True, True], higher_means_positive=True).auc)
    result = roc_auc([1, 2, np.nan], [False, True, True], higher_means_positive=True)
    assert (result.auc, result.num_excluded) == (1.0, 1)
    result = roc_auc([1, 2, 3], [False, True, np.nan], higher_means_positive=True)
    assert (result.auc, result.num_positive, result.num_excluded) == (1.0, 1, 1)
    with pytest.raises(DriftscopeError, match="3 scores for 1 labels"):
        roc_auc([1, 2, 3], [True], higher_means_positive=True)


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15)


@settings(max_examples=200, deadline=None)
@given(POINTS)
def test_the_frontier_equals_pairwise_comparison(points: list[tuple[int, int]]):
    x, y = np.array(points, dtype=float).T
    expected = [
        not any(
            a >= x[i] and b >= y[i] and (a > x[i] or b > y[i]) for a, b in zip(x, y, strict=True)
        )
        for i in range(len(points))
    ]
    assert list(non_dominated(x, y)) == expected


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_the_hypervolume_equals_counting_unit_squares(points: list[tuple[int, int]]):
    covered = {(i, j) for a, b in points for i in range(a) for j in range(b)}
    x, y = np.array(points, dtype=float).T
    assert hypervolume(x, y) == pytest.approx(len(covered))


def test_points_below_the_reference_or_not_finite_add_nothing():
    assert hypervolume([2, 5, np.nan], [2, 0.5, 9], reference=(1, 1)) == pytest.approx(1.0)
    assert list(non_dominated([1, np.nan], [1, 5])) == [True, False]
