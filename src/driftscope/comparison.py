"""Two models on the same images: how far did the second drift from the first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import (
    check_same_function,
    check_same_pixels,
    function_facts,
)
from driftscope.backbones.weights import encoder_fingerprint, encoder_state
from driftscope.data import EncodedSet, ImageSet, open_dataset
from driftscope.data.prompts import class_prompts
from driftscope.data.vocabulary import GENERAL_VOCABULARY
from driftscope.errors import ConfigError, DataError, ModelError
from driftscope.metrics import units
from driftscope.reading import Drift, Reading, drift
from driftscope.reading_pass import TextProbe, read, read_texts, text_drift
from driftscope.reading_subsets import SUBSET_SIGNALS, probe_size_sensitivity
from driftscope.records import Overlay, transfer_scalars
from driftscope.run import overlay
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import intruder_dimensions_per_layer, weight_drift
from driftscope.sources import default_device, load
from driftscope.transfer import transfer_names, transfer_set
from driftscope.transfer.classification import class_embeddings, unknown_words

MIN_IMAGES = 4
"""CKA compares images with each other; its debiased estimator needs four."""
NUM_SUBSETS = 5
"""Parts of the probe set whose entropies are set against each other (paper, table 2)."""
MIN_VOCABULARY = 10
"""With fewer known texts a zero-shot distribution says nothing."""


COMPARISON_KIND = "comparison"
"""The `kind` of its JSON, by which readers tell it from a monitor's report."""


@dataclass(frozen=True)
class Comparison:
    """An adapted model against its pretrained one on one probe set."""

    pretrained: str
    adapted: str
    images: str
    num_images: int
    skipped_images: tuple[str, ...]
    reading_pretrained: Reading
    reading_adapted: Reading
    drift: Drift
    stability: dict[str, Any]
    intruder_dimensions_per_layer: list[int] | None
    transfer: dict[str, dict[str, Any]]
    overlay: Overlay

    def to_dict(self) -> dict[str, Any]:
        """Every number as JSON values, with the units by name (attention maps are left out).

        `scalars` are the main ones, flat, as a monitor's `report.json` has them.
        """
        return {
            "kind": COMPARISON_KIND,
            "scalars": self.scalars(),
            "pretrained": self.pretrained,
            "adapted": self.adapted,
            "images": self.images,
            "num_images": self.num_images,
            "skipped_images": list(self.skipped_images),
            "reading_pretrained": self.reading_pretrained.to_dict(),
            "reading_adapted": self.reading_adapted.to_dict(),
            "drift": self.drift.to_dict(),
            "stability": self.stability,
            "intruder_dimensions_per_layer": self.intruder_dimensions_per_layer,
            "transfer": self.transfer,
            "units": units(),
        }

    def scalars(self) -> dict[str, float]:
        """The single numbers that were measured and are finite, by the names that records use."""
        zero_shot = transfer_scalars(self.transfer)
        known = {name: value for name, value in zero_shot.items() if value is not None}
        return {**self.drift.scalars(), **known}


def compare(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    images: str | Path,
    *,
    transfer: str | Path | Sequence[str | Path] = (),
    max_images: int = 200,
    transfer_images: int | None = 1000,
    maps: bool = False,
    intruders: bool = False,
    skip_bad_images: bool = False,
    device: str | None = None,
) -> Comparison:
    """Reads both models on the same images and evaluates what zero-shot ability is left.

    Args:
        pretrained: the model before: anything `driftscope.load` takes, or a loaded model.
        adapted: the model after; its architecture, and its base if known, must be `pretrained`'s.
        images: a folder of images (unlabeled is fine) or a dataset's name.
        transfer: labeled datasets on which zero-shot accuracy is compared; one or several.
        max_images: how many of the images are read at most, evenly spaced.
        transfer_images: how many images of each transfer set are read at most; None for all.
        maps: whether to read rollout and patch-to-patch entropy too (full attention maps).
        intruders: whether to count intruder dimensions (2410.21228); a singular value
            decomposition of every weight matrix that changed.
        skip_bad_images: whether unreadable images are left out (and counted) or an error.
        device: where models given by name run, such as `cpu` or `cuda:0`; by default CUDA where
            there is any. A loaded model stays where it is.

    Raises:
        ModelError: a model cannot be loaded, or the two don't belong together.
        DataError: no images, or an unreadable one.
    """
    names = transfer_names(transfer)
    if not isinstance(max_images, int) or max_images < MIN_IMAGES:
        raise ConfigError(
            f"max_images is {max_images!r}; give a whole number of {MIN_IMAGES} or more"
        )
    before, after = _loaded(pretrained, device), _loaded(adapted, device)
    _check_related(before, after)
    after = _completed(after, before)
    image_set, skipped = _probe_set(images, skip_bad_images)
    chosen = torch.linspace(0, len(image_set) - 1, min(max_images, len(image_set))).long()
    try:
        pixels = image_set.pixels(chosen, before.image_size)
    except DataError as error:
        raise DataError(
            f"{error}; replace it, or leave such images out with --skip-bad-images "
            "(skip_bad_images=True)"
        ) from None
    reading_before, reading_after = read(before, pixels, maps=maps), read(after, pixels, maps=maps)
    weights_before, weights_after = encoder_state(before), encoder_state(after)
    return Comparison(
        pretrained=before.source,
        adapted=after.source,
        images=image_set.name,
        num_images=len(pixels),
        skipped_images=tuple(skipped),
        reading_pretrained=reading_before,
        reading_adapted=reading_after,
        drift=drift(
            reading_after,
            reading_before,
            weights=weight_drift(weights_before, weights_after),
            text=_text_space(before, reading_after, reading_before),
        ),
        stability=_stability(reading_after, reading_before),
        intruder_dimensions_per_layer=(
            intruder_dimensions_per_layer(weights_before, weights_after) if intruders else None
        ),
        transfer={name: _transfer(name, before, after, transfer_images) for name in names},
        overlay=overlay(before, after, pixels),
    )


