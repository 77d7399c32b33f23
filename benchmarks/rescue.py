"""What each way of a rescue keeps, on runs of a study: accuracy and retention, measured.

    python benchmarks/rescue.py measure STUDY/runs/* --out kept.jsonl     # goes on where it was
    python benchmarks/rescue.py table kept.jsonl

The pool comes from the training split of concepts100; at 99 % it is larger. Retention is measured
on the test split. The target's images are parted as `driftscope rescue` does, but more test images
are read, so that accuracies are known better. At every budget a way's last point that keeps it with
the lower end of the 90 % interval is measured, useful or not. Seconds are those of looks that no
way before has made, and of the search.

One budget leaves ways at different retentions. So the search is also compared at equal retention:
that of its own point. What a rival has there is the better of two: the straight line between its
measured points beside it, and its points that keep more. Rivals are measured at some scales, too,
so that they have points on both sides.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

import driftscope as ds
from driftscope.blending import Blend
from driftscope.config import RunSpec, Way
from driftscope.data.prompts import prompt_rules
from driftscope.estimate import make_pool
from driftscope.reference import evenly_spaced
from driftscope.related_models import related_models
from driftscope.rescuing.budgets import (
    BUDGETS_PCT,
    Kept,
    kept_at_budgets,
    kept_at_ends,
    kept_at_point,
)
from driftscope.rescuing.judge import Judge, outcome_on, usual_of_pool
from driftscope.rescuing.points import USUAL
from driftscope.rescuing.target import Target, kept_classifier, open_target
from driftscope.rescuing.ways import path_of
from driftscope.transfer import labelled_sets, retention_pct

TARGET_IMAGES, TEST_IMAGES, TRANSFER_IMAGES = 150, 600, 1000
EVERY = 16
"""Up to 95 % every 16th of 5,000 images is the pool: 313. A rescue reads 400."""
POOL = "concepts100"
RIVALS: tuple[Way, ...] = ("lines", "wise")
SCALES = {"lines": (0.25, 0.5, 0.75, 1.0), "wise": (0.25, 0.5, 0.75)}


class Measured:
    """A run's models, and what they are measured on.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self.spec = RunSpec.model_validate_json((run / "spec.json").read_text())
        self.before, self.after = related_models(self.spec.model, run, None)
        self.blend = Blend(self.before, self.after)
        target = open_target(self.spec.dataset, self.before, TARGET_IMAGES)
        self.target = _with_more_tests(target, self.before)
        kept = kept_classifier(run)
        self.classifier = kept.classifier if kept else None
        (self.benchmark,) = labelled_sets(POOL, self.before, TRANSFER_IMAGES)
        self.first = outcome_on(self.benchmark, self.before, self.before)

    def judge(self, places: Sequence[int]) -> Judge:
        """One with a pool of these images."""
        pixels = ds.open_dataset(POOL, "train").pixels(places, self.before.framing)
        pool = make_pool(self.before, pixels, POOL, prompt_rules(None, None), None)
        return Judge(self.before, self.after, pool, self.target, self.classifier)

    def retention(self, model: ds.VisionLanguageModel) -> float | None:
        """As measured on labels, in percent."""
        found = outcome_on(self.benchmark, self.before, model)
        return retention_pct(found.score, self.first.score)

    def beside_budgets(self, judge: Judge) -> Iterator[Kept]:
        """Both ends, and the rivals' points at some scales; WiSE-FT's way ends at the model."""
        yield from kept_at_ends(self.blend, judge, self.retention)
        for way in RIVALS:
            path = path_of(way, self.blend, judge, 0, 0)
            for scale in SCALES[way]:
                point = judge.estimated(way, self.blend, scale, path(scale))
                yield kept_at_point(point, self.blend, judge, self.retention, way)

    def at_budgets(self, judge: Judge, budgets_pct: Sequence[float]) -> Iterator[Kept]:
        """Every way's point at these budgets."""
        return kept_at_budgets(self.blend, judge, self.retention, USUAL, budgets_pct=budgets_pct)


def _with_more_tests(target: Target, model: ds.VisionLanguageModel) -> Target:
    more = open_target(target.name, model, TEST_IMAGES).labels
    if target.labels is None or more is None:
        raise ValueError(f"{target.name} has no labels")
    labels = replace(target.labels, test_pixels=more.test_pixels, test=more.test)
    return replace(target, labels=labels)


def rows_of_run(
    run: Path, budgets: Mapping[float | None, Sequence[int]]
) -> Iterator[dict[str, Any]]:
    """A row for every point.

    Args:
        run: its folder.
        budgets: the places of the pool's images by budget; None is what is beside budgets.
    """
    one = Measured(run)
    for places in dict.fromkeys(budgets.values()):
        judge = one.judge(places)
        mine = [budget for budget, its in budgets.items() if its == places]
        kept = list(one.beside_budgets(judge)) if None in mine else []
        kept += one.at_budgets(judge, [budget for budget in mine if budget is not None])
        for found in kept:
            yield {
                "run": run.name,
                "dataset": one.spec.dataset,
                "method": one.spec.method.kind,
                "rate": one.spec.learning_rate,
                **asdict(found),
            }


def places_of_pool(budget: float | None, pool_images: int | None) -> Sequence[int]:
    """Which images of the training split are the pool for a budget, or beside budgets."""
    num_images = len(ds.open_dataset(POOL, "train"))
    if pool_images is None and (budget is None or budget <= 95):
        return range(0, num_images, EVERY)
    return evenly_spaced(num_images, pool_images or usual_of_pool(budget or 95))


