"""What a study's report costs in CPU time on one thread, on records made up for it.

    OMP_NUM_THREADS=1 python benchmarks/reports.py [--runs 80 1000] [--format html|all|…]

The made-up records have the shape and size of real ones; their numbers mean nothing. The time is
that of the whole command, starting Python included; the peak is the largest of the sizes so far.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import studies
from studies import write_runs

from driftscope.config import StudySpec
from driftscope.study import StudyFolder, expand


def study_of(num_runs: int) -> StudySpec:
    """Two datasets, two or five methods, four or ten rates, five or ten seeds."""
    small = num_runs <= 100
    methods = ("full_ft", "lora", "last_block", "linear_probe", "bitfit")
    rates = [1e-4 * 1.5**step for step in range(4 if small else 10)]
    per_seed = 2 * (2 if small else 5) * len(rates)
    return StudySpec(
        name="many",
        axes={
            "dataset": ("terrain", "stars"),
            "method": methods[: 2 if small else 5],
            "learning_rate": tuple(rates),
            "seed": tuple(range(max(1, num_runs // per_seed))),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[80, 1000])
    parser.add_argument("--format", default="html")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--decays", action="store_true", help="the 500 cells of studies.py")
    options = parser.parse_args()
    matrix = studies.study_of if options.decays else study_of
    for num_runs in options.runs:
        with tempfile.TemporaryDirectory() as place:
            folder = StudyFolder(Path(place) / "study")
            folder.declare(matrix(num_runs))
            specs = expand(matrix(num_runs))
            write_runs(folder, specs, options.layers, options.heads)
            measure(folder.root, Path(place) / "out", options.format, len(specs))


def measure(study: Path, out: Path, form: str, num_runs: int) -> None:
    """Runs the command and prints what it took."""
    command = [sys.executable, "-m", "driftscope", "study", "report", str(study)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(out), "--format", form], check=True, stdout=subprocess.DEVNULL
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    page = out / "report.html"
    size = f", page {page.stat().st_size / 1e6:.1f} MB" if page.exists() else ""
    print(
        f"{num_runs} runs, {form}: {cpu:.1f} CPU seconds, {wall:.1f} s{size}, "
        f"peak {after.ru_maxrss / 1e6:.2f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
