import numpy as np
import pytest
from scipy import stats as scipy_stats

from driftscope.errors import ConfigError
from driftscope.stats.bootstrap import resample_weights, spearman_over_cells, weighted_spearman

DRAWS = 300
SLACK = 3 * np.sqrt(0.05 * 0.95 / DRAWS)


def weights_of(cells: np.ndarray, num_resamples: int, seed: int = 0):
    codes = np.unique(cells, return_inverse=True)[1]
    chunks = resample_weights(codes, num_resamples, np.random.default_rng(seed))
    return np.concatenate(list(chunks))


def expanded(weights: np.ndarray, values: np.ndarray):
    """The resample written out, each unit as often as it was drawn."""
    return np.repeat(values, weights.astype(int))


def clustered(rng: np.random.Generator, rho: float, num_cells: int, num_seeds: int):
    """Cells in perfect order whose seeds scatter, so that the runs' population ρ is `rho`."""
    share = 2 * np.sin(np.pi * rho / 6)  # the runs' Pearson correlation: the cells' share of it
    cells = np.repeat(np.arange(num_cells), num_seeds)
    both = np.sqrt(share) * rng.normal(size=num_cells)[cells]
    noise = np.sqrt(1 - share) * rng.normal(size=(2, cells.size))
    return both + noise[0], both + noise[1], cells


def test_weights_draw_a_multiple_of_the_cell_size_from_each_cell():
    cells = np.array(list("aabbbcccd"))
    weights = weights_of(cells, 500, seed=1)
    copies = sum(weights[:, cells == name].sum(axis=1) / (cells == name).sum() for name in "abcd")
    assert copies == pytest.approx(np.full(500, 4.0))
    assert (weights[:, :2].sum(axis=1) % 2 == 0).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(9), abs=0.15)


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    x, y, cells = clustered(np.random.default_rng(3), 0.8, 10, 3)
    one, again, other = (spearman_over_cells(x, y, cells, seed=seed)[0][0] for seed in (4, 4, 5))
    assert one == again
    assert one.estimate == other.estimate
    assert one.low != other.low


def test_an_interval_holds_its_estimate_and_nothing_that_is_impossible():
    """Also where the order is perfect, and of sizes of correlations that may have either sign."""
    rng = np.random.default_rng(0)
    for num_cells in (6, 8, 12):
        x = np.arange(float(num_cells))
        noise = rng.normal(size=(num_cells, 6))
        swapped = x.copy()
        swapped[[2, 3]] = swapped[[3, 2]]
        signals = np.column_stack([x, -x, swapped, noise])
        for target in (x, -x):
            for found in spearman_over_cells(signals, target, np.arange(num_cells)):
                for one in found:
                    assert -1 <= one.low <= one.estimate <= one.high <= 1


def test_weighted_spearman_equals_scipy_on_the_resample_written_out():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 8, size=30).astype(float), rng.normal(size=30)
    signals = np.column_stack([x, -y + rng.normal(size=30)])
    weights = weights_of(np.repeat(np.arange(10), 3), 40)
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


def test_seeds_of_a_cell_are_not_counted_as_independent_evidence():
    rng = np.random.default_rng(8)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=20).T
    once = spearman_over_cells(x, y, np.arange(20))[0][0]
    (ten,), _ = spearman_over_cells(
        np.repeat(x, 10), np.repeat(y, 10), np.repeat(np.arange(20), 10)
    )
    assert ten.num_cells == once.num_cells == 20
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high), abs=0.05)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8, 0.956, 0.978])
@pytest.mark.parametrize(("num_cells", "num_seeds"), [(8, 3), (16, 5)])
def test_intervals_cover_whatever_the_population_value(rho: float, num_cells: int, num_seeds: int):
    rng = np.random.default_rng(11)
    covered = 0
    for draw in range(DRAWS):
        x, y, cells = clustered(rng, rho, num_cells, num_seeds)
        (result,), _ = spearman_over_cells(x, y, cells, num_resamples=200, seed=draw)
        covered += result.low <= rho <= result.high
    assert covered / DRAWS >= 0.95 - SLACK


