"""What all runs on one model, dataset and split share: read-only, computed once."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.adapt import AdaptedModel
from driftscope.assess import Assessment, assess, unchanged
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import text_fingerprint
from driftscope.config import FullFineTuning, RunSpec
from driftscope.data import ImageSet, PixelSource, groups_of, labelled, notes_of, rows_of
from driftscope.data.duplicates import Duplicates, find_duplicates
from driftscope.data.prompts import PromptRules
from driftscope.data.rows import resident
from driftscope.data.splits import Splits, make_splits, open_train_and_test
from driftscope.errors import NonFiniteError, NoteWarning
from driftscope.estimate import Estimate, Pool, make_pool
from driftscope.reading_pass import images_fingerprint
from driftscope.reading_subsets import on_subsets, standard_subsets
from driftscope.records import transfer_scalars
from driftscope.reference import Embedded, Reference, make_reference
from driftscope.reference_cache import CachedModel
from driftscope.sources import default_device, load
from driftscope.sources.preprocessor import assumed_pixels
from driftscope.train import Evaluation, TrainingImages
from driftscope.transfer import RetrievalSet, retrieval_set
from driftscope.transfer.classification import LabelledSet
from driftscope.transfer.doubts import doubts_of_score
from driftscope.transfer.features import labelled_sets

VALIDATION = "validation"
"""The name of the validation images among those that are embedded."""


@dataclass(frozen=True)
class PreparedRun:
    """The pretrained model, the target task's images, and what models are evaluated against."""

    pretrained: VisionLanguageModel
    class_names: tuple[str, ...]
    images: TrainingImages
    reference: Reference
    val_labels: Int64[Tensor, " val"]
    probe_subsets: Sequence[Sequence[int]]
    """Positions in the probe set whose signals are recorded apart."""
    test_pixels: PixelSource
    test_labels: Int64[Tensor, " test"]
    splits: Splits
    fingerprints: dict[str, str]
    """Name -> fingerprint of every image set in play."""
    duplicates: Duplicates

    @property
    def origin(self) -> str:
        """A short hash of the model and the data: what a checkpoint's weights and events are of."""
        towers = [self.reference.fingerprint, text_fingerprint(self.pretrained)]
        parts = [towers, self.fingerprints, self.splits.hashes(), self._prompts]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def _prompts(self) -> list[Any]:
        """By which texts the classes are told; a file of names may be another one in a while."""
        of_sets = [[one.name, one.prompts()] for one in self.reference.transfer]
        if self.reference.referee is None:
            return of_sets
        classes = self.reference.referee.pool.classes
        return [*of_sets, ["pool", classes.rules.prompts(classes.names)]]

    def evaluate(self, adapted: AdaptedModel, pool: Embedded | None = None) -> Evaluation:
        """Validation accuracy, and what is found of the encoder as it is now.

        A frozen encoder is the pretrained one: nothing goes through it again, and what is found of
        it is worked out once. `pool` are images of the pool that this very model embedded already.
        """
        if adapted.encoder_is_frozen:
            found, record = self._unchanged
        else:
            is_frozen = adapted.class_tokens is None
            found = assess(
                adapted.model, self.reference, text_tower_is_frozen=is_frozen, pool_seen=pool
            )
            record = self._record_of(found)
        embeddings = found.further[VALIDATION]
        accuracy_pct = 100 * num_correct(adapted, embeddings, self.val_labels) / len(embeddings)
        scalars = {
            **record["drift"],
            **_interval(found.estimate),
            **transfer_scalars(found.transfer),
        }
        scalars.pop("unmeasured", None)  # reasons are told once, in the record
        return Evaluation(accuracy_pct, scalars, record)

    @property
    def untouched_val(self) -> Float[Tensor, "image dim"]:
        """The validation images' embeddings by the pretrained model, which a frozen one is."""
        return self._unchanged[0].further[VALIDATION]

    @cached_property
    def _unchanged(self) -> tuple[Assessment, dict[str, Any]]:
        found = unchanged(self.reference)
        return found, self._record_of(found)

    def _record_of(self, found: Assessment) -> dict[str, Any]:
        return {
            "reading": found.reading.to_dict(),
            "drift": found.drift.to_dict(),
            "subsets": on_subsets(found.reading, self.reference.reading, self.probe_subsets),
            "transfer": found.transfer,
            "retrieval": found.retrieval,
            **({"estimate": found.estimate.to_dict()} if found.estimate else {}),
        }

    def doubts(self) -> list[str]:
        """What makes its numbers doubtful, those of transfer and retrieval sets by their names."""
        reference = self.reference
        found = {
            one.name: [*one.doubts, *doubts_of_score(reference.outcomes[one.name].score)]
            for one in reference.transfer
        }
        of_sets = [f"{name}: {doubt}." for name, doubts in found.items() for doubt in doubts]
        return [f"{one}." for one in assumed_pixels(self.pretrained)] + of_sets

    def pretrained_record(self) -> dict[str, Any]:
        """The pretrained model's reading and what it scores on every set."""
        reference = self.reference
        return {
            "reading": reference.reading.to_dict(),
            "transfer": {name: one.score.to_dict() for name, one in reference.outcomes.items()},
            "retrieval": {name: one.to_dict() for name, one in reference.retrieved.items()},
        }


