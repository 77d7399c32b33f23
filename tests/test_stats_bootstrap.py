import numpy as np
import pytest
from scipy import stats as scipy_stats

from driftscope.errors import ConfigError
from driftscope.stats import (
    bootstrap_over_cells,
    cell_weights,
    weighted_mean,
    weighted_spearman,
    with_gaps_of_sizes,
)

DRAWS = 2_000


def expanded(weights: np.ndarray, values: np.ndarray):
    """The resample written out, each unit as often as it was drawn."""
    return np.repeat(values, weights.astype(int))


def test_weights_draw_as_many_cells_as_there_are_and_whole_cells_when_asked():
    cells = np.array(list("aabbbcccd"))
    weights = cell_weights(cells, 500, seed=1, resample_seeds=False)
    per_cell = np.stack([weights[:, cells == name] for name in "a"])[0]
    assert (per_cell[:, 0] == per_cell[:, 1]).all()
    copies = sum(weights[:, np.flatnonzero(cells == name)[0]] for name in "abcd")
    assert (copies == 4).all()


def test_hierarchical_weights_draw_a_multiple_of_the_cell_size_from_each_cell():
    cells = np.array(list("aabbbcccd"))
    weights = cell_weights(cells, 500, seed=1)
    copies = sum(weights[:, cells == name].sum(axis=1) / (cells == name).sum() for name in "abcd")
    assert copies == pytest.approx(np.full(500, 4.0))
    assert (weights[:, :2].sum(axis=1) % 2 == 0).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(9), abs=0.15)


def test_the_same_seed_draws_the_same_weights_and_another_does_not():
    cells = np.repeat(np.arange(6), 3)
    assert (cell_weights(cells, 50, seed=4) == cell_weights(cells, 50, seed=4)).all()
    assert (cell_weights(cells, 50, seed=4) != cell_weights(cells, 50, seed=5)).any()


def test_weighted_spearman_equals_scipy_on_the_resample_written_out():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 8, size=30).astype(float), rng.normal(size=30)
    signals = np.column_stack([x, -y + rng.normal(size=30)])
    weights = cell_weights(np.repeat(np.arange(10), 3), 40, seed=3)
    ours = weighted_spearman(signals, y)(weights)
    for row, values in zip(weights, ours, strict=True):
        expected = [
            scipy_stats.spearmanr(expanded(row, column), expanded(row, y)).statistic
            for column in signals.T
        ]
        assert values == pytest.approx(expected, abs=1e-9)


