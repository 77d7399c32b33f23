"""What a monitor watches a model on: the sets that it was given, read by the pretrained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.given import Images, num_among, some_pixels
from driftscope.data.prompts import PromptRules
from driftscope.estimate import Pool, class_lists, make_pool
from driftscope.protocols import pretrained_accuracy_key
from driftscope.reference import Reference, make_reference
from driftscope.sources.preprocessor import assumed_pixels
from driftscope.transfer import RetrievalSet, retrieval_set
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.features import labelled_sets, refuse_protocols_of_none
from driftscope.transfer.suites import FoundSuite, found_suites, places_of


@dataclass(frozen=True)
class Watched:
    """The pretrained model's reference, and where its images come from.

    Attributes:
        reference: what is known of the pretrained model; it holds none of its weights alive.
        images: what the probe images are called.
        suites: what was found of each suite that was asked for.
        num_leaked: how many of the probe images are among the training images.
        images_are_labeled: whether the probe images surely have labels.
        split_of: the folder of which they are one split; None where they are none.
    """

    reference: Reference
    images: str
    suites: Mapping[str, FoundSuite]
    num_leaked: int
    images_are_labeled: bool
    split_of: str | None

    @property
    def num_images(self) -> int:
        """How many probe images there are."""
        return len(self.reference.probe_pixels)

    def described(self) -> dict[str, Any]:
        """What is read and against what, as JSON values."""
        referee, outcomes = self.reference.referee, self.reference.outcomes
        return {
            "probe_images": self.images,
            "images_are_labeled": self.images_are_labeled,
            "split_of": self.split_of,
            "unmeasured": dict(self.reference.texts.unmeasured),
            "pool": referee.described() if referee else None,
            "pretrained": self.reference.pretrained.source,
            "doubts": [f"{one}." for one in assumed_pixels(self.reference.pretrained)],
            "pretrained_fingerprint": self.reference.fingerprint,
            "num_images": len(self.reference.probe_pixels),
            "images_fingerprint": self.reference.reading.images_fingerprint,
            "transfer": [
                {
                    "name": one.name,
                    "fingerprint": one.fingerprint,
                    "num_images": len(one.labels),
                    pretrained_accuracy_key(one.name): outcomes[one.name].score.accuracy_pct,
                    "unknown_words": list(one.unknown_words),
                    **one.prompts(),
                }
                for one in self.reference.transfer
            ],
            "retrieval": [
                {"name": one.name, "fingerprint": one.fingerprint, "num_images": len(one.pixels)}
                for one in self.reference.retrieval
            ],
        }


def watched_by(
    before: VisionLanguageModel,
    images: Images,
    *,
    transfer: Sequence[str],
    transfer_by: str | Sequence[str],
    retrieval: Sequence[str],
    pool: Images | None,
    classes: str | Path | Sequence[str] | None,
    rules: PromptRules,
    vocabulary: str | Sequence[str] | None,
    train_images: Images | None,
    max_images: int | None,
    transfer_images: int | None,
    pool_images: int | None,
    maps: bool,
    image_size: int | None,
) -> Watched:
    """Opens the sets and has the pretrained model read them; arguments as for `Monitor`.

    For a model in training at another image size they are opened at that one, too.

    Raises:
        ModelError, DataError, ConfigError: a set cannot be used; the sentence says which.
    """
    read = some_pixels(images, before.framing, max_images, "images")
    name, pixels = read.name, read.pixels
    refuse_protocols_of_none(transfer_by, transfer)
    suites = found_suites(transfer)

    def opened(
        model: VisionLanguageModel,
    ) -> tuple[list[LabelledSet], list[RetrievalSet], Pool | None]:
        """The benchmarks and the pool, their images as a model reads them."""
        places = places_of(transfer, suites)
        labelled = labelled_sets(places, model, transfer_images, rules, by=transfer_by)
        captioned = [retrieval_set(place, model, transfer_images) for place in retrieval]
        unlabeled = None if pool is None else make_pool(model, pool, classes, rules, pool_images)
        return labelled, captioned, unlabeled

    labelled, captioned, unlabeled = opened(before)
    rules.refuse_if_unused(class_lists(labelled, unlabeled))
    reference = make_reference(
        before,
        pixels,
        transfer=labelled,
        retrieval=captioned,
        pool=unlabeled,
        maps=maps,
        vocabulary=vocabulary,
    )
    if image_size not in (None, before.image_size):
        twin = before.at_size(image_size)
        at_that_size = some_pixels(images, twin.framing, max_images, "images").pixels
        reference = reference.at_another_size(at_that_size, *opened(twin))
        reference = replace(reference, pretrained=twin)
    reference = reference.detached()
    leaked = num_among(train_images, pixels, before.framing, "train_images")
    return Watched(reference, name, suites, leaked, read.are_labeled, read.split_of)
