"""What a rescue finds: points between both models, and the one that is chosen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from driftscope.adapt import CLASSIFIER_FILE
from driftscope.adapt.storage import save_tensors
from driftscope.analysis.words import DOUBTFUL, counted, doubt_sentences, join_words
from driftscope.analysis.zero_shot import NO_RETENTION, written
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import Strength, mean_strength
from driftscope.config import Way
from driftscope.estimate import Estimate
from driftscope.files import followed, free_name, named_path, whole_folder
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.records import (
    ADAPTED_FOLDER,
    RESCUE_FILE,
    STRENGTHS_FILE,
    retention_interval_pct,
    write_json,
)
from driftscope.report.rescue_page import write_rescue_page
from driftscope.rescuing.kinds import Chosen, write_like
from driftscope.rescuing.other_budgets import other_budgets
from driftscope.rescuing.target import Accuracy, Final
from driftscope.transfer import ZeroShotScore

WAYS: tuple[Way, ...] = get_args(Way)
WAY_WORDS: dict[Way, str] = {
    "search": "searched strengths of single rows of weights (search)",
    "lines": "strengths that rise with depth (lines)",
    "wise": "one strength for all weights (wise)",
    "layers": "groups tuned whole or not at all (layers)",
}
_OTHER_HALF: dict[Way, str] = {"search": "the search", "layers": "the order of the groups"}
"""What the half of the pool that does not judge is for, by the ways that need it."""
USUAL: tuple[Way, ...] = ("search", "lines", "wise")
"""The search, and its rivals on the same picture."""


PROBE_FILE = "probe.safetensors"
"""The linear probe of the untouched model, beside the rescued one."""
_USEFUL = 0.05
"""Below this likeness to the adapted model, beyond the pretrained one's, nothing was kept of it."""
_TOO_WIDE = 10.0
"""Points of an accuracy's interval, above which it decides nothing between two classifiers."""


