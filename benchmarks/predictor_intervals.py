"""How often the 95 % interval of a signal's ρ with retention holds the population's.

    python benchmarks/predictor_intervals.py

Three kinds of clusters: cells in perfect order whose seeds scatter in both quantities; seeds that
go together as their cells do; seeds that are equal. Beside the interval's coverage stand that of
the percentile bootstrap, and that of the gap in |ρ| to a signal that says nothing.
"""

from __future__ import annotations

import argparse

import numpy as np

from driftscope.stats.bootstrap import resample_weights, spearman_over_cells, weighted_spearman

DESIGNS = ((8, 3), (16, 5), (22, 3))
POPULATION = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.956, 0.98)
KINDS = ("scatter", "together", "equal")


def clustered(
    rng: np.random.Generator, kind: str, rho: float, num_cells: int, num_seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs [2, unit] of normal cells and seeds whose population ρ is `rho`; the cell of each."""
    pearson = 2 * np.sin(np.pi * rho / 6)
    share = {"scatter": max(pearson, 0.5), "together": 0.9, "equal": 1.0}[kind]
    of_cells = pearson / share if kind == "scatter" else pearson
    of_seeds = 0.0 if kind == "scatter" else pearson
    cells = np.repeat(np.arange(num_cells), num_seeds)
    parts = [
        np.array([[1.0, 0.0], [r, np.sqrt(max(1 - r * r, 0.0))]]) @ rng.normal(size=(2, size))
        for r, size in ((of_cells, num_cells), (of_seeds, cells.size))
    ]
    return np.sqrt(share) * parts[0][:, cells] + np.sqrt(1 - share) * parts[1], cells


def percentile_holds(signal: np.ndarray, target: np.ndarray, cells: np.ndarray, rho: float) -> bool:
    """Whether the percentile interval over the same kind of resamples holds the value."""
    weights = np.concatenate(list(resample_weights(cells, 300, np.random.default_rng(0))))
    low, high = np.nanquantile(weighted_spearman(signal, target)(weights), [0.025, 0.975])
    return bool(low <= rho <= high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    print("cells seeds kind      rho    interval  width  percentile  gap")
    for num_cells, num_seeds in DESIGNS:
        for kind in KINDS:
            for rho in POPULATION:
                rng = np.random.default_rng(1)
                held = np.zeros(4)
                for _ in range(draws):
                    (signal, target), cells = clustered(rng, kind, rho, num_cells, num_seeds)
                    nothing = rng.normal(size=num_cells)[cells]
                    both = np.column_stack([signal, nothing])
                    (interval, _), (_, gap) = spearman_over_cells(
                        both, target, cells, num_resamples=300
                    )
                    held += (
                        interval.low <= rho <= interval.high,
                        interval.high - interval.low,
                        percentile_holds(signal, target, cells, rho),
                        gap.low <= rho <= gap.high,
                    )
                covered, width, percentile, of_gap = held / draws
                print(
                    f"{num_cells:5d} {num_seeds:5d} {kind:9s} {rho:.3f} {covered:9.3f} "
                    f"{width:6.2f} {percentile:11.3f} {of_gap:4.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
