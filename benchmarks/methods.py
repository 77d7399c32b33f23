"""Each way to adapt at its best rate: what it learns and what it keeps, as a table and a figure.

    python benchmarks/methods.py mini-methods [--figure docs/images/methods.png]

The best rate is the most accurate of those whose runs keep 90 % on average; of a way without such a
rate the most accurate. Numbers are means and standard deviations over the runs of a cell.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from driftscope.analysis.grouping import with_series
from driftscope.analysis.words import rate_text
from driftscope.metrics import KEPT_PCT
from driftscope.opened_study import Study

MEASURES = {"accuracy": "test accuracy, %", "retention": "retention, %"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    ways = best_rates(with_series(Study(options.study).runs()))
    print(ways.round(1).to_string(index=False))
    if options.figure:
        draw(ways, options.figure)


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a way, those that keep 90 % first, the most accurate first."""
    cells = runs.groupby(["series", "learning_rate"]).agg(
        num_runs=("run_id", "size"),
        accuracy=("test_accuracy_pct", "mean"),
        accuracy_sd=("test_accuracy_pct", "std"),
        retention=("retention_pct", "mean"),
        retention_sd=("retention_pct", "std"),
        lowest_retention=("retention_pct", "min"),
    )
    cells = cells.reset_index().assign(keeps=lambda cell: cell["retention"] >= KEPT_PCT)
    ordered = cells.sort_values(["keeps", "accuracy"], ascending=False)
    ways = ordered.drop_duplicates("series")
    return ways.assign(learning_rate=ways["learning_rate"].map(rate_text))


def draw(ways: pd.DataFrame, path: Path) -> None:
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(9, 6), layout="constrained")
    names = [
        f"{series.split(', pool')[0].split('_n_')[0].split('_init')[0]}, {rate}"
        for series, rate in zip(ways["series"], ways["learning_rate"], strict=True)
    ]
    places = range(len(ways) - 1, -1, -1)
    for panel, (key, label) in zip(panels, MEASURES.items(), strict=True):
        panel.errorbar(ways[key], places, xerr=ways[f"{key}_sd"], fmt="o", capsize=2)
        panel.set(xlabel=label, xlim=(0, 105), yticks=list(places), yticklabels=names)
        panel.grid(visible=True, alpha=0.3)
    panels[1].axvline(KEPT_PCT, color="black", linewidth=1)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
