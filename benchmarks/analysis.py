"""Every question on a generated study of 10,000 runs: seconds a question, and in total.

    python benchmarks/analysis.py [--runs 10000]

The study: 2 datasets × 8 methods × as many rates as it takes × 5 seeds, 12 layers, 6 epochs, a
third of it regularised, a tenth read on five probe subsets. Numbers are drawn; only the shape and
the cost are real.
"""

from __future__ import annotations

import argparse
import time
from math import ceil

import numpy as np
import pandas as pd

from driftscope.analysis import QUESTIONS, StudyTables, answer

DATASETS, METHODS, SEEDS, LAYERS, EPOCHS = 2, 8, 5, 12, 6


def generated_study(num_runs: int, seed: int = 0) -> StudyTables:
    rng = np.random.default_rng(seed)
    num_rates = max(4, ceil(num_runs / (DATASETS * METHODS * SEEDS * 3)))
    rates = 10.0 ** np.linspace(-6, -3, num_rates)
    names = ["full_ft", *(f"lora_r{2**k}" for k in range(METHODS - 1))]
    grid = pd.MultiIndex.from_product(
        [
            [f"dataset_{k}" for k in range(DATASETS)],
            names,
            rates,
            range(SEEDS),
            ["none", "apr_0.1", "floor_0.1"],
        ],
        names=["dataset", "method", "learning_rate", "seed", "regularizer"],
    )
    runs = grid.to_frame(index=False)[:num_runs]
    strength = np.log10(runs["learning_rate"]) + 6 - 0.2 * runs["method"].map(names.index)
    strength = np.clip(strength + 0.1 * rng.normal(size=len(runs)), 0, None)
    runs["run_id"] = [f"run_{k}" for k in range(len(runs))]
    runs["model"], runs["protocol"], runs["transfer"] = "mini", "leakfree", "mosaic"
    runs["status"] = "done"
    runs["retention_pct"] = 100 * np.exp(-0.5 * strength)
    runs["val_accuracy_pct"] = 95 - 10 / (1 + strength) + rng.normal(size=len(runs))
    runs["test_accuracy_pct"] = runs["val_accuracy_pct"] + 0.3 * rng.normal(size=len(runs))
    signals = {
        "cka": 1 - 0.15 * strength,
        "cka_debiased": 1 - 0.16 * strength,
        "embedding_drift": 0.3 * strength,
        "weight_drift": 0.005 * 10 ** (0.4 * strength),
        "delta_entropy_pct": 1 - strength,
        "delta_erf95_pct": 1 - 1.5 * strength,
        "delta_gini_pct": 3 * strength,
        "delta_head_diversity_pct": -2 * strength,
        "train_loss": 1 / (1 + strength),
    }
    for name, values in signals.items():
        runs[name] = values + 0.05 * values.std() * rng.normal(size=len(runs))
    return StudyTables(runs, _history(runs, rng), _layers(runs, rng), _subsets(runs, rng))


def _history(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    history = runs.loc[runs.index.repeat(EPOCHS)].reset_index(drop=True)
    history["epoch"] = np.tile(np.arange(1, EPOCHS + 1), len(runs))
    history["delta_entropy_pct"] *= history["epoch"] / EPOCHS
    history["cka"] += 0.01 * rng.normal(size=len(history))
    return history.drop(columns=["status", "model", "protocol", "transfer"])


def _layers(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    wanted = ["run_id", "delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct", "cka"]
    layers = runs.loc[runs.index.repeat(LAYERS), wanted].reset_index(drop=True)
    layers["layer"] = np.tile(np.arange(1, LAYERS + 1), len(runs))
    layers["delta_entropy_pct"] *= layers["layer"] / LAYERS
    layers["entropy_nats"] = 3.6 + 0.1 * rng.normal(size=len(layers))
    return layers


def _subsets(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    some = runs.loc[runs.index[::10], ["run_id"]]
    subsets = some.loc[some.index.repeat(5)].reset_index(drop=True)
    subsets["subset"] = np.tile(np.arange(5), len(some))
    subsets["num_images"], subsets["signal"] = 200, "entropy_nats"
    subsets["value"] = 3.6 + 0.002 * rng.normal(size=len(subsets))
    return subsets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    tables = generated_study(parser.parse_args().runs)
    print(
        f"{len(tables.runs)} runs, {len(tables.history)} epochs, {len(tables.layers)} layer rows, "
        f"{len(tables.subsets)} subset readings"
    )
    total = total_cpu = 0.0
    for question in QUESTIONS:
        start, cpu_start = time.perf_counter(), time.process_time()
        result = answer(question, tables)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        total, total_cpu = total + seconds, total_cpu + cpu
        rows = len(result.table)
        print(f"{question:16s} {seconds:6.2f} s wall {cpu:6.2f} s CPU  {rows:6d} rows", flush=True)
    print(f"{'total':16s} {total:6.2f} s wall {total_cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
