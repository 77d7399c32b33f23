"""The target's images, and what a classifier on their embeddings is worth.

Labeled images are parted: a classifier is fitted to images of the training split, a model is chosen
by one half of the test split, and its accuracy is reported on the other. Where unlabeled images
have a classifier beside the adapted model, its answers stand in for labels: what is measured then
is agreement with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from driftscope.adapt import CLASSIFIER_FILE, load_classifier
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import ImageSet, PixelSource, labelled, notes_of, open_dataset, rows_of
from driftscope.data.given import Images, some_pixels, split_of, warn_of
from driftscope.data.rows import PixelRows
from driftscope.data.splits import balanced_subset, open_train_and_test
from driftscope.errors import DataError
from driftscope.files import named_path
from driftscope.records import ADAPTED_FOLDER, RunRecord, is_done, load_run, rescued_from
from driftscope.transfer import ZeroShotScore, score
from driftscope.transfer.features import linear_classifier

_PER_UNLABELED = 2
"""How many labeled images are read of either split for every unlabeled one that would be."""
_PER_ANSWERED = 4
"""And how many unlabeled ones where a classifier answers: half of them test."""
_LEAST_ANSWERED = 40
"""Fewer answers tell nothing of a blend: half are fitted to, a quarter chooses."""
MOST_FINAL = 2000
"""Training images that the final classifier is fitted to at most: far more than at every point."""


@dataclass(frozen=True)
class Accuracy:
    """What a classifier on a model's embeddings tells of the target's labeled test images.

    Attributes:
        choosing_pct: of one fitted anew, on the half that the choice is made by.
        refitted: of the same, on the other half.
        kept_head: of the one that was trained with the adapted model, there; None without one.
        choosing: whether each image of the first half is told; None where that was not kept.
        is_agreement: whether no label is told, but what the adapted model's classifier answers.
    """

    choosing_pct: float
    refitted: ZeroShotScore
    kept_head: ZeroShotScore | None
    choosing: Bool[Tensor, " choosing"] | None = field(default=None, repr=False, compare=False)
    is_agreement: bool = False

    @property
    def measures(self) -> str:
        """What the percentages are."""
        return "agreement" if self.is_agreement else "accuracy"

    def is_alike(self, other: Accuracy) -> bool:
        """Whether both tell the images that choose equally well, within one standard error.

        That is of their difference, paired: the square root of how many images one of the two
        alone tells. Accuracies of which the images were not kept are alike only where equal.
        """
        if self.choosing is None or other.choosing is None:
            return self.choosing_pct == other.choosing_pct
        ours = int((self.choosing & ~other.choosing).sum())
        theirs = int((other.choosing & ~self.choosing).sum())
        return abs(ours - theirs) <= math.sqrt(ours + theirs)

    def to_dict(self) -> dict[str, Any]:
        """The accuracies as JSON values."""
        return {
            "measures": self.measures,
            "choosing_pct": self.choosing_pct,
            "refitted": self.refitted.to_dict(),
            "kept_head": self.kept_head.to_dict() if self.kept_head else None,
        }


@dataclass(frozen=True)
class Final:
    """The accuracies that a rescue reports, with classifiers fitted to more training images.

    Attributes:
        num_fitted: images that each classifier is fitted to.
        pretrained, adapted, chosen: of both ends and the rescued model.
    """

    num_fitted: int
    pretrained: Accuracy
    adapted: Accuracy
    chosen: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "num_fitted": self.num_fitted,
            "pretrained": self.pretrained.to_dict(),
            "adapted": self.adapted.to_dict(),
            "chosen": self.chosen.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Labels:
    """Labeled images of the target, beyond those that a classifier is fitted to.

    Attributes:
        class_names: of the target; empty where nobody says.
        num_classes: how many there are.
        fit: the labels of the images that a classifier is fitted to.
        test_pixels, test: other images with their labels.
        are_answers: whether the labels are what the adapted model's classifier answers.
        choosing, reporting: positions among these.
    """

    class_names: tuple[str, ...]
    num_classes: int
    fit: Int64[Tensor, " fit"]
    test_pixels: PixelSource
    test: Int64[Tensor, " test"]
    are_answers: bool = False

    @property
    def choosing(self) -> slice:
        """Images by which a model is chosen."""
        return slice(0, None, 2)

    @property
    def reporting(self) -> slice:
        """Images on which its accuracy is reported."""
        return slice(1, None, 2)

    def correct(
        self, classifier: nn.Linear, embeddings: Float[Tensor, "test dim"], part: slice
    ) -> Bool[Tensor, " part"]:
        """Which images of a part a classifier tells from their embeddings."""
        with torch.no_grad():
            chosen = classifier(embeddings[part]).argmax(dim=-1)
        right: Tensor = chosen == self.test[part]
        return right


@dataclass(frozen=True, eq=False)
class Target:
    """What the model was adapted to.

    Attributes:
        name: of the images.
        pixels: that strengths are searched on, and a classifier is fitted to.
        labels: where there are any.
        whole: the same with more training images, for the last word; None where these are all.
        doubts: what makes its accuracies doubtful.
    """

    name: str
    pixels: PixelSource
    labels: Labels | None
    whole: Target | None = None
    doubts: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """What its classes are called; empty where nobody says."""
        return self.labels.class_names if self.labels else ()

    def fitted(self, embeddings: Float[Tensor, "fit dim"]) -> nn.Linear:
        """A linear probe of the labeled images, from their embeddings by some model."""
        labels = self._labels()
        return linear_classifier(embeddings, labels.fit, labels.num_classes)

    def accuracy_of(
        self,
        model: VisionLanguageModel,
        kept_head: nn.Linear | None,
        fit_embeddings: Float[Tensor, "fit dim"] | None = None,
    ) -> tuple[Accuracy, nn.Linear]:
        """What a classifier fitted anew to a model tells, and that classifier.

        Args:
            model: whose embeddings are classified.
            kept_head: one that was trained before, to be measured, too.
            fit_embeddings: the model's of `pixels`, where they are there already.
        """
        labels = self._labels()
        if fit_embeddings is None:
            fit_embeddings = model.embed_images(self.pixels).float().cpu()
        classifier = self.fitted(fit_embeddings)
        tests = model.embed_images(labels.test_pixels).float().cpu()
        counts = [
            None if head is None else int(labels.correct(head, tests, labels.reporting).sum())
            for head in (classifier, kept_head)
        ]
        refitted, kept = (
            None if one is None else score(self.name, one, len(labels.test[labels.reporting]))
            for one in counts
        )
        choosing = labels.correct(classifier, tests, labels.choosing)
        share = int(choosing.sum()) / len(choosing)
        found = Accuracy(
            100 * share,
            refitted,  # type: ignore[arg-type]
            kept,
            choosing,
            labels.are_answers,
        )
        return found, classifier

    def _labels(self) -> Labels:
        if self.labels is None:
            raise DataError(f"{self.name} has no labels, so no classifier can be fitted to it")
        return self.labels


def open_target(
    images: Images,
    model: VisionLanguageModel,
    max_images: int,
    adapted: Sequence[str | Path | VisionLanguageModel] = (),
    *,
    has_classifier: bool = False,
) -> Target:
    """The target's images at the model's input, with labels where they have any.

    Images without a test split are divided as the runs were that the adapted models come from.

    Args:
        images: a dataset, a tensor, or PIL images.
        model: whose input they become.
        max_images: how many are read; with labels, up to twice this number from each split.
        adapted: the models that were adapted to them, as the user named them.
        has_classifier: whether there is one that can answer for labels (`answered`).
    """
    if not isinstance(images, str | Path) or not _is_labelled(images):
        most = max_images * (_PER_ANSWERED if has_classifier else 1)
        name, pixels, *_ = some_pixels(images, model.framing, most, "images")
        return Target(name, pixels, None)
    divisions = {_division_by(one, images) for one in adapted}
    known = divisions.pop() if len(divisions) == 1 else None
    seed, skips = known or (0, False)
    train, test = open_train_and_test(str(images), seed, skip_bad_images=skips)
    doubts = () if known is not None or train.split != test.split else (_why_divided(test),)
    warn_of(dict.fromkeys((*notes_of(train), *notes_of(test))))
    fit_labels, class_names = labelled(train)
    test_labels, _ = labelled(test)
    fit = balanced_subset(fit_labels, _PER_UNLABELED * max_images)
    chosen = balanced_subset(test_labels, _PER_UNLABELED * max_images)
    chosen = chosen[test_labels[chosen].argsort(stable=True)]  # so that every other one is balanced
    labels = Labels(
        class_names=class_names,
        num_classes=len(class_names),
        fit=fit_labels[fit],
        test_pixels=rows_of(test, chosen, model.framing),
        test=test_labels[chosen],
    )
    whole = None
    if len(fit) < min(len(fit_labels), MOST_FINAL):
        more = balanced_subset(fit_labels, MOST_FINAL)
        whole = Target(
            train.name,
            rows_of(train, more, model.framing),
            replace(labels, fit=fit_labels[more]),
        )
    return Target(train.name, rows_of(train, fit, model.framing), labels, whole, doubts)


def answered(target: Target, tuned: VisionLanguageModel, kept: KeptClassifier) -> Target:
    """Unlabeled images with what the adapted model's own classifier answers in place of labels.

    Half are fitted to; of the others one half chooses and one reports. The target as it is where
    the images are too few, or get one answer.
    """
    with torch.no_grad():
        scores = kept.classifier(tuned.embed_images(target.pixels).float().cpu())
    answers = scores.argmax(dim=-1)
    order = answers.argsort(stable=True)  # so that all parts are balanced
    fit, test = order[0::2], order[1::2]
    if len(answers) < _LEAST_ANSWERED or len(answers[fit].unique()) < 2:
        return target
    pixels = PixelRows.of(target.pixels)
    labels = Labels(
        class_names=kept.class_names or (),
        num_classes=kept.classifier.out_features,
        fit=answers[fit],
        test_pixels=pixels.select(test),
        test=answers[test],
        are_answers=True,
    )
    return Target(target.name, pixels.select(fit), labels)


def _why_divided(images: ImageSet) -> str:
    """What is doubtful where a fifth of a set without splits was set aside for testing."""
    whole = split_of(images)
    way_out = f"give {whole}, of which it is a split" if whole else "give a set with a test split"
    return (
        f"{images.name} has no test split, so a fifth of it was set aside. If an adapted model has "
        f"learnt these images, the accuracies of it and of blends with it are too high; {way_out}"
    )


def _division_by(
    adapted: str | Path | VisionLanguageModel, images: str | Path
) -> tuple[int, bool] | None:
    """How the run that a model comes from divided these images; None where none did.

    By its seed, and whether images that cannot be read were left out before.
    """
    run = _run_of(adapted)
    if run is None or named_path(run.spec.dataset) != named_path(images):
        return None
    return run.spec.data_seed, run.spec.skip_bad_images


def _run_of(adapted: str | Path | VisionLanguageModel) -> RunRecord | None:
    """The finished run that a model was named by, or by the folder in it; None for others."""
    if isinstance(adapted, VisionLanguageModel):
        return None
    folder = named_path(adapted)
    runs = [folder, *([folder.parent] if folder.name == ADAPTED_FOLDER else [])]
    return next((load_run(one) for one in runs if is_done(one)), None)


def _is_labelled(images: str | Path) -> bool:
    found = open_dataset(images, "test")
    return found.labels is not None and len(found.class_names or ()) > 1


@dataclass(frozen=True, eq=False)
class KeptClassifier:
    """The classifier that lies beside an adapted model.

    Attributes:
        classifier: acts on the model's unnormalised image embeddings.
        class_names: what it was trained on, where that is known.
    """

    classifier: nn.Linear
    class_names: tuple[str, ...] | None

    def is_of(self, class_names: Sequence[str]) -> bool:
        """Whether it tells these classes, in this order."""
        if self.class_names is not None:
            return self.class_names == tuple(class_names)
        return self.classifier.out_features == len(class_names)


def kept_classifier(adapted: str | Path | VisionLanguageModel) -> KeptClassifier | None:
    """The classifier in a run's folder, or in the folder of its model; None without one."""
    if isinstance(adapted, VisionLanguageModel):
        return None
    folder = named_path(adapted)
    places = (folder / ADAPTED_FOLDER, folder)
    place = next((one for one in places if (one / CLASSIFIER_FILE).is_file()), None)
    if place is None:
        return None
    run, rescued = _run_of(adapted), rescued_from(str(adapted))
    names = run.result.class_names if run else rescued.class_names if rescued else ()
    return KeptClassifier(load_classifier(place), tuple(names) or None)
