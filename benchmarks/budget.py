"""What a retention budget costs a run: CPU seconds of whole runs, in turn.

    OMP_NUM_THREADS=1 python benchmarks/budget.py [--dataset terrain] [--rounds 3]

The runs are cells of `mini-budget`: full fine-tuning at 1e-3, seed 7. Each round makes all four (A
B C D A …), so that a machine that slows down slows all of them; ratios are taken within a round,
then the median over rounds. A run before the first round fills the cache of the pretrained model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from driftscope.config import RunSpec
from driftscope.config.study import load_study_spec
from driftscope.run import run_one
from driftscope.study.matrix import expand, select

PLAIN, POOL = "plain", "plain, retention estimated at each epoch"


def variants(dataset: str) -> dict[str, RunSpec]:
    """The runs to compare, by what they do."""
    conditions = ["method=full_ft", "learning_rate=1e-3", "seed=7", "regularizers=none"]
    cells = select(expand(load_study_spec("mini-budget")), [*conditions, f"dataset={dataset}"])
    by_budget = {one.budget.retention_pct if one.budget else None: one for one in cells}
    plain = by_budget.pop(None).model_copy(update={"post": ()})  # a rescue is no training
    budgets = {f"budget {pct:g}": one for pct, one in by_budget.items() if pct is not None}
    return {PLAIN: plain.model_copy(update={"pool": None}), POOL: plain, **budgets}


def cpu_seconds(spec: RunSpec) -> float:
    """Of one whole run in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run_one(spec, Path(folder) / "run", device="cpu")
        return time.process_time() - began


def table(dataset: str, seconds: Mapping[str, list[float]]) -> Table:
    """Medians of the seconds and of the ratios."""
    shown = Table(title=f"{dataset}, {len(seconds[PLAIN])} rounds: CPU seconds of a run")
    shown.add_column("run")
    for column in ("seconds", "÷ plain", "÷ plain with the estimates"):
        shown.add_column(column, justify="right")
    for name, mine in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(mine, seconds[base], strict=True))
            for base in (PLAIN, POOL)
        ]
        shown.add_row(name, f"{statistics.median(mine):.1f}", *(f"{one:.2f}" for one in ratios))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("terrain", "stars"), default="terrain")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    specs = variants(options.dataset)
    cpu_seconds(specs[POOL])
    seconds: dict[str, list[float]] = {name: [] for name in specs}
    for _ in range(options.rounds):
        for name, spec in specs.items():
            seconds[name].append(cpu_seconds(spec))
    Console().print(table(options.dataset, seconds))


if __name__ == "__main__":
    main()