@dataclass(frozen=True)
class Point:
    """One model between two.

    Attributes:
        way: how its strengths came about.
        scale: where it lies on the way, from 0 (pretrained) to 1.
        strengths: α of each group, or of every row of its weights.
        estimate: of its retention, from the pool.
        likeness: of its image embeddings of the target to the adapted model's, mean cosine; None
            where it was not looked at.
        accuracy: where the target has labels.
    """

    way: Way
    scale: float
    strengths: Mapping[str, Strength]
    estimate: Estimate
    likeness: float | None = None
    accuracy: Accuracy | None = None

    def keeps(self, keep_pct: float) -> bool:
        """Whether the lower end of the estimate's 90 % interval keeps a budget."""
        low = self.estimate.low_90_pct
        return low is not None and low >= keep_pct

    def is_useful(self, pretrained: Point) -> bool:
        """Whether it has kept something of the adapted model: it is likelier to it by a share."""
        before = pretrained.likeness or 0.0
        return (self.likeness or 0.0) >= before + _USEFUL * (1 - before)

    @property
    def by_row(self) -> dict[str, Tensor]:
        """The strengths of every row, by weight, of the groups that have them."""
        groups = [one for one in self.strengths.values() if isinstance(one, Mapping)]
        return {name: rows for one in groups for name, rows in one.items()}

    @property
    def worth(self) -> tuple[float, float]:
        """What the choice is made by: accuracy and, where it is equal, retention; else likeness.

        Without labels what likeness is worth is not known, and so is no noise of it.
        """
        if self.accuracy is None:
            return 0.0, -1.0 if self.likeness is None else self.likeness
        return self.accuracy.choosing_pct, self.estimate.low_90_pct or 0.0

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON values."""
        return {
            "way": self.way,
            "scale": self.scale,
            "strengths": {group: mean_strength(one) for group, one in self.strengths.items()},
            "is_by_row": bool(self.by_row),
            "likeness": self.likeness,
            "estimate": self.estimate.to_dict(),
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
        }


def chosen_of(kept: Sequence[Point]) -> tuple[Point, tuple[Point, ...]]:
    """The best of points that keep the budget, and the others that are as accurate within noise.

    Of these the one of the most retention comes first.
    """
    best = max(kept, key=lambda one: one.worth)
    if best.accuracy is None:
        return best, ()
    alike = [
        one
        for one in kept
        if one is not best and one.accuracy is not None and best.accuracy.is_alike(one.accuracy)
    ]
    return best, tuple(sorted(alike, key=lambda one: -(one.estimate.low_90_pct or 0.0)))


@dataclass(frozen=True, eq=False)
class Rescue:
    """What came out: the chosen point, the ways that were tried, and the model itself.

    Attributes:
        keep_pct: the budget.
        chosen: the best point that keeps it.
        alike: other points that keep it and are as accurate within noise, the most retention first.
        points: every point that was looked at.
        pretrained, adapted: both ends; the pretrained one's accuracy is that of a linear probe.
        final: their accuracies with classifiers fitted to more images; None without labels.
        transfer: benchmark -> what the chosen model has kept, measured on labeled images.
        notes: what was not measured, and why.
        classifier: fitted anew on the chosen model's embeddings; None without labels.
        probe: the same on the pretrained model's.
        class_names: what both tell.
        origin: both models, and the strengths between them.
        num_pool: images of the pool that were read, of which every other one judged.
        num_pool_given: images of the pool.
        num_fitted: labeled images that the classifiers of `points` are fitted to; 0 without labels.
        asked: what a command names: `images`, `pool` and, where they were given, `classes`.
    """

    keep_pct: float
    chosen: Point
    alike: tuple[Point, ...]
    points: tuple[Point, ...]
    pretrained: Point
    adapted: Point
    final: Final | None
    transfer: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]
    classifier: nn.Linear | None = field(repr=False)
    probe: nn.Linear | None = field(repr=False)
    class_names: tuple[str, ...]
    origin: Chosen = field(repr=False)
    num_pool: int
    num_pool_given: int
    num_fitted: int
    asked: Mapping[str, str | None]

    @property
    def model(self) -> VisionLanguageModel:
        """The chosen model, a plain one."""
        return self.origin.model

    @property
    def beats_the_probe(self) -> bool | None:
        """Whether its classifier is above a linear probe of the pretrained model; None if unknown.

        By however little: the sentence says whether chance can make as much.
        """
        if self.final is None:
            return None
        ours, probe = self.final.chosen.refitted, self.final.pretrained.refitted
        return ours.num_correct > probe.num_correct

    @property
    def order_doubt(self) -> str:
        """That training did harm, or that the models were given in the wrong order; or "".

        Only where the adapted model is worse at the target than chance can make it seem.
        """
        if self.final is None:
            return ""
        tuned, probe = self.final.adapted.refitted, self.final.pretrained.refitted
        if tuned.wilson_high_pct >= probe.accuracy_pct:
            return ""
        return (
            f"{DOUBTFUL} the adapted model is worse at {tuned.name} than the pretrained one "
            f"({_with_interval(tuned)} and {_with_interval(probe)}, new classifiers). Either "
            "training did harm, or the models are in the wrong order: the pretrained one comes "
            "first."
        )

    @property
    def surely_beats_the_probe(self) -> bool:
        """Whether the probe's accuracy lies below the interval of the rescued model's."""
        if self.final is None:
            return False
        ours, probe = self.final.chosen.refitted, self.final.pretrained.refitted
        return probe.accuracy_pct < ours.wilson_low_pct

    def frontier(self) -> list[dict[str, Any]]:
        """A row a point: way, scale, estimated retention with its interval, likeness, accuracies.

        The best `choosing_accuracy_pct` that keeps the budget is chosen, and of equal ones the most
        retention; `accuracy_pct` is on other images.
        """
        return [
            {
                "way": one.way,
                "scale": one.scale,
                "estimated_retention_pct": one.estimate.retention_pct,
                "low_90_pct": one.estimate.low_90_pct,
                "high_90_pct": one.estimate.high_90_pct,
                "likeness": one.likeness,
                "choosing_accuracy_pct": one.accuracy.choosing_pct if one.accuracy else None,
                "accuracy_pct": one.accuracy.refitted.accuracy_pct if one.accuracy else None,
                "kept_head_accuracy_pct": _pct(one.accuracy.kept_head) if one.accuracy else None,
            }
            for one in self.points
        ]

    def sentence(self) -> str:
        """What was kept of both models, and whether it is worth having."""
        return " ".join(self.sentences())

    def sentences(self) -> list[str]:
        """The same, a sentence each; the first says what the retention is, measured before guessed.

        Of the adapted model, too, and on what each was found. Only a doubt about the order of the
        models comes before it.
        """
        one = self.chosen
        told = [self.order_doubt] if self.order_doubt else []
        told += [_measured_sentence(name, found) for name, found in self.transfer.items()]
        told += [one.estimate.sentence(), *doubt_sentences(one.estimate.doubts)]
        told += [
            *self._less_than_asked(),
            self._pool_sentence(),
            f"On the same images the adapted model keeps {_estimated(self.adapted.estimate)}. "
            "`driftscope compare` reads other images; what it measured on labels is nearer the "
            "truth.",
            f"The blend has {WAY_WORDS[one.way]}, at scale {one.scale:.2f}.",
            *self._alike(),
        ]
        return [*told, *(self._accuracy(self.final) if self.final else self._likeness())]

    def _alike(self) -> list[str]:
        """That other points are as accurate within noise, and which of them keeps more."""
        if not self.alike:
            return []
        others = counted(len(self.alike), "other point")
        told = (
            f"{others} {'is' if len(self.alike) == 1 else 'are'} as accurate within noise (one "
            "standard error on the images that choose)."
        )
        most, ours = self.alike[0].estimate, self.chosen.estimate
        if (most.low_90_pct or 0.0) <= (ours.low_90_pct or 0.0):
            return [f"{told} None of them keeps more."]
        return [
            f"{told} The most that one of them keeps is {_estimated(most)}: --keep asks for it."
        ]

    def _pool_sentence(self) -> str:
        """How much of the pool was read, and what for."""
        pool, read, given = self.chosen.estimate.pool, self.num_pool, self.num_pool_given
        told = f"Of the {given:,} images of {pool} "
        told += "" if read == given else f"{read:,} were read, and of these "
        tried = {one.way for one in self.points}
        uses = [use for way, use in _OTHER_HALF.items() if way in tried]
        others = f"; the others were left to {join_words(uses)}" if uses else ""
        return f"{told}every other one judged{others}."

    def _less_than_asked(self) -> list[str]:
        """That what was measured may be less than what the estimate was asked to keep."""
        lows = {
            name: ends[0]
            for name, found in self.transfer.items()
            if found["retention_pct"] is not None
            and (ends := retention_interval_pct(found)) is not None
        }
        short = [name for name, low in lows.items() if low < self.keep_pct]
        if not short:
            return []
        return [
            f"As measured on {join_words(short)}, the interval reaches below {self.keep_pct:g} %: "
            "a gate with --confident would not pass it. A larger --keep keeps more."
        ]

    def _accuracy(self, final: Final) -> list[str]:
        ours, tuned, probe = final.chosen, final.adapted, final.pretrained
        num_images, target = ours.refitted.num_images, ours.refitted.name
        told = [
            f"Accuracy on {target} with new classifiers: {_with_interval(tuned.refitted)} before "
            f"the rescue, {_with_interval(ours.refitted)} after it. Each is a linear classifier "
            f"that the rescue fitted to {final.num_fitted:,} labeled images, read on {num_images} "
            "others, by which the blend was not chosen. Neither is the classifier that you "
            "trained: compare these accuracies with each other, not with yours.",
            *_with_your_classifier(tuned, ours),
            *self._little_learned(tuned.refitted, probe.refitted),
        ]
        probed = (
            f"a linear probe on the untouched model, which loses nothing and has "
            f"{_with_interval(probe.refitted)} when it is fitted to the same "
            f"{final.num_fitted:,} labeled images"
        )
        saved = f"It is saved beside the rescued model, as {PROBE_FILE}."
        if self.surely_beats_the_probe:
            return [*told, f"It beats {probed}."]
        if ours.refitted.wilson_high_pct - ours.refitted.wilson_low_pct > _TOO_WIDE:
            return [
                *told,
                f"On {num_images} images it cannot be told from {probed}. Unless more labeled "
                f"images show that it is ahead, take that probe. {saved}",
            ]
        if self.beats_the_probe:
            too_few = f"on {num_images} images chance can make as much"
            return [
                *told,
                f"It is above {probed}, but {too_few}: consider that probe. {saved}",
            ]
        return [*told, f"It does not beat {probed}: take that probe instead. {saved}"]

    def _little_learned(self, tuned: ZeroShotScore, probe: ZeroShotScore) -> list[str]:
        """That the adapted model is not seen to be ahead, where it is not surely behind either."""
        if self.order_doubt or tuned.num_correct > probe.num_correct:
            return []
        return [
            f"On these {tuned.num_images} images the adapted model is not seen to be better than "
            f"the untouched one ({probe.accuracy_pct:.1f} %): for a linear classifier the training "
            "may have gained little."
        ]

    def _likeness(self) -> list[str]:
        ours, before = self.chosen.likeness, self.pretrained.likeness
        if ours is None or before is None:
            return []
        share = 100 * (ours - before) / max(1 - before, 1e-9)
        return [
            "What your task keeps is not known: the classifier that was trained no longer fits "
            "this model. Give a labeled dataset as images: then a new one is fitted, and compared "
            "with a linear probe on the untouched model.",
            f"On the target's images {share:.0f} % of the change of the embeddings is kept (cosine "
            f"to the adapted model {ours:.3f}, of the pretrained one {before:.3f}).",
        ]

    def _repr_html_(self) -> str:
        from driftscope.report.notebook import rescue_html

        return rescue_html(self.to_dict())

    def steps(self, folder: Path | str) -> list[str]:
        """What to do with the model that was saved in a folder, each with its command."""
        return self._steps(str(folder), named_path(folder))

    def _steps(self, called: str, place: Path) -> list[str]:
        """The same of a folder that lies elsewhere than it will be called."""
        inner = Path(called) / ADAPTED_FOLDER
        is_run = (place / ADAPTED_FOLDER).is_dir()
        out = free_name(f"{called}-checked")
        words = shlex.join([self.origin.before.source, called, *self._options, "--out", out])
        if self.order_doubt:
            return [self._clear_up()]
        told = []
        if not self.transfer:
            told.append(
                f"Check it: `driftscope compare {words}`. With --transfer DATASET it measures "
                "retention on labels that the rescue has not seen."
            )
        if self.classifier is not None and self.probe is not None:
            head = (inner if is_run else Path(called)) / CLASSIFIER_FILE
            told += self._either_classifier(head, Path(called) / PROBE_FILE)
        if is_run:
            told.append(
                f"For transformers: `driftscope export-model {shlex.quote(called)} --out FOLDER` "
                "writes the model alone, without the classifier."
            )
        return [*told, *other_budgets(self.chosen, self.points, self.pretrained)]

    @property
    def _options(self) -> list[str]:
        """What the command named, as it would be typed again."""
        return [word for key, name in self.asked.items() if name for word in (f"--{key}", name)]

    def _either_classifier(self, head: Path, probe: Path) -> list[str]:
        """The rescued model and the untouched one, each with its classifier; the better one first.

        That is the untouched one unless the other surely beats it, for it has lost nothing.
        """
        blend, classes = f"the blend with its own classifier, `{head}`", len(self.class_names)
        same = f"({classes} classes, named in {RESCUE_FILE})"
        untouched = f"{self.origin.before.source} untouched, with its linear probe, `{probe}`"
        if self.surely_beats_the_probe:
            return [f"Use {blend} {same}.", f"Or keep {untouched}."]
        return [
            f"Keep {untouched} {same}: nothing shows that the blend is better at your task.",
            f"Or use {blend}.",
        ]

    def _clear_up(self) -> str:
        """What to do first where the models may be in the wrong order."""
        before, after = self.origin.before.source, self.origin.name
        words = [after, before, *self._options, "--keep", f"{self.keep_pct:g}"]
        swapped = shlex.join([*words, "--out", free_name("rescued")])
        return (
            f"First find out which of {before} and {after} was trained from the other, and use "
            f"nothing of this rescue until you know. If {after} is the pretrained one: `driftscope "
            f"rescue {swapped}`. If not, training did harm to this task: keep {before}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The rescue as JSON values."""
        return {
            "kind": "rescue",
            "models": {"pretrained": self.origin.before.source, "adapted": self.origin.name},
            "keep_pct": self.keep_pct,
            "asked": dict(self.asked),
            "num_pool": self.num_pool,
            "num_pool_given": self.num_pool_given,
            "num_fitted": self.num_fitted,
            "doubts": [self.order_doubt] if self.order_doubt else [],
            "sentence": self.sentence(),
            "sentences": self.sentences(),
            "chosen": self.chosen.to_dict(),
            "alike": [{"way": one.way, "scale": one.scale} for one in self.alike],
            "beats_the_probe": self.beats_the_probe,
            "final": self.final.to_dict() if self.final else None,
            "pretrained": self.pretrained.to_dict(),
            "adapted": self.adapted.to_dict(),
            "transfer": {name: dict(one) for name, one in self.transfer.items()},
            "notes": list(self.notes),
            "class_names": list(self.class_names),
            "points": [one.to_dict() for one in self.points],
        }

    def save(self, folder: Path | str) -> str:
        """Writes the rescued model as the adapted one was kept, and says as what.

        In the folder are also `rescue.json`, the page `report.html`, where it was fitted the
        classifier, and the strengths of rows that were searched. The folder appears when it is
        whole; a failure leaves none.

        Raises:
            NonFiniteError: the weights hold NaN or infinities.
            OSError: it cannot be written, or is there and not empty.
        """
        with whole_folder(followed(folder)) as partial:
            written = write_like(self.origin, partial)
            if self.classifier is not None:
                inner = partial / ADAPTED_FOLDER
                place = inner if inner.is_dir() else partial
                save_tensors(self.classifier.state_dict(), place / CLASSIFIER_FILE)
            if self.probe is not None:
                save_tensors(self.probe.state_dict(), partial / PROBE_FILE)
            if self.chosen.by_row:
                save_tensors(self.chosen.by_row, partial / STRENGTHS_FILE)
            steps = self._steps(str(folder), partial)
            told = {**self.to_dict(), "steps": steps, "written": written}
            write_json(partial / RESCUE_FILE, told)
            write_rescue_page(told, partial)
        return written