def _interval(estimate: Estimate | None) -> dict[str, float | None]:
    """The ends of the estimate's 90 % interval, in percent; none without an estimate."""
    if estimate is None:
        return {}
    return {"low_90_pct": estimate.low_90_pct, "high_90_pct": estimate.high_90_pct}


def num_correct(
    adapted: AdaptedModel, embeddings: Float[Tensor, "image dim"], labels: Int64[Tensor, " image"]
) -> int:
    """How many images the model in training classifies rightly, from their embeddings.

    Raises:
        NonFiniteError: its classifier, or the text tower in its place, has diverged.
    """
    with evaluating(adapted.model.module):
        logits = adapted.class_logits(embeddings.to(adapted.model.device)).cpu()
    if not bool(torch.isfinite(logits).all()):
        raise NonFiniteError(
            "the classifier gives logits with NaN or infinite values: it has diverged, and the "
            "classes it names would mean nothing"
        )
    return int(torch.sum(logits.argmax(dim=-1) == labels))


_OPTIMISATION = (
    "seed",
    "epochs",
    "batch_size",
    "weight_decay",
    "warmup_fraction",
    "clip_norm",
    "horizontal_flip",
    "decay_norms_and_biases",
    "label_smoothing",
    "micro_batches",
    "precision",
    "compile",
    "regularizers",
    "probe_at",
    "corruptions",
    "corruption_severity",
    "budget",
    "interventions",
    "post",
)
"""What a prepared run does not depend on, besides method and rate."""


def prepare(spec: RunSpec, device: str | None = None) -> PreparedRun:
    """Everything of a run that does not depend on method, optimisation or training seed."""
    return _prepare(shared_part(spec), device or default_device())


def shared_part(spec: RunSpec) -> RunSpec:
    """The spec with usual values where runs that share what is prepared may differ."""
    defaults = {name: RunSpec.model_fields[name].default for name in _OPTIMISATION}
    return spec.model_copy(update={"method": FullFineTuning(), "learning_rate": 1.0, **defaults})


@dataclass(frozen=True)
class Inputs:
    """A run's pretrained model and image sets, opened and checked; the encoder has seen none."""

    pretrained: VisionLanguageModel
    train_set: ImageSet
    test_set: ImageSet
    train_labels: Int64[Tensor, " image"]
    test_labels: Int64[Tensor, " image"]
    class_names: tuple[str, ...]
    splits: Splits
    transfer: tuple[LabelledSet, ...]
    retrieval: tuple[RetrievalSet, ...]
    pool: Pool | None


