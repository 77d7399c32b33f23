"""What each way of a rescue keeps, on runs of a study: accuracy and retention, measured.

    python benchmarks/rescue.py measure STUDY/runs/* --out kept.jsonl     # goes on where it was
    python benchmarks/rescue.py table kept.jsonl

The pool is of the training split of concepts100, retention is measured on its test split, and the
target's images are parted as `driftscope rescue` does. At every budget a way's last point that
keeps it with the lower end of the 90 % interval is measured, useful or not. Seconds are those of
the way so far, the search included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import driftscope as ds
from driftscope.blending import Blend
from driftscope.comparison import related_models
from driftscope.config import RunSpec
from driftscope.data.prompts import prompt_rules
from driftscope.estimate import make_pool
from driftscope.rescuing.judge import Judge
from driftscope.rescuing.points import USUAL, Point, Way
from driftscope.rescuing.target import kept_classifier, open_target
from driftscope.rescuing.ways import Path as Along
from driftscope.rescuing.ways import path_of
from driftscope.transfer import labelled_sets

BUDGETS = (90, 95, 99)
GRID, HALVINGS = (0.0, 0.25, 0.5, 0.75, 1.0), 3
TARGET_IMAGES, POOL_IMAGES, TRANSFER_IMAGES = 150, 300, 400
POOL = "concepts100"


def measured(run: Path) -> Iterator[dict[str, Any]]:
    """A row an end and a way's point at a budget."""
    spec = RunSpec.model_validate_json((run / "spec.json").read_text())
    before, after = related_models(spec.model, run, None)
    held = ds.open_dataset(POOL, "train")
    pixels = held.pixels(range(0, len(held), len(held) // POOL_IMAGES), before.framing)
    pool = make_pool(before, pixels, POOL, prompt_rules(None, None), None)
    target = open_target(spec.dataset, before, TARGET_IMAGES)
    kept = kept_classifier(run)
    (benchmark,) = labelled_sets(POOL, before, TRANSFER_IMAGES)
    blend = Blend(before, after)
    judge = Judge(before, after, pool, target, kept.classifier if kept else None)

    def correct(model: ds.VisionLanguageModel) -> int:
        found = {name: model.embed_images(one) for name, one in benchmark.image_sets().items()}
        return int(benchmark.outcome_from(found, model).score.num_correct)

    first = correct(before)

    def row(way: str, budget: float | None, point: Point, seconds: float) -> dict[str, Any]:
        whole = judge.completed(point, blend)[0]
        assert whole.accuracy is not None
        return {
            "run": run.name,
            "dataset": spec.dataset,
            "method": spec.method.kind,
            "rate": spec.learning_rate,
            "way": way,
            "budget": budget,
            "scale": point.scale,
            "estimated": point.estimate.retention_pct,
            "low": point.estimate.low_90_pct,
            "measured": 100 * correct(blend.set(point.strengths)) / first,
            "refitted": whole.accuracy.refitted.accuracy_pct,
            "kept_head": whole.accuracy.kept_head and whole.accuracy.kept_head.accuracy_pct,
            "seconds": seconds,
        }

    for way, end in (("pretrained", 0.0), ("adapted", 1.0)):
        yield row(way, None, judge.estimated("wise", blend, end, blend.uniform(end)), 0.0)
    for way in USUAL:
        started = time.process_time()
        path = path_of(way, blend, judge, 0)

        def ask(at: float, way: Way = way, path: Along = path) -> Point:
            return judge.estimated(way, blend, at, path(at))

        seen = {at: ask(at) for at in GRID}
        for budget in BUDGETS:
            point = last_that_keeps(budget, seen, ask)
            yield row(way, budget, point, time.process_time() - started)


def last_that_keeps(budget: float, seen: dict[float, Point], ask: Any) -> Point:
    """The furthest point on a way that keeps a budget, to a 32nd of it."""
    good = max(at for at, one in seen.items() if one.keeps(budget) or at == 0)
    bad = min((at for at in seen if at > good), default=good)
    for _ in range(HALVINGS if bad > good else 0):
        middle = (good + bad) / 2
        seen[middle] = ask(middle)
        good, bad = (middle, bad) if seen[middle].keeps(budget) else (good, middle)
    return seen[good]


def measure(runs: Sequence[Path], out: Path) -> None:
    """Appends the rows of each run that is done and not yet in the file."""
    known = {one["run"] for one in rows_of(out)} if out.exists() else set()
    for run in runs:
        if run.name in known or not (run / "result.json").exists():
            continue
        rows = list(measured(run))
        with out.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over runs, and how often the search is on or above its rivals."""
    runs = sorted({one["run"] for one in rows})
    lines = [
        f"{len(runs)} runs; retention measured on {TRANSFER_IMAGES} images",
        "| budget | way | fitted anew | old classifier | retention | budget kept | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for budget in (None, *BUDGETS):
        for way in ("pretrained", "adapted", *USUAL):
            mine = [one for one in rows if (one["budget"], one["way"]) == (budget, way)]
            if not mine:
                continue
            old = [one["kept_head"] for one in mine if one["kept_head"] is not None]
            kept = sum(one["measured"] >= (budget or 0) for one in mine)
            lines.append(
                f"| {budget or '–'} | {way} | {fmean(one['refitted'] for one in mine):.1f} | "
                f"{fmean(old) if old else float('nan'):.1f} | "
                f"{fmean(one['measured'] for one in mine):.1f} | "
                f"{f'{kept} of {len(mine)}' if budget else '–'} | "
                f"{fmean(one['seconds'] for one in mine):.0f} |"
            )
    for budget in BUDGETS:
        at = {(o["run"], o["way"]): o["refitted"] for o in rows if o["budget"] == budget}
        ends = {o["run"]: o["refitted"] for o in rows if o["way"] == "pretrained"}
        margins = [at[run, "search"] - max(at[run, "lines"], at[run, "wise"]) for run in runs]
        above = sum(margin >= 0 for margin in margins)
        beats = sum(at[run, "search"] > ends[run] for run in runs)
        lines.append(
            f"{budget}: search on or above the better rival in {above} of {len(runs)} runs, by "
            f"{fmean(margins):+.1f} points on average; above the linear probe in {beats}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("runs", nargs="+", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    commands.add_parser("table").add_argument("rows", type=Path)
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.runs, given.out)
    else:
        print(table(rows_of(given.rows)))


if __name__ == "__main__":
    main()