def test_weighted_spearman_is_nan_where_the_resample_is_constant():
    statistic = weighted_spearman([1.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert np.isnan(statistic(np.array([[0.0, 2.0, 1.0]]))[0, 0])


def test_weighted_mean_equals_the_mean_of_the_resample_written_out():
    values = np.arange(6.0)
    weights = cell_weights(list("aabbcc"), 20)
    expected = [expanded(row, values).mean() for row in weights]
    assert weighted_mean(values)(weights) == pytest.approx(expected)


def test_the_bootstrap_error_of_a_mean_of_cells_equals_the_closed_form():
    rng = np.random.default_rng(6)
    cells = np.repeat(np.arange(25), 3)
    values = rng.normal(size=25)[cells] + 0.3 * rng.normal(size=75)
    (whole,) = bootstrap_over_cells(
        weighted_mean(values), cells, num_resamples=20_000, resample_seeds=False
    )
    means = values.reshape(25, 3).mean(axis=1)
    assert whole.standard_error == pytest.approx(means.std() / 5, rel=0.03)
    (both,) = bootstrap_over_cells(weighted_mean(values), cells, num_resamples=20_000)
    within = values.reshape(25, 3).var(axis=1).mean() / 3
    assert both.standard_error == pytest.approx(np.sqrt((means.var() + within) / 25), rel=0.03)


def test_bca_equals_scipy_when_every_cell_has_one_run():
    rng = np.random.default_rng(7)
    values = rng.exponential(size=30)
    reference = scipy_stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    (ours,) = bootstrap_over_cells(
        weighted_mean(values), np.arange(30), num_resamples=20_000, interval="bca", seed=1
    )
    # One seed gives both libraries the same draws.
    assert (ours.low, ours.high) == pytest.approx(tuple(reference), abs=1e-9)
    (plain,) = bootstrap_over_cells(
        weighted_mean(values), np.arange(30), num_resamples=20_000, seed=1
    )
    assert ours.high > plain.high


def test_seeds_of_a_cell_are_not_counted_as_independent_evidence():
    rng = np.random.default_rng(8)
    cell_values = rng.normal(size=20)
    once = bootstrap_over_cells(weighted_mean(cell_values), np.arange(20))[0]
    ten_times = bootstrap_over_cells(
        weighted_mean(np.repeat(cell_values, 10)), np.repeat(np.arange(20), 10)
    )[0]
    assert ten_times.standard_error == pytest.approx(once.standard_error, rel=0.1)
    assert (ten_times.num_cells, ten_times.num_units) == (20, 200)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_intervals_of_a_mean_cover_over_2000_draws(interval: str):
    rng = np.random.default_rng(10)
    cells = np.repeat(np.arange(50), 2)
    covered = 0
    for draw in range(DRAWS):
        values = rng.normal(size=50)[cells] + 0.4 * rng.normal(size=100)
        (result,) = bootstrap_over_cells(
            weighted_mean(values), cells, num_resamples=400, interval=interval, seed=draw
        )
        covered += result.low <= 0 <= result.high
    assert 0.93 <= covered / DRAWS <= 0.97


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_intervals_of_spearman_cover_over_2000_draws(interval: str):
    rng = np.random.default_rng(11)
    cells = np.repeat(np.arange(50), 2)
    noise = 0.2
    pearson = 0.6 / (1 + noise**2)  # of runs: cells correlate 0.6, seeds add noise to both sides
    truth = 6 / np.pi * np.arcsin(pearson / 2)
    covered = 0
    for draw in range(DRAWS):
        pair = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=50)[cells]
        pair = pair + noise * rng.normal(size=pair.shape)
        (result,) = bootstrap_over_cells(
            weighted_spearman(pair[:, 0], pair[:, 1]),
            cells,
            num_resamples=400,
            interval=interval,
            seed=draw,
        )
        covered += result.low <= truth <= result.high
    assert 0.93 <= covered / DRAWS <= 0.97


def test_a_gap_between_two_equally_good_signals_is_called_at_most_5_percent_of_the_time():
    rng = np.random.default_rng(12)
    cells = np.repeat(np.arange(40), 2)
    called = 0
    for draw in range(DRAWS):
        target = rng.normal(size=40)
        signals = np.column_stack([target, -target])
        signals = signals + rng.normal(size=(40, 2))
        seeds = 0.1 * rng.normal(size=(80, 2))
        statistic = weighted_spearman(signals[cells] + seeds, target[cells])
        statistic = with_gaps_of_sizes(statistic, 0)
        gap = bootstrap_over_cells(statistic, cells, num_resamples=400, seed=draw)[3]
        called += gap.excludes(0.0)
    assert 0.02 < called / DRAWS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS)


def test_a_paired_gap_is_tighter_than_two_intervals_apart():
    rng = np.random.default_rng(13)
    cells = np.repeat(np.arange(30), 2)
    target = rng.normal(size=30)[cells]
    good = target + 0.8 * rng.normal(size=30)[cells]
    similar = -good + 0.1 * rng.normal(size=60)
    statistic = weighted_spearman(np.column_stack([good, similar]), target)
    *apart, _, gap = bootstrap_over_cells(with_gaps_of_sizes(statistic, 0), cells)
    assert gap.estimate == pytest.approx(abs(apart[0].estimate) - abs(apart[1].estimate))
    assert gap.standard_error < 0.5 * apart[0].standard_error


def test_one_cell_gives_an_estimate_and_no_interval():
    (result,) = bootstrap_over_cells(weighted_mean([1.0, 2.0, 3.0]), ["a"] * 3)
    assert result.estimate == 2.0
    assert np.isnan([result.low, result.high, result.standard_error]).all()


def test_undefined_resamples_are_counted_and_left_out():
    statistic = weighted_spearman([1.0, 2.0, 3.0], [3.0, 1.0, 2.0])
    (result,) = bootstrap_over_cells(statistic, list("abc"), num_resamples=500)
    assert 30 < result.num_undefined < 110  # one resample in nine draws one cell three times
    assert np.isfinite([result.low, result.high]).all()


def test_unknown_intervals_are_refused():
    with pytest.raises(ConfigError, match="bca"):
        bootstrap_over_cells(weighted_mean([1.0, 2.0]), ["a", "b"], interval="bcaa")
    with pytest.raises(ConfigError, match="at least 2 resamples"):
        bootstrap_over_cells(weighted_mean([1.0, 2.0]), ["a", "b"], num_resamples=1)
