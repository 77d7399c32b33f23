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

from driftscope.analysis import answer
from driftscope.analysis.words import rate_text
from driftscope.metrics import KEPT_PCT
from driftscope.opened_study import Study

MEASURES = {"test_accuracy_pct": "test accuracy, %", "retention_pct": "retention, %"}
SHOWN = ["method", "learning_rate", *(f"{key}{sd}" for key in MEASURES for sd in ("", "_sd"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    ways = best_rates(answer("frontier", Study(options.study).tables()).table)
    print(ways[[*SHOWN, "lowest_retention_pct", "num_runs"]].round(1).to_string(index=False))
    if options.figure:
        draw(ways, options.figure)


def best_rates(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a way, those that keep 90 % first, the most accurate first."""
    marked = cells.assign(keeps=cells["retention_pct"] >= KEPT_PCT)
    ordered = marked.sort_values(["keeps", "test_accuracy_pct"], ascending=False)
    ways = ordered.drop_duplicates("method")
    return ways.assign(learning_rate=ways["learning_rate"].map(rate_text))


def draw(ways: pd.DataFrame, path: Path) -> None:
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(9, 6), layout="constrained")
    names = [
        f"{method.split(', pool')[0].split('_n_')[0].split('_init')[0]}, {rate}"
        for method, rate in zip(ways["method"], ways["learning_rate"], strict=True)
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