def test_intervals_cover_where_seeds_are_equal_and_the_sample_is_in_perfect_order():
    """Of resamples in perfect order none tells how far from it the population is."""
    rng = np.random.default_rng(16)
    pearson = 2 * np.sin(np.pi * 0.978 / 6)
    cells = np.repeat(np.arange(8), 3)
    covered = 0
    for draw in range(DRAWS):
        x, y = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], size=8).T
        (result,), _ = spearman_over_cells(x[cells], y[cells], cells, num_resamples=200, seed=draw)
        covered += result.low <= 0.978 <= result.high
    assert covered / DRAWS >= 0.95 - SLACK


def test_an_interval_of_many_unclustered_runs_is_the_textbook_one():
    rng = np.random.default_rng(14)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=400).T
    (result,), _ = spearman_over_cells(x, y, np.arange(400), num_resamples=4_000)
    half = 1.96 * np.sqrt((1 + result.estimate**2 / 2) / 397)  # Bonett & Wright 2000
    z = np.arctanh(result.estimate)
    expected = (np.tanh(z - half), np.tanh(z + half))
    assert (result.low, result.high) == pytest.approx(expected, abs=0.015)


def test_a_gap_between_two_equally_good_signals_is_called_at_most_5_percent_of_the_time():
    rng = np.random.default_rng(12)
    cells = np.repeat(np.arange(40), 2)
    called = 0
    for draw in range(DRAWS):
        target = rng.normal(size=40)
        signals = np.column_stack([target, -target]) + rng.normal(size=(40, 2))
        seeds = 0.1 * rng.normal(size=(80, 2))
        _, (_, gap) = spearman_over_cells(
            signals[cells] + seeds, target[cells], cells, num_resamples=200, seed=draw
        )
        called += gap.low > 0 or gap.high < 0
    assert 0 < called / DRAWS <= 0.05 + SLACK


def test_the_gap_to_a_signal_that_says_nothing_is_covered():
    rng = np.random.default_rng(15)
    covered = 0
    for draw in range(DRAWS):
        x, y, cells = clustered(rng, 0.956, 16, 5)
        nothing = rng.normal(size=16)[cells]
        _, (_, gap) = spearman_over_cells(
            np.column_stack([x, nothing]), y, cells, num_resamples=200, seed=draw
        )
        covered += gap.low <= 0.956 <= gap.high
    assert covered / DRAWS >= 0.95 - SLACK


def test_a_paired_gap_is_tighter_than_two_intervals_apart():
    rng = np.random.default_rng(13)
    cells = np.repeat(np.arange(30), 2)
    target = rng.normal(size=30)[cells]
    good = target + 0.8 * rng.normal(size=30)[cells]
    similar = -good + 0.1 * rng.normal(size=60)
    apart, (_, gap) = spearman_over_cells(np.column_stack([good, similar]), target, cells)
    assert gap.estimate == pytest.approx(abs(apart[0].estimate) - abs(apart[1].estimate))
    unpaired = np.hypot(*(interval.high - interval.low for interval in apart))
    assert gap.high - gap.low < 0.6 * unpaired


def test_a_perfect_order_has_an_interval_with_an_end_below_1():
    (result,), _ = spearman_over_cells(np.arange(12.0), np.arange(12.0), np.arange(12))
    assert result.estimate == pytest.approx(1.0)
    assert result.low <= result.estimate


def test_few_cells_give_an_estimate_and_no_interval():
    (result,), _ = spearman_over_cells([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], ["a", "b", "c"])
    assert result.estimate == pytest.approx(0.5)
    assert np.isnan([result.low, result.high]).all()


def test_one_resample_is_refused():
    with pytest.raises(ConfigError, match="at least 2 resamples"):
        spearman_over_cells([1.0, 2.0], [1.0, 2.0], ["a", "b"], num_resamples=1)