def _pct(score: ZeroShotScore | None) -> float | None:
    return None if score is None else score.accuracy_pct


def _with_interval(score: ZeroShotScore) -> str:
    """An accuracy with its 95 % Wilson interval."""
    return f"{score.accuracy_pct:.1f} % ({score.wilson_low_pct:.1f}–{score.wilson_high_pct:.1f})"


def _with_your_classifier(tuned: Accuracy, ours: Accuracy) -> list[str]:
    """What the classifier that was trained with the adapted model tells, before and after."""
    if tuned.kept_head is None or ours.kept_head is None:
        return []
    is_better = ours.refitted.num_correct >= ours.kept_head.num_correct
    use = f"use the new one, {CLASSIFIER_FILE}" if is_better else "it still fits"
    return [
        f"With the classifier that was trained with the adapted model: "
        f"{_with_interval(tuned.kept_head)} before, {_with_interval(ours.kept_head)} after: {use}."
    ]


def _measured_sentence(name: str, found: Mapping[str, Any]) -> str:
    """A benchmark's retention of the rescued model, and of the adapted one on the same images."""
    if found["retention_pct"] is None:
        return f"Measured on {name}: {NO_RETENTION}."
    kept, before = (
        written("retention_pct", one["retention_pct"]) + _interval(one)
        for one in (found, found["adapted"])
    )
    images = counted(found["rescued"]["num_images"], "labeled image")
    return f"Measured on {images} of {name}: retention {kept}; the adapted model's is {before}."


def _interval(score: Mapping[str, Any]) -> str:
    ends = retention_interval_pct(score)
    if ends is None:
        return ""
    low, high = (METRICS["retention_pct"].text(end) for end in ends)
    return f" (95 % interval {low} to {high})"


def _estimated(estimate: Estimate) -> str:
    """An estimate in a few words, with its interval."""
    if estimate.retention_pct is None:
        return "an unknown share"
    metric = METRICS[ESTIMATED]
    low, high = (metric.text(end) for end in (estimate.low_90_pct, estimate.high_90_pct))
    return f"{metric.with_unit(estimate.retention_pct)} (estimated; 90 % interval {low} to {high})"
