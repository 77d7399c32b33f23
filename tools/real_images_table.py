"""The table of docs/real-data.md, from the runs of studies/real-images.yaml.

    python tools/real_images_table.py real-images [--into docs/real-data.md]

Prints it, or puts it between the page's markers. Every number comes from the records.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd

from driftscope.metrics import METRICS
from driftscope.records import load_runs, runs_table
from driftscope.records.schema import Point

MARKERS = ("<!-- table: real-images -->", "<!-- end of table -->")
COLUMNS = {
    "dataset": "dataset",
    "method": "method",
    "learning_rate": "rate",
    "test": "test accuracy",
    "zero_shot": "zero-shot on concepts100",
    "retention_pct": "retention",
    "delta_entropy_pct": "Δ entropy",
    "cka_debiased": "CKA, debiased",
    "weight_drift": "weight drift",
}


def table_of(folder: Path) -> str:
    records = load_runs(folder)
    runs = runs_table(records).assign(id=[record.id for record in records])
    selected = {record.id: record.result.selected for record in records}
    runs = runs.sort_values(["dataset", "method", "learning_rate"], ascending=[False, True, True])
    rows = [_row(run, selected[run["id"]]) for _, run in runs.iterrows()]
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS), *rows]
    before = records[0].result.pretrained.transfer["concepts100"]
    note = (
        f"{len(records)} runs, one seed each. The pretrained model scores "
        f"{before.accuracy_pct:.1f} % on the same {before.num_images} images of concepts100. "
        "In brackets 95 % Wilson intervals; they cover the sampling of images, not of seeds."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}"


def _row(run: pd.Series, selected: Point) -> list[str]:
    transfer = selected.transfer["concepts100"]
    low, high = selected.test_wilson_pct

    def written(name: str) -> str:
        return METRICS[name].with_unit(run[name])

    return [
        str(run["dataset"]),
        str(run["method"]),
        f"{run['learning_rate']:g}",
        f"{written('test_accuracy_pct')} of {selected.test_num_images} ({low:.0f}–{high:.0f})",
        f"{METRICS['zero_shot_pct'].with_unit(transfer.accuracy_pct)} "
        f"({transfer.wilson_low_pct:.0f}–{transfer.wilson_high_pct:.0f})",
        *map(written, ("retention_pct", "delta_entropy_pct", "cka_debiased", "weight_drift")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    table = table_of(options.folder)
    if options.into is None:
        print(table)
        return
    start, end = MARKERS
    page = options.into.read_text(encoding="utf-8")
    filled = f"{start}\n{table}\n{end}"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    options.into.write_text(pattern.sub(lambda _: filled, page), encoding="utf-8")


if __name__ == "__main__":
    main()
