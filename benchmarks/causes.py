"""Whether the layers where attention or representation moves are the layers that do the damage.

    python benchmarks/causes.py measure STUDY/runs/* --out causes.jsonl     # goes on where it was
    python benchmarks/causes.py table causes.jsonl

Each run's damage is attributed to its blocks (`driftscope where`). Over blocks, within runs, the
damage is ranked against what changed there: entropy, CKA, and the CKA lost at the block itself,
that is beyond the block below. The p-value is of exact permutations of blocks within runs where
they are few enough, else of sampled ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import driftscope as ds
from driftscope.config import RunSpec
from driftscope.stats.correlation import correlation, permutation_correlation

POOL, IMAGES, PAIRS = "concepts100", 80, 2


def measured(run: Path) -> dict[str, Any]:
    """One run's damage and drift by block."""
    spec = RunSpec.model_validate_json((run / "spec.json").read_text())
    found = ds.where(spec.model, run, POOL, max_images=IMAGES, num_pairs=PAIRS, heads=False)
    return {
        "run": run.name,
        "dataset": spec.dataset,
        "method": spec.method.kind,
        "rate": spec.learning_rate,
        "retention": found.retention_pct,
        "damage": found.by_block(),
        **found.profile,
    }


def signals(row: dict[str, Any]) -> dict[str, np.ndarray]:
    """What changed at each block, by name: the larger, the more."""
    away = 1 - np.array(row["cka"])
    return {
        "|change of entropy|": np.abs(row["delta_entropy_pct"]),
        "1 − CKA": away,
        "CKA lost at the block": np.diff(away, prepend=0.0),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rank correlations over blocks within runs, with p-values and their floors."""
    damage = np.concatenate([one["damage"] for one in rows])
    runs = [one["run"] for one in rows for _ in one["damage"]]
    lines = [
        f"{len(rows)} runs of {len(rows[0]['damage'])} blocks",
        "| at a block | mean Spearman within a run | p | floor | arrangements |",
        "|---|---|---|---|---|",
    ]
    for name in signals(rows[0]):
        moved = np.concatenate([signals(one)[name] for one in rows])
        within = [correlation(one["damage"], signals(one)[name]) for one in rows]
        test = permutation_correlation(ranks(damage, runs), ranks(moved, runs), blocks=runs)
        lines.append(
            f"| {name} | {np.mean(within):+.2f} | {test.p_value:.4f} | {test.p_floor:.2g} | "
            f"{test.num_arrangements} |"
        )
    return "\n".join(lines)


def ranks(values: np.ndarray, runs: Sequence[str]) -> np.ndarray:
    """Ranks within each run, so that runs of great damage do not outweigh the others."""
    from scipy.stats import rankdata

    found = np.empty(len(values))
    for run in dict.fromkeys(runs):
        mine = np.array([one == run for one in runs])
        found[mine] = rankdata(values[mine])
    return found


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("runs", nargs="+", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    commands.add_parser("table").add_argument("rows", type=Path)
    given = parser.parse_args()
    if given.command == "table":
        lines = given.rows.read_text().splitlines()
        print(table([json.loads(line) for line in lines]))
        return
    known = given.out.read_text() if given.out.exists() else ""
    for run in given.runs:
        if run.name in known or not (run / "result.json").exists():
            continue
        row = measured(run)
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
