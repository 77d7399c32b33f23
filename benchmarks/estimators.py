"""How far label-free estimates of retention are off, on the finished runs of studies.

    python benchmarks/estimators.py STUDY [STUDY …] [--images 400] [--world 5000] [--draws 1]
        [--other-pools] [--keep FILE.csv] [--figure FILE.png]

Every run's model (`runs/ID/adapted`) is judged on pools of `concepts100`'s test images without
their labels; the truth is its measured retention on all of them. Prints, by pool and estimator, the
mean and worst absolute error in points of retention, the bias, the rank correlation, the coverage
and mean width of the 90 % interval, and the shares that are withheld or doubtful. Beside the
estimators stands what the labels of the pool's own images measure: whoever has no more images than
that is off by so much even with labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from published_estimators import (
    confidence_ratio_pct,
    difference_of_confidences_pct,
    fitted_temperature,
    thresholded_confidence_pct,
    transport_pct,
)
from scipy.stats import spearmanr
from torch import Tensor

from driftscope import load, load_runs
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import run_id
from driftscope.data import labelled, open_dataset
from driftscope.data.prompts import PromptRules
from driftscope.estimate import Pool, Referee, make_pool
from driftscope.records import ADAPTED_FOLDER
from driftscope.report.style import look, method_styles, save_figure
from driftscope.signals import label_free

WORLD, IN_WORLD, OURS = "concepts100", "in the world", "referee (ours)"
LABELS = "labels of the pool's images"
SIZES = (50, 100, 200, 400, 1000)
LABELED_IMAGES = 100
"""The small labeled sample that some estimators take: not in the pool where the world has room."""


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


def _softmax(judged: Judged) -> tuple[Tensor, Tensor]:
    return judged.before.softmax(1), judged.after.softmax(1)


def _ours(judged: Judged, temperature: float = 1.0) -> float:
    p = (judged.before / temperature).softmax(1)
    return label_free.estimated_retention_pct(p, judged.after.argmax(1))


def _accuracy(sample: Judged) -> float:
    return float((sample.before.argmax(1) == sample.labels).double().mean())


def measured_pct(judged: Judged) -> float:
    """The retention that the labels give."""
    right = [(one.argmax(1) == judged.labels).sum() for one in (judged.before, judged.after)]
    return 100 * float(right[1] / right[0])


ESTIMATORS: dict[str, Callable[[Judged], float]] = {
    OURS: _ours,
    "agreement": lambda one: label_free.agreement_pct(one.before.argmax(1), one.after.argmax(1)),
    "AC": lambda one: confidence_ratio_pct(*_softmax(one)),
    "ATC": lambda one: thresholded_confidence_pct(*_softmax(one)),
    "COT": lambda one: transport_pct(*_softmax(one)),
}
BY_LABELS: dict[str, Callable[[Judged, Judged], float]] = {
    LABELS: lambda one, _: measured_pct(one),
    f"ours, temperature of {LABELED_IMAGES} labels": lambda one, sample: _ours(
        one, fitted_temperature(sample.before, sample.labels)
    ),
    f"DoC, {LABELED_IMAGES} labels": lambda one, sample: difference_of_confidences_pct(
        *_softmax(one), _accuracy(sample)
    ),
    f"ATC, {LABELED_IMAGES} labels": lambda one, sample: thresholded_confidence_pct(
        *_softmax(one), _accuracy(sample)
    ),
}


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


def judged_runs(
    studies: list[Path], num_images: int, world: int, *, draws: int, others: bool
) -> pd.DataFrame:
    """A row a run, pool, size, draw and estimator: the estimate beside what was measured."""
    base, rows, seeds = load("mini"), [], []
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
            "cell": run_id(spec.model_copy(update={"seed": 0})),
        }
        for name, pool, labels, embedded in ready[spec.dataset]:
            after = label_free.zero_shot_logits(
                adapted.embed_images(pool.pixels).float(), pool.text_embeddings, pool.logit_scale
            )
            everything = Judged(labels, Referee.of(pool, embedded).logits, after)
            if name == IN_WORLD:
                run["measured"] = measured_pct(everything)
                evenly = torch.linspace(0, len(labels) - 1, min(num_images, len(labels))).long()
                seeds.append(({**run, "pool": name}, everything.at(evenly)))
            sizes = [size for size in SIZES if size <= len(labels)]
            for size in sizes if name == IN_WORLD else (num_images,):
                for _ in range(draws):
                    order = torch.randperm(
                        len(labels), generator=torch.Generator().manual_seed(len(rows))
                    )
                    places = order[:size].sort().values
                    sample = everything.at(order[-LABELED_IMAGES:])
                    judged = everything.at(places)
                    found = _found(Referee.of(pool, embedded[places]), judged)
                    values = {kind: of(judged) for kind, of in ESTIMATORS.items()}
                    if name == IN_WORLD:
                        found["labels"] = measured_pct(judged)
                        values |= {kind: of(judged, sample) for kind, of in BY_LABELS.items()}
                    rows += [
                        {**run, "pool": name, **found, "estimator": kind, "estimated": value}
                        for kind, value in values.items()
                    ]
    return pd.DataFrame([*rows, *_of_two_seeds(seeds)])


def _found(referee: Referee, judged: Judged) -> dict[str, object]:
    """What driftscope says of its estimate."""
    estimate = referee.judge(judged.after.argmax(1))
    return {
        "images": len(judged.labels),
        "withheld": bool(estimate.withheld),
        "doubtful": bool(estimate.doubts),
        "information": estimate.information,
        "low": estimate.low_90_pct,
        "high": estimate.high_90_pct,
    }


def _of_two_seeds(
    runs: list[tuple[dict[str, object], Judged]],
) -> Iterator[dict[str, object]]:
    """GDE: two seeds of a cell agree as often as one of them is right; over mean confidence."""
    for (run, one), (other, two) in combinations(runs, 2):
        if (run["study"], run["cell"]) == (other["study"], other["cell"]):
            agreement = label_free.agreement_pct(one.after.argmax(1), two.after.argmax(1))
            value = agreement / float(one.before.softmax(1).amax(1).mean())
            yield {**run, "estimator": "GDE, two seeds", "estimated": value,
                   "images": len(one.labels), "withheld": False, "doubtful": False,
                   "labels": measured_pct(one)}  # fmt: skip


def table(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Errors of each group in points of retention.

    `off labels` is the error against what the labels of the pool's own images measure: it is the
    estimator's, without the chance of which images were drawn.
    """

    def errors(group: pd.DataFrame) -> pd.Series:
        off = group["estimated"] - group["measured"]
        given = group[~group["withheld"]]
        held = (given["low"] <= given["measured"]) & (given["measured"] <= given["high"])
        sure = given[~given["doubtful"]]
        unflagged = (sure["estimated"] - sure["measured"]).abs()
        return pd.Series(
            {
                "runs": len(group),
                "mean error": off.abs().mean(),
                "worst": off.abs().max(),
                "off labels": (group["estimated"] - group["labels"]).abs().mean(),
                "worst off labels": (group["estimated"] - group["labels"]).abs().max(),
                "bias": off.mean(),
                "rank corr.": spearmanr(group["estimated"], group["measured"]).statistic,
                "covered, %": 100 * held.mean(),
                "width": (given["high"] - given["low"]).mean(),
                "withheld, %": 100 * group["withheld"].mean(),
                "doubtful, %": 100 * group["doubtful"].mean(),
                "worst unflagged": unflagged.max(),
                "information": group["information"].mean(),
            }
        )

    return rows.groupby(by, sort=False).apply(errors, include_groups=False).round(2)


