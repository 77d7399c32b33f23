"""Zero-shot classification through the live encoder; retention, forgotten classes, flows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from driftscope.backbones.capture import check_adapters_in_effect
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import (
    EncodedSet,
    ImageSet,
    PixelSource,
    labelled,
    open_labelled,
    rows_of,
)
from driftscope.data.copies import told_of_copies
from driftscope.data.prompts import PromptRules, expand_templates, words_of
from driftscope.data.splits import balanced_subset
from driftscope.errors import ConfigError, NonFiniteError
from driftscope.transfer.doubts import (
    DoubtWarning,
    doubts_of_names,
    doubts_of_prompts,
    doubts_of_score,
    doubts_of_several,
    prompt_keys,
    unknown_words,
)
from driftscope.transfer.scores import (
    Outcome,
    ZeroShotScore,
    above_chance_pct,
    confusion_flows,
    outcome_of,
    per_class_retention,
    retention_pct,
)


def class_embeddings(
    model: VisionLanguageModel, class_names: Sequence[str], rules: PromptRules | None = None
) -> Float[Tensor, "class dim"]:
    """Normalised text embeddings of the classes; from the pretrained model, computed once.

    With several templates a class is the normalised mean of its sentences' normalised
    embeddings (Radford et al. 2021, 3.1.4). Classes whose prompts the tokenizer reads alike have
    the same row, to the bit.

    Raises:
        DataError: a template without a place for the class name.
        ModelError: the model has no tokenizer.
        NonFiniteError: its text tower has diverged.
    """
    prompts = (rules or PromptRules()).prompts(class_names)
    first: dict[tuple[bytes, ...], int] = {}
    number = [first.setdefault(key, len(first)) for key in prompt_keys(model, prompts)]
    different = [prompts[number.index(one)] for one in range(len(first))]
    sentences = [sentence for of_class in different for sentence in of_class]
    embeddings = functional.normalize(model.embed_texts(sentences), dim=-1)
    if not bool(torch.isfinite(embeddings).all()):
        raise NonFiniteError(
            f"{model.source} gives class embeddings with NaN or infinite values: its text tower "
            "has diverged, and a score of it would mean nothing"
        )
    by_class = embeddings.view(len(different), -1, embeddings.shape[-1])
    return functional.normalize(by_class.mean(dim=1), dim=-1)[number]


def zero_shot(
    model: VisionLanguageModel,
    pixels: PixelSource,
    labels: Int64[Tensor, " image"],
    text_embeddings: Float[Tensor, "class dim"],
    name: str,
    batch_size: int | None = None,
) -> ZeroShotScore:
    """Zero-shot accuracy of the model's live image path against given class embeddings.

    Raises:
        CaptureError: an adapter is there but not in effect (the score would be the base's), or
            the model gives embeddings that are no numbers.
    """
    return classify(model, pixels, labels, text_embeddings, name, batch_size).score


def classify(
    model: VisionLanguageModel,
    pixels: PixelSource,
    labels: Int64[Tensor, " image"],
    text_embeddings: Float[Tensor, "class dim"],
    name: str,
    batch_size: int | None = None,
) -> Outcome:
    """As `zero_shot`, with every image's predicted class."""
    embeddings = live_embeddings(model, pixels, batch_size)
    scale, bias = model.logit_scale, model.logit_bias
    return outcome_of(embeddings, labels, text_embeddings, name, scale, bias)


def live_embeddings(
    model: VisionLanguageModel, pixels: PixelSource, batch_size: int | None = None
) -> Float[Tensor, "image dim"]:
    """Normalised image embeddings through the live path, adapters in effect.

    Raises:
        CaptureError: an adapter is there but not in effect, or an embedding is not finite.
    """
    check_adapters_in_effect(model.module)
    embeddings = functional.normalize(model.embed_images(pixels, batch_size), dim=-1)
    if not bool(torch.isfinite(embeddings).all()):
        raise NonFiniteError(
            f"{model.source} gives image embeddings with NaN or infinite values: the model has "
            "diverged, and a score of it would mean nothing"
        )
    return embeddings


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledSet:
    """A benchmark on labeled images; its name says by what their classes are told."""

    name: str
    split: str
    fingerprint: str
    pixels: PixelSource
    labels: Int64[Tensor, " image"]
    class_names: tuple[str, ...]
    unknown_words: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def image_sets(self) -> dict[str, PixelSource]:
        """The images to embed, by name."""
        raise NotImplementedError

    def outcome_from(
        self,
        embeddings: Mapping[str, Tensor],
        model: VisionLanguageModel | None = None,
        *,
        has_own_texts: bool = False,
    ) -> Outcome:
        """The score and the predictions, from the embeddings of `image_sets`.

        Args:
            embeddings: unnormalised, by the sets' names.
            model: whose they are; None for the pretrained one.
            has_own_texts: whether its own text tower reads the classes, and not the pretrained one.
        """
        raise NotImplementedError

    def prompts(self) -> dict[str, Any]:
        """For the record: how its classes are told."""
        return {"split": self.split}

    def change(self, adapted: Outcome, pretrained: Outcome) -> dict[str, Any]:
        """The adapted score with what was lost on the way, as JSON values.

        Beside the retention stand what it is a share of, what guessing and one answer to all
        score, and what makes it doubtful.
        """
        before = pretrained.score
        return {
            **adapted.score.to_dict(),
            "retention_pct": retention_pct(adapted.score, before),
            "above_chance_pct": above_chance_pct(adapted.score, before),
            "pretrained_accuracy_pct": before.accuracy_pct,
            "pretrained_low_pct": before.wilson_low_pct,
            "pretrained_high_pct": before.wilson_high_pct,
            "chance_pct": before.chance_pct,
            "constant_pct": before.constant_pct,
            "pretrained_ece_pct": before.ece_pct,
            "ece_change_points": _difference(adapted.score.ece_pct, before.ece_pct),
            "doubts": [*self.doubts, *doubts_of_score(before)],
            "notes": list(self.notes),
            "per_class": per_class_retention(adapted.score, pretrained.score, self.class_names),
            "flows": confusion_flows(adapted, pretrained, self.labels, self.class_names),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class TransferSet(LabelledSet):
    """A zero-shot benchmark with the pretrained model's class embeddings and logit scale."""

    text_embeddings: Float[Tensor, "class dim"]
    logit_scale: float
    logit_bias: float | None = None
    rules: PromptRules

    def image_sets(self) -> dict[str, PixelSource]:
        """Its images."""
        return {f"zero-shot: {self.name}": self.pixels}

    def outcome_from(
        self,
        embeddings: Mapping[str, Tensor],
        model: VisionLanguageModel | None = None,
        *,
        has_own_texts: bool = False,
    ) -> Outcome:
        """As there; the classes are told by their texts."""
        (images,) = (embeddings[name] for name in self.image_sets())
        texts, scale, bias = self.text_embeddings, self.logit_scale, self.logit_bias
        if model is not None and model.has_text:  # else an image tower that is trained alone
            scale, bias = model.logit_scale, model.logit_bias
        if model is not None and has_own_texts:
            texts = class_embeddings(model, self.class_names, self.rules)
        directions = functional.normalize(images, dim=-1)
        return outcome_of(directions, self.labels, texts.float().cpu(), self.name, scale, bias)

    def score(self, model: VisionLanguageModel) -> ZeroShotScore:
        """The model's zero-shot accuracy on it."""
        return self.outcome(model).score

    def outcome(self, model: VisionLanguageModel) -> Outcome:
        """The model's score and predictions."""
        return classify(model, self.pixels, self.labels, self.text_embeddings, self.name)

    @property
    def classes_of_known_words(self) -> tuple[str, ...]:
        """The classes of which the tokenizer knows every word; the others score by luck."""
        words = words_of(self.class_names, dict(self.rules.class_words))
        unknown = set(self.unknown_words)
        return tuple(
            name
            for name, said in zip(self.class_names, words, strict=True)
            if not unknown.intersection(said.split())
        )

    def prompts(self) -> dict[str, Any]:
        """For the record: every prompt is one of the templates with one of the words."""
        words = words_of(self.class_names, dict(self.rules.class_words))
        return {
            "split": self.split,
            "templates": expand_templates(self.rules.templates),
            "class_words": dict(zip(self.class_names, words, strict=True)),
            "unknown_words": list(self.unknown_words),
        }


def transfer_names(given: object, what: str = "transfer") -> tuple[str, ...]:
    """The names of datasets, each once, however many were given.

    Raises:
        ConfigError: it is neither a dataset's name nor a list of them.
    """
    if given is None:
        return ()
    names = [given] if isinstance(given, str | Path) else given
    if isinstance(names, Sequence) and all(isinstance(name, str | Path) for name in names):
        return tuple(dict.fromkeys(map(str, names)))
    kind = "captioned" if what == "retrieval" else "labeled"
    raise ConfigError(
        f"{what} is {short(given)}; give a {kind} dataset's name or folder, or a list of them"
    )


def transfer_set(
    name: str,
    pretrained: VisionLanguageModel,
    max_images: int | None = None,
    rules: PromptRules | None = None,
    *,
    skip_bad_images: bool = False,
) -> TransferSet:
    """A labeled dataset's test split as a zero-shot benchmark of the pretrained model.

    What makes its numbers doubtful is looked for here, once, and warned of.

    Args:
        name: a dataset's name or place, as for `open_dataset`.
        pretrained: whose text tower reads the class prompts, and whose input size the images get.
        max_images: so many images, evenly over classes; None for all.
        rules: how class names become prompts; what comes with the set fills what they leave open.
        skip_bad_images: whether unreadable images are left out (and counted) or an error.

    Raises:
        DataError: no such dataset, one without labels, or of one class.
    """
    images = open_labelled(name, "test")
    labels, class_names = labelled(images)
    indices = balanced_subset(labels, max_images)
    notes: list[str] = []
    doubts: list[str] = []
    if len(indices) < len(labels):
        notes.append(f"{len(indices):,} of its {len(labels):,} images, drawn evenly over classes")
    if isinstance(images, EncodedSet):  # so that no more is read than is scored on
        images = images.select(indices)
        if skip_bad_images:
            images = images.only_readable()
        labels, _ = labelled(images)
        indices = torch.arange(len(images))
        of_copies = told_of_copies(images)
        notes += [*images.notes, *of_copies[0]]
        doubts += [*images.doubts, *of_copies[1]]
    notes += notes_of_absent(labels[indices], class_names)
    asked = rules or PromptRules()
    rules = asked.filled_from(images, class_names)
    doubts += doubts_of_names(class_names, _words_to_doubt(images, asked), rules.templates)
    doubts += doubts_of_several(class_names)
    doubts += doubts_of_prompts(pretrained, class_names, rules.prompts(class_names))
    for doubt in doubts:
        warnings.warn(f"{name}: {doubt}", DoubtWarning, stacklevel=2)
    return TransferSet(
        name=name,
        split=images.split,
        fingerprint=images.fingerprint,
        pixels=rows_of(images, indices, pretrained.framing),
        labels=labels[indices],
        text_embeddings=class_embeddings(pretrained, class_names, rules),
        logit_scale=pretrained.logit_scale,
        logit_bias=pretrained.logit_bias,
        class_names=class_names,
        rules=rules,
        unknown_words=unknown_words(pretrained, words_of(class_names, dict(rules.class_words))),
        doubts=tuple(doubts),
        notes=tuple(notes),
    )


def notes_of_absent(
    labels: Int64[Tensor, " image"], class_names: Sequence[str], what: str = "are scored"
) -> Iterator[str]:
    """Classes that none of some images is of."""
    if absent := len(class_names) - len(torch.unique(labels)):
        told = f"{absent} of its {len(class_names)} classes"
        yield f"{told} have no image among those that {what}"


def _words_to_doubt(images: ImageSet, asked: PromptRules) -> list[str]:
    """The words of the classes, with a plain one for those that the user says."""
    _, class_names = labelled(images)
    found: Mapping[str, str] = getattr(images, "words", {})
    given = {*asked.own_words(class_names), *getattr(images, "given_words", ())}
    words = zip(class_names, words_of(class_names, found), strict=True)
    return ["given" if name in given else word for name, word in words]


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
