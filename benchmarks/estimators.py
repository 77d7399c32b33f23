"""How far label-free estimates of retention are off, on the finished runs of studies.

    python benchmarks/estimators.py STUDY [STUDY …] [--images 400] [--other-pools] [--keep FILE.csv]

Every run's model (`runs/ID/adapted`) is judged on pools of `concepts100`'s test images without
their labels; the truth is its measured retention on all of them. Prints, by pool and estimator, the
mean and worst absolute error in points of retention, the bias, the rank correlation, the coverage
and mean width of the 90 % interval, and the shares that are withheld or doubtful.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from driftscope import load, load_runs
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import labelled, open_dataset
from driftscope.data.prompts import PromptRules
from driftscope.estimate import Pool, Referee, make_pool
from driftscope.records import ADAPTED_FOLDER
from driftscope.signals import label_free

WORLD, IN_WORLD, OURS = "concepts100", "in the world", "referee (ours)"
SIZES = (50, 100, 200, 400, 1000)


@dataclass(frozen=True)
class Judged:
    """Images with their labels (-1 where they are of no class), and both models' logits."""

    labels: Tensor
    before: Tensor
    after: Tensor

    def at(self, places: Tensor) -> Judged:
        return replace(
            self, labels=self.labels[places], before=self.before[places], after=self.after[places]
        )


Estimator = Callable[[Judged], float]


def _softmax(judged: Judged) -> tuple[Tensor, Tensor]:
    return judged.before.softmax(1), judged.after.softmax(1)


ESTIMATORS: dict[str, Estimator] = {
    OURS: lambda one: label_free.estimated_retention_pct(
        one.before.softmax(1), one.after.argmax(1)
    ),
    "agreement": lambda one: label_free.agreement_pct(one.before.argmax(1), one.after.argmax(1)),
    "AC": lambda one: label_free.confidence_ratio_pct(*_softmax(one)),
    "ATC": lambda one: label_free.thresholded_confidence_pct(*_softmax(one)),
    "COT": lambda one: label_free.transport_pct(*_softmax(one)),
}


def measured_pct(judged: Judged) -> float:
    """The retention that the labels give."""
    right = [(one.argmax(1) == judged.labels).sum() for one in (judged.before, judged.after)]
    return 100 * float(right[1] / right[0])


def in_world(model: VisionLanguageModel, num_images: int) -> tuple[str, Pool, Tensor]:
    """Images of the world, evenly spaced, with their labels: they tell the truth."""
    labels, _ = labelled(open_dataset(WORLD, "test"))
    pool = make_pool(model, WORLD, WORLD, PromptRules(), num_images)
    places = torch.linspace(0, len(labels) - 1, min(num_images, len(labels))).long()
    return IN_WORLD, pool, labels[places]


def other_pools(model: VisionLanguageModel, target: str) -> Iterator[tuple[str, Pool, Tensor]]:
    """Pools that an estimate should not be taken from, or not without a doubt."""
    world = open_dataset(WORLD, "test")
    labels, names = labelled(world)
    rules = PromptRules()
    half = torch.nonzero(labels < len(names) // 2)[:, 0]
    pixels = world.pixels(half, model.framing)
    yield "half of its classes", make_pool(model, pixels, WORLD, rules, None), labels[half]
    for name in dict.fromkeys((target, "stars", "terrain")):
        which = "the target's images" if name == target else "another world"
        images = open_dataset(name, "test")
        places = torch.linspace(0, len(images) - 1, min(1000, len(images))).long()
        pixels = images.pixels(places, model.framing)
        yield which, make_pool(model, pixels, WORLD, rules, None), torch.full((len(places),), -1)
    size = (1000, 3, model.image_size, model.image_size)
    noise = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0))
    pixels = noise.to(torch.uint8)
    yield "noise", make_pool(model, pixels, WORLD, rules, None), torch.full((1000,), -1)