def measure(
    runs: Sequence[Path], out: Path, pool_images: int | None, budgets_pct: Sequence[float]
) -> None:
    """Appends the rows of each run that is done, for the budgets that are not yet in the file."""
    known = {(one["run"], one["budget_pct"]) for one in rows_of(out)} if out.exists() else set()
    for run in runs:
        if not (run / "result.json").exists():
            continue
        asked = {
            budget: places_of_pool(budget, pool_images)
            for budget in (None, *budgets_pct)
            if (run.name, budget) not in known
        }
        rows = list(rows_of_run(run, asked)) if asked else []
        with out.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in path.read_text().splitlines()]


DAMAGED_PCT = 80.0
"""Runs whose adapted model keeps less are told apart: little can be gained where little is lost."""


def measured_points(
    rows: Sequence[dict[str, Any]], run: str, way: str
) -> list[tuple[float, float]]:
    """Retention and accuracy of a way's models and its ends, by retention."""
    ends = ("pretrained", "adapted") if way == "wise" else ("pretrained",)
    return sorted(
        (one["retention_pct"], one["refitted_accuracy_pct"])
        for one in rows
        if one["run"] == run and one["way"] in (way, *ends)
    )


def accuracy_at(points: Sequence[tuple[float, float]], retention: float) -> float:
    """What a way has at a retention: between its points, or by one that keeps more."""
    between = float(np.interp(retention, *zip(*points, strict=True)))
    return max([between, *(accuracy for kept, accuracy in points if kept >= retention)])


def margin_at_equal_retention(rows: Sequence[dict[str, Any]], run: str, budget: float) -> float:
    """By how much the search's point at a budget is above the better rival's frontier."""
    (ours,) = (
        one
        for one in rows
        if (one["run"], one["budget_pct"], one["way"]) == (run, budget, "search")
    )
    rivals = (measured_points(rows, run, way) for way in RIVALS)
    best = max(accuracy_at(points, ours["retention_pct"]) for points in rivals)
    return float(ours["refitted_accuracy_pct"] - best)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over runs, and how often the search is on or above its rivals."""
    all_runs = {one["run"] for one in rows}
    lines = [
        f"{len(all_runs)} runs; retention measured on {TRANSFER_IMAGES} images",
        "| budget | way | fitted anew | old classifier | retention | budget kept | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    budgets = sorted({one["budget_pct"] for one in rows if one["budget_pct"] is not None})
    for budget in (None, *budgets):
        for way in USUAL if budget else ("pretrained", "adapted"):
            mine = [one for one in rows if (one["budget_pct"], one["way"]) == (budget, way)]
            if not mine:
                continue
            heads = [one["kept_head_accuracy_pct"] for one in mine]
            old = [one for one in heads if one is not None]
            kept = sum(one["retention_pct"] >= (budget or 0) for one in mine)
            lines.append(
                f"| {f'{budget:g}' if budget else '–'} | {way} | "
                f"{fmean(one['refitted_accuracy_pct'] for one in mine):.1f} | "
                f"{fmean(old) if old else float('nan'):.1f} | "
                f"{fmean(one['retention_pct'] for one in mine):.1f} | "
                f"{f'{kept} of {len(mine)}' if budget else '–'} | "
                f"{fmean(one['cpu_seconds'] for one in mine):.0f} |"
            )
    for budget in budgets:
        asked = [one for one in rows if one["budget_pct"] == budget]
        runs = sorted({one["run"] for one in asked})
        at = {(one["run"], one["way"]): one["refitted_accuracy_pct"] for one in asked}
        ends = {o["run"]: o["refitted_accuracy_pct"] for o in rows if o["way"] == "pretrained"}
        margins = [at[run, "search"] - max(at[run, one] for one in RIVALS) for run in runs]
        above = sum(margin >= 0 for margin in margins)
        beats = sum(at[run, "search"] > ends[run] for run in runs)
        lines.append(
            f"{budget:g}: search on or above the better rival in {above} of {len(runs)} runs, by "
            f"{fmean(margins):+.1f} points on average; above the linear probe in {beats}"
        )
        kept = {one["run"]: one["retention_pct"] for one in rows if one["way"] == "adapted"}
        groups = (
            ("all", np.inf),
            ("below the budget as trained", budget),
            (f"under {DAMAGED_PCT:g} % as trained", DAMAGED_PCT),
        )
        for told, most in groups:
            some = [run for run in runs if kept[run] < most]
            equal = [margin_at_equal_retention(rows, run, budget) for run in some]
            if not equal:
                continue
            lines.append(
                f"{budget:g}, at equal retention, {told}: on or above in "
                f"{sum(one >= 0 for one in equal)} of {len(equal)} runs, by {fmean(equal):+.1f} "
                f"points on average (± {stdev(equal) if len(equal) > 1 else 0:.1f}); behind by "
                f"more than a point in {sum(one < -1 for one in equal)}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("runs", nargs="+", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--pool-images", type=int, help="instead of those by budget")
    measuring.add_argument("--budget", type=float, nargs="+", default=BUDGETS_PCT)
    commands.add_parser("table").add_argument("rows", type=Path)
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.runs, given.out, given.pool_images, given.budget)
    else:
        print(table(rows_of(given.rows)))


if __name__ == "__main__":
    main()