def _stability(reading_after: Reading, reading_before: Reading) -> dict[str, Any]:
    """How far the numbers depend on which images, and on how many, were read."""
    count = reading_after.num_images
    subsets = [range(start, count, NUM_SUBSETS) for start in range(min(NUM_SUBSETS, count))]
    sizes = sorted({max(MIN_IMAGES, count // part) for part in (8, 4, 2, 1)})
    drifts = probe_size_sensitivity(reading_after, reading_before, sizes)
    return {
        "num_subsets": len(subsets),
        "entropy_subset_cv": reading_after.subset_coefficient_of_variation(subsets),
        "probe_sizes": [
            {
                "num_images": one.num_images,
                **{name: getattr(one, name) for name in SUBSET_SIGNALS},
            }
            for one in drifts
        ],
    }


def general_texts(
    pretrained: VisionLanguageModel, vocabulary: Sequence[str] | None = None
) -> TextProbe | None:
    """The fixed texts that text-space drift is seen against; None where the model reads too few.

    Args:
        pretrained: whose text tower embeds them.
        vocabulary: texts to be taken as they are; by default the prompts of the general
            vocabulary's words, without those that the tokenizer lacks.
    """
    if pretrained.tokenizer is None:
        return None
    if vocabulary is not None:
        return read_texts(pretrained, vocabulary)
    known = [word for word in GENERAL_VOCABULARY if not unknown_words(pretrained, [word])]
    if len(known) < MIN_VOCABULARY:
        return None
    return read_texts(pretrained, class_prompts(known))


def _text_space(
    before: VisionLanguageModel, reading_after: Reading, reading_before: Reading
) -> TextSpaceDrift | None:
    texts = general_texts(before)
    return None if texts is None else text_drift(reading_after, reading_before, texts)


def _loaded(model: str | Path | VisionLanguageModel, device: str | None) -> VisionLanguageModel:
    if isinstance(model, VisionLanguageModel):
        return model
    return load(model, device=device or default_device())


def _completed(after: VisionLanguageModel, before: VisionLanguageModel) -> VisionLanguageModel:
    """With the pretrained model's pixel convention and tokenizer where it was saved without."""
    if not after.has_own_pixels:
        after = replace(after, mean=before.mean, std=before.std)
    return replace(after, tokenizer=after.tokenizer or before.tokenizer)


def _check_related(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    if after.base_fingerprint not in (None, encoder_fingerprint(before)):
        raise ModelError(
            f"{after.source} was adapted from another model than {before.source} "
            "(its base's weights differ); compare it with the base it was trained on"
        )
    check_same_towers(encoder_state(before), encoder_state(after), before.source, after.source)
    check_same_function(function_facts(before), function_facts(after), before.source, after.source)
    check_same_pixels(before, after)


def check_same_towers(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], before_name: str, after_name: str
) -> None:
    """Raises ModelError where two encoders' weights differ in name or shape."""
    shapes_before = {name: tensor.shape for name, tensor in before.items()}
    shapes_after = {name: tensor.shape for name, tensor in after.items()}
    if shapes_before != shapes_after:
        differing = sorted(
            name
            for name in shapes_before.keys() | shapes_after.keys()
            if shapes_before.get(name) != shapes_after.get(name)
        )[0]
        raise ModelError(
            f"{before_name} and {after_name} have different image towers: {differing} is "
            f"{_shape(shapes_before.get(differing))} against {_shape(shapes_after.get(differing))}"
        )


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else "×".join(str(size) for size in shape) or "a scalar"


def _probe_set(images: str | Path, skip_bad: bool) -> tuple[ImageSet, list[str]]:
    image_set = open_dataset(images, "test")
    skipped: list[str] = []
    if skip_bad and isinstance(image_set, EncodedSet):
        image_set, skipped = image_set.readable()
    if len(image_set) < MIN_IMAGES:
        raise DataError(
            f"{images} has {len(image_set)} readable image(s); drift is read on at least "
            f"{MIN_IMAGES}, and is steadier on 200"
        )
    return image_set, skipped


def _transfer(
    name: str, before: VisionLanguageModel, after: VisionLanguageModel, max_images: int | None
) -> dict[str, Any]:
    """Zero-shot scores of both, each with its own text tower where adaptation moved that too."""
    benchmark = transfer_set(name, before, max_images)
    moved = _text_tower_moved(before, after)
    own = benchmark
    if moved:
        texts = class_embeddings(after, benchmark.class_names, benchmark.rules)
        own = replace(benchmark, text_embeddings=texts)
    pretrained, adapted = benchmark.outcome(before), own.outcome(after)
    return {
        "pretrained": pretrained.score.to_dict(),
        "adapted": adapted.score.to_dict(),
        "adapted_text_tower": "its own" if moved else "the pretrained one",
        "unknown_words": list(benchmark.unknown_words),
        **benchmark.change(adapted, pretrained),
    }


def _text_tower_moved(before: VisionLanguageModel, after: VisionLanguageModel) -> bool:
    """Whether adaptation changed the text tower or its projection, or put an adapter into it."""
    now = dict(after.plain.named_parameters())
    return any(
        name not in now or not torch.equal(parameter.to(now[name].device), now[name])
        for name, parameter in before.plain.named_parameters()
        if name.startswith("text_")
    )