def judged_runs(studies: list[Path], num_images: int, world: int, *, others: bool) -> pd.DataFrame:
    """A row a run, pool, size and estimator: the estimate beside what was measured."""
    base, rows = load("mini"), []
    ready: dict[str, list[tuple[str, Pool, Tensor, Tensor]]] = {}
    for record in (one for study in studies for one in load_runs(study)):
        spec, adapted = record.spec, load(record.folder / ADAPTED_FOLDER)
        if spec.dataset not in ready:
            ready[spec.dataset] = [
                (name, pool, labels, base.embed_images(pool.pixels).float())
                for name, pool, labels in (
                    in_world(base, world),
                    *(other_pools(base, spec.dataset) if others else ()),
                )
            ]
        run = {
            "study": record.folder.parent.parent.name,
            "dataset": spec.dataset,
            "method": spec.method.label,
            "rate": spec.learning_rate,
        }
        for name, pool, labels, embedded in ready[spec.dataset]:
            referee = Referee.of(pool, embedded)
            after = label_free.zero_shot_logits(
                adapted.embed_images(pool.pixels).float(), pool.text_embeddings, pool.logit_scale
            )
            everything = Judged(labels, referee.logits, after)
            if name == IN_WORLD:
                run["measured"] = measured_pct(everything)
            for size in SIZES if name == IN_WORLD else (num_images,):
                order = torch.randperm(
                    len(labels), generator=torch.Generator().manual_seed(len(rows))
                )
                places = order[:size].sort().values
                judged = everything.at(places)
                estimate = Referee.of(pool, embedded[places]).judge(judged.after.argmax(1))
                found = {
                    "pool": name,
                    "images": len(places),
                    "withheld": bool(estimate.withheld),
                    "doubtful": bool(estimate.doubts),
                    "information": estimate.information,
                    "low": estimate.low_90_pct,
                    "high": estimate.high_90_pct,
                }
                rows += [
                    {**run, **found, "estimator": kind, "estimated": estimator(judged)}
                    for kind, estimator in ESTIMATORS.items()
                ]
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Errors of each group in points of retention."""

    def errors(group: pd.DataFrame) -> pd.Series:
        off = group["estimated"] - group["measured"]
        given = group[~group["withheld"]]
        held = (given["low"] <= given["measured"]) & (given["measured"] <= given["high"])
        sure = given[~given["doubtful"]]
        worst = (sure["estimated"] - sure["measured"]).abs().max()
        return pd.Series(
            {
                "runs": len(group),
                "mean error": off.abs().mean(),
                "worst": off.abs().max(),
                "bias": off.mean(),
                "rank corr.": spearmanr(group["estimated"], group["measured"]).statistic,
                "covered, %": 100 * held.mean(),
                "width": (given["high"] - given["low"]).mean(),
                "withheld, %": 100 * group["withheld"].mean(),
                "doubtful, %": 100 * group["doubtful"].mean(),
                "worst unflagged": worst,
                "information": group["information"].mean(),
            }
        )

    return rows.groupby(by, sort=False).apply(errors, include_groups=False).round(2)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument(
        "--world", type=int, default=5000, help="images of the world that tell the truth"
    )
    parser.add_argument("--other-pools", action="store_true", help="judge on other pools, too")
    parser.add_argument("--keep", type=Path, help="a CSV file for every estimate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = judged_runs(options.studies, options.images, options.world, others=options.other_pools)
    if options.keep:
        rows.to_csv(options.keep, index=False)
    ours = rows[rows["estimator"] == OURS]
    at_size = rows[(rows["pool"] != IN_WORLD) | (rows["images"] == options.images)]
    pd.options.display.width = 200
    for title, chosen, by in (
        ("by estimator, in the world", at_size[at_size["pool"] == IN_WORLD], ["estimator"]),
        ("ours by pool", at_size[at_size["estimator"] == OURS], ["pool"]),
        ("ours by size, in the world", ours[ours["pool"] == IN_WORLD], ["images"]),
        *(
            (f"ours by {name}, in the world", at_size[(at_size["pool"] == IN_WORLD)
             & (at_size["estimator"] == OURS)], [name])
            for name in ("dataset", "method", "rate")
        ),
    ):  # fmt: skip
        print(f"\n{title}\n{table(chosen, by).to_string()}")


if __name__ == "__main__":
    main()
