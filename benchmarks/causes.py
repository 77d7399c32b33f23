"""Whether the layers where attention or representation moves are the layers that do the damage.

    python benchmarks/causes.py measure STUDY --out damage.jsonl [--run ID …]   # goes on
    python benchmarks/causes.py answer STUDY damage.jsonl

For runs that were made without `post: [where]` and kept their models: each one's damage is
attributed as `post` does it. The answer is that of the question `causes`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

import driftscope as ds
from driftscope.analysis import answer
from driftscope.analysis.answer_tables import answer_tables
from driftscope.records import RUNS_FOLDER
from driftscope.rescuing.where_of_run import IMAGES, PAIRS

POOL = "concepts100"


def measured(study: ds.Study, run: str) -> list[dict[str, Any]]:
    """One run's rows of the table `damage`."""
    folder = study.folder.root / RUNS_FOLDER / run
    found = ds.where(
        study.spec.base["model"], folder, POOL, max_images=IMAGES, num_pairs=PAIRS, heads=False
    )
    renamed = {"name": "group", "regained": "regained_points", "lost": "lost_points",
               "shapley": "shapley_points", "shapley_error": "shapley_error_points"}  # fmt: skip
    return [
        {"run_id": run, **{renamed.get(key, key): value for key, value in asdict(one).items()}}
        for one in found.groups
    ]


def measure(study: ds.Study, runs: Sequence[str], out: Path) -> None:
    """Appends the rows of each run that is not yet in the file."""
    known = {row["run_id"] for row in rows_of(out)} if out.exists() else set()
    for run in runs:
        if run not in known:
            rows = measured(study, run)
            with out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(study: ds.Study, rows: Sequence[dict[str, Any]]) -> str:
    """The question's sentences and its table."""
    found = answer("causes", replace(study.tables(), damage=pd.DataFrame(rows)))
    return "\n".join([found.words, *(table.to_markdown() for table in answer_tables(found)[:1])])


def main() -> None:
    """Measures, or answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("study", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--run", action="append", help="by default every finished run")
    answering = commands.add_parser("answer")
    answering.add_argument("study", type=Path)
    answering.add_argument("rows", type=Path)
    given = parser.parse_args()
    study = ds.Study(given.study)
    if given.command == "measure":
        measure(study, given.run or list(study.runs()["run_id"]), given.out)
    else:
        print(answered(study, rows_of(given.rows)))


if __name__ == "__main__":
    main()