def figure(rows: pd.DataFrame) -> Figure:
    """Every run's estimate with its 90 % interval against what was measured."""
    with look():
        drawn = Figure(figsize=(5.4, 5.4), layout="constrained")
        axes = drawn.subplots()
        styles = method_styles(sorted(rows["method"].unique()))
        axes.plot([0, 104], [0, 104], color="#5a616d", linewidth=0.8, linestyle="--")
        for (dataset, method), some in rows.groupby(["dataset", "method"]):
            style, ends = styles[method], [some["low"], some["high"]]
            spread = [(some["estimated"] - ends[0]).clip(0), (ends[1] - some["estimated"]).clip(0)]
            axes.errorbar(
                some["measured"], some["estimated"], yerr=spread, fmt=style.marker, markersize=4.5,
                color=style.colour, elinewidth=0.8, markeredgewidth=1,
                markerfacecolor=style.colour if dataset == "terrain" else "none",
                label=f"{method}, {dataset}",
            )  # fmt: skip
        count, num_images = len(rows), rows["images"].iloc[0]
        axes.set_title(f"{count} runs, {num_images} unlabeled images each; 90 % intervals")
        axes.set_xlabel("measured retention, %")
        axes.set_ylabel("estimated retention, %")
        axes.legend(loc="upper left")
    return drawn


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument(
        "--world", type=int, default=5000, help="images of the world that tell the truth"
    )
    parser.add_argument("--draws", type=int, default=1, help="pools that are drawn of each size")
    parser.add_argument("--other-pools", action="store_true", help="judge on other pools, too")
    parser.add_argument("--keep", type=Path, help="a CSV file for every estimate")
    parser.add_argument("--figure", type=Path, help="a PNG file: estimated against measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = judged_runs(
        options.studies, options.images, options.world,
        draws=options.draws, others=options.other_pools,
    )  # fmt: skip
    if options.keep:
        rows.to_csv(options.keep, index=False)
    ours = rows[rows["estimator"] == OURS]
    if options.figure:
        shown = ours[(ours["pool"] == IN_WORLD) & (ours["images"] == options.images)]
        first = shown.iloc[:: options.draws]
        save_figure(figure(first), options.figure.with_suffix(""), ("png",))
    at_size = rows[(rows["pool"] != IN_WORLD) | (rows["images"] == options.images)]
    pd.options.display.width, pd.options.display.max_columns = 240, 30
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