def open_inputs(spec: RunSpec, device: str) -> Inputs:
    """The model and the sets that a spec names.

    Raises:
        DriftscopeError: one of them cannot be had or used; the run would say the same.
    """
    pretrained = load(spec.model, device=device)
    train_set, test_set = open_train_and_test(
        spec.dataset,
        spec.data_seed,
        protocol=spec.protocol,
        skip_bad_images=spec.skip_bad_images,
    )
    train_labels, class_names = labelled(train_set)
    test_labels, _ = labelled(test_set)
    rules = PromptRules(spec.templates, spec.class_words)
    return Inputs(
        pretrained,
        train_set,
        test_set,
        train_labels,
        test_labels,
        class_names,
        make_splits(
            spec, train_labels, test_labels, class_names=class_names, groups=groups_of(train_set)
        ),
        transfer=tuple(
            labelled_sets(
                *(spec.transfer, pretrained, spec.transfer_images, rules),
                by=spec.transfer_by,
                skip_bad_images=spec.skip_bad_images,
            )
        ),
        retrieval=tuple(
            retrieval_set(
                name, pretrained, spec.transfer_images, skip_bad_images=spec.skip_bad_images
            )
            for name in spec.retrieval
        ),
        pool=make_pool(
            *(pretrained, spec.pool, spec.classes, rules, spec.pool_images),
            skip_bad_images=spec.skip_bad_images,
        )
        if spec.pool is not None
        else None,
    )


@lru_cache(maxsize=1)
def _prepare(spec: RunSpec, device: str) -> PreparedRun:
    inputs = open_inputs(spec, device)
    for note in assumed_pixels(inputs.pretrained):
        warnings.warn(note, NoteWarning, stacklevel=3)
    pretrained, splits, pool = inputs.pretrained, inputs.splits, inputs.pool
    train_set, test_set, framing = inputs.train_set, inputs.test_set, pretrained.framing
    held_out, held_labels = (
        (test_set, inputs.test_labels)
        if splits.held_out_from_test
        else (train_set, inputs.train_labels)
    )
    train_pixels = rows_of(train_set, splits.train, framing)
    test_pixels = rows_of(test_set, splits.test, framing)
    val_pixels = rows_of(held_out, splits.val, framing)
    probe_pixels = held_out.pixels(splits.probe, framing)
    sides: dict[str, PixelSource] = {"train": train_pixels, "test": test_pixels}
    if not splits.held_out_from_test:  # else they are the test images, on purpose
        sides |= {"val": val_pixels, "probe": probe_pixels}
    return PreparedRun(
        pretrained=pretrained,
        class_names=inputs.class_names,
        images=TrainingImages(
            resident(train_pixels, pretrained.device), inputs.train_labels[splits.train]
        ),
        reference=make_reference(
            pretrained,
            probe_pixels,
            transfer=inputs.transfer,
            retrieval=inputs.retrieval,
            pool=pool,
            further={VALIDATION: val_pixels},
            maps=spec.maps,
        ),
        val_labels=held_labels[splits.val],
        probe_subsets=splits.probe_positions() or standard_subsets(len(probe_pixels)),
        test_pixels=test_pixels,
        test_labels=inputs.test_labels[splits.test],
        splits=replace(
            splits, notes=(*notes_of(train_set), *notes_of(test_set), *(pool.notes if pool else ()))
        ),
        fingerprints={
            "train": train_set.fingerprint,
            "test": test_set.fingerprint,
            **{one.name: one.fingerprint for one in inputs.transfer},
            **{one.name: one.fingerprint for one in inputs.retrieval},
            **({"pool": images_fingerprint(pool.pixels)} if pool else {}),
        },
        duplicates=find_duplicates(sides),
    )


def training_images(prepared: PreparedRun, spec: RunSpec) -> TrainingImages:
    """The training images, with their features where the method trains a classifier on them."""
    if spec.method.kind not in ("linear_probe", "lp_ft"):
        return prepared.images
    pixels = prepared.images.pixels
    variants = [pixels, pixels.mirrored()] if spec.horizontal_flip else [pixels]
    cached = CachedModel(prepared.pretrained)
    features = [cached.embeddings(variant) for variant in variants]
    return replace(prepared.images, features=torch.stack(features))
