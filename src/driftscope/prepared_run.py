"""What all runs on one model, dataset and split share: read-only, computed once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.assess import Evaluator, make_evaluator
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint, text_fingerprint
from driftscope.config import FullFineTuning, RunSpec
from driftscope.data import PixelSource, groups_of, labelled, rows_of
from driftscope.data.duplicates import Duplicates, find_duplicates
from driftscope.data.prompts import PromptRules
from driftscope.data.residence import resident
from driftscope.data.splits import Splits, make_splits, open_train_and_test
from driftscope.reference_cache import cached_embeddings
from driftscope.sources import default_device, load
from driftscope.train import TrainingImages
from driftscope.transfer import retrieval_set, transfer_set


@dataclass(frozen=True)
class PreparedRun:
    """The pretrained model, the target task's images, and what models are evaluated against."""

    pretrained: VisionLanguageModel
    class_names: tuple[str, ...]
    images: TrainingImages
    evaluator: Evaluator
    test_pixels: PixelSource
    test_labels: Int64[Tensor, " test"]
    splits: Splits
    fingerprints: dict[str, str]
    """Name -> fingerprint of every image set in play."""
    duplicates: Duplicates

    @property
    def origin(self) -> str:
        """A short hash of the model and the data: what a checkpoint's weights depend on."""
        towers = [encoder_fingerprint(self.pretrained), text_fingerprint(self.pretrained)]
        parts = [towers, self.fingerprints, self.splits.hashes()]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
)
"""What a prepared run does not depend on, besides method and rate."""


def prepare(spec: RunSpec, device: str | None = None) -> PreparedRun:
    """Everything of a run that does not depend on method, optimisation or training seed."""
    defaults = {name: RunSpec.model_fields[name].default for name in _OPTIMISATION}
    shared = spec.model_copy(update={"method": FullFineTuning(), "learning_rate": 1.0, **defaults})
    return _prepare(shared, device or default_device())


@lru_cache(maxsize=1)
def _prepare(spec: RunSpec, device: str) -> PreparedRun:
    pretrained = load(spec.model, device=device)
    size = pretrained.image_size
    train_set, test_set = open_train_and_test(spec.dataset, spec.data_seed, protocol=spec.protocol)
    train_labels, class_names = labelled(train_set)
    test_labels, _ = labelled(test_set)
    splits = make_splits(
        spec, train_labels, test_labels, class_names=class_names, groups=groups_of(train_set)
    )
    held_out, held_labels = (
        (test_set, test_labels) if splits.held_out_from_test else (train_set, train_labels)
    )
    train_pixels = rows_of(train_set, splits.train, size)
    test_pixels = rows_of(test_set, splits.test, size)
    val_pixels = rows_of(held_out, splits.val, size)
    probe_pixels = held_out.pixels(splits.probe, size)
    sides: dict[str, PixelSource] = {"train": train_pixels, "test": test_pixels}
    if not splits.held_out_from_test:  # else they are the test images, on purpose
        sides |= {"val": val_pixels, "probe": probe_pixels}
    rules = PromptRules(spec.templates, spec.class_words)
    transfer = tuple(
        transfer_set(name, pretrained, spec.transfer_images, rules) for name in spec.transfer
    )
    retrieval = tuple(
        retrieval_set(name, pretrained, spec.transfer_images) for name in spec.retrieval
    )
    return PreparedRun(
        pretrained=pretrained,
        class_names=class_names,
        images=TrainingImages(
            resident(train_pixels, pretrained.device), train_labels[splits.train]
        ),
        evaluator=make_evaluator(
            pretrained,
            probe_pixels,
            val_pixels,
            held_labels[splits.val],
            transfer=transfer,
            retrieval=retrieval,
            probe_subsets=splits.probe_positions(),
            maps=spec.maps,
        ),
        test_pixels=test_pixels,
        test_labels=test_labels[splits.test],
        splits=splits,
        fingerprints={
            "train": train_set.fingerprint,
            "test": test_set.fingerprint,
            **{one.name: one.fingerprint for one in transfer},
            **{one.name: one.fingerprint for one in retrieval},
        },
        duplicates=find_duplicates(sides),
    )


def training_images(prepared: PreparedRun, spec: RunSpec) -> TrainingImages:
    """The training images, with their features where the method trains a classifier on them."""
    if spec.method.kind not in ("linear_probe", "lp_ft"):
        return prepared.images
    pixels = prepared.images.pixels
    variants = [pixels, pixels.mirrored()] if spec.horizontal_flip else [pixels]
    features = [cached_embeddings(prepared.pretrained, variant) for variant in variants]
    return replace(prepared.images, features=torch.stack(features))
