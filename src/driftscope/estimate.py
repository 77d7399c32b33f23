"""Retention without labels: what a pool of unlabeled images tells of it, and whether it may.

The pretrained model is the referee: it says how likely each of the adapted model's choices is
(`signals.label_free`). That needs images which the classes are of. Where the referee cannot know,
the estimate is withheld, and the reason stands in its place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import PixelRows, PixelSource, labelled, open_dataset
from driftscope.data.copies import FEW
from driftscope.data.duplicates import find_duplicates
from driftscope.data.given import Images, some_pixels
from driftscope.data.names import read_names, refuse_pool_without_names
from driftscope.data.prompts import PromptRules, words_of
from driftscope.data.vocabulary import GENERAL, GENERAL_VOCABULARY
from driftscope.errors import ConfigError, DataError, DriftscopeError, shown
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.nearby import OF_NAMES
from driftscope.signals.label_free import (
    TEMPERATURE_SD,
    Spread,
    agreement_pct,
    constant_retention_pct,
    estimate_spread,
    estimated_retention_pct,
    information_share,
    zero_shot_logits,
)
from driftscope.transfer.classification import (
    LabelledSet,
    TransferSet,
    class_embeddings,
)
from driftscope.transfer.doubts import doubts_of_names, doubts_of_prompts, unknown_words

MIN_POOL_IMAGES = 30
"""Fewer images leave an interval so wide that it says nothing."""
SURE_POOL_IMAGES, SURE_WIDTH = 50, 12.0
"""With fewer images, or a 90 % interval of more points, an estimate is doubtful: it may be more
than 10 points off (benchmarks/estimators.py shows the error rates)."""
MIN_INFORMATION, SURE_INFORMATION = 0.6, 0.75
"""Share of the classes' information that the referee must find in a pool for an estimate, and for
one without a doubt (benchmarks/estimators.py shows the error rates)."""
MAX_CONSTANT_PCT = 50.0
"""Where one answer to every image keeps so much, an estimate could be that of a dead model."""
TOLD_CONSTANT_PCT = 10.0
"""From here on what one answer to every image keeps is told beside the estimate."""
_SHOWN = 3


@dataclass(frozen=True)
class Classes:
    """Class names with how they become prompts; `described` and `place` say where they are from."""

    names: tuple[str, ...]
    rules: PromptRules
    described: str
    place: str = ""


@dataclass(frozen=True, eq=False)
class Pool:
    """Unlabeled images and the classes that a zero-shot model chooses among.

    Attributes:
        name: of the images.
        pixels: at the model's input size.
        classes: what is chosen among.
        text_embeddings: the classes', from the pretrained text tower.
        logit_scale: the pretrained model's factor on cosines.
        num_given: images there are, of which `pixels` are those that were read.
        problem: why no estimate can be given, found before any image is read; "" for none.
        notes: what was passed over or left out of the images, and what is doubtful.
    """

    name: str
    pixels: PixelSource
    classes: Classes
    text_embeddings: Float[Tensor, "class dim"]
    logit_scale: float
    num_given: int
    problem: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def num_copies(self) -> int:
        """Images that are copies of others, to the pixel."""
        return len(find_duplicates({"pool": self.pixels}).within["pool"])

    def part(self, places: Sequence[int]) -> Pool:
        """Some of the images, with all classes."""
        return replace(self, pixels=PixelRows.of(self.pixels).select(list(places)))

    def texts_of(self, model: VisionLanguageModel) -> Float[Tensor, "class dim"]:
        """The classes' embeddings from another text tower."""
        return class_embeddings(model, self.classes.names, self.classes.rules).float().cpu()


@dataclass(frozen=True)
class Estimate:
    """Retention as the pretrained model judges it, in percent; or why it is withheld.

    Attributes:
        retention_pct: the estimate; None where it is withheld.
        low_90_pct, high_90_pct, low_95_pct, high_95_pct: its intervals: images resampled, and the
            referee's calibration unknown.
        agreement_pct: images that both models give the same class.
        constant_pct: what a model that gives one answer to every image would keep.
        confidence_pct: the pretrained model's mean confidence on the pool.
        information: share of the classes' information that it finds there, in [0, 1].
        num_images, num_classes: of the pool.
        pool, classes: what they are, in words.
        withheld: why there is no estimate; "" where there is one.
        doubts: what makes it doubtful; a gate does not pass on a doubtful one.
        imprecise: the one of the doubts that says that the images are too few; "" for none.
    """

    retention_pct: float | None
    low_90_pct: float | None
    high_90_pct: float | None
    low_95_pct: float | None
    high_95_pct: float | None
    agreement_pct: float
    constant_pct: float
    confidence_pct: float
    information: float
    num_images: int
    num_classes: int
    pool: str
    classes: str
    withheld: str = ""
    doubts: tuple[str, ...] = ()
    imprecise: str = ""

    def sentence(self) -> str:
        """The answer, or why there is none.

        Such as "Estimated retention 93 % (from 400 unlabeled images of PLACES; 90 % interval 91 to
        95).".
        """
        if self.retention_pct is None:
            return f"Retention is not estimated: {self.withheld}."
        value, low, high = (
            METRICS[ESTIMATED].text(number)
            for number in (self.retention_pct, self.low_90_pct, self.high_90_pct)
        )
        told = f"from {self.num_images:,} unlabeled images of {self.pool}"
        told += f"; 90 % interval {low} to {high}"
        if self.constant_pct >= TOLD_CONSTANT_PCT:
            told += f"; one answer to every image would keep {self.constant_pct:.0f} %"
        return f"Estimated retention {value} % ({told})."

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values, with its sentence."""
        return {**asdict(self), "doubts": list(self.doubts), "sentence": self.sentence()}


# ---------------------------------------------------------------- the pool


def make_pool(
    pretrained: VisionLanguageModel,
    images: Images,
    classes: str | Path | Sequence[str] | None,
    rules: PromptRules,
    max_images: int | None = 1000,
    *,
    skip_bad_images: bool = False,
) -> Pool:
    """A pool of unlabeled images at the model's input size, with the classes' embeddings.

    Args:
        pretrained: the model before, whose text tower reads the classes.
        images: a dataset or folder, uint8 pixels, or PIL images. Of labels it is only asked
            whether they contradict the classes.
        classes: what `class_list` takes; None for the class names of a labeled pool.
        rules: how class names become prompts.
        max_images: how many are read at most, evenly spaced; None for all.
        skip_bad_images: whether unreadable images are left out (and counted) or an error.

    Raises:
        ConfigError, DataError: one of them cannot be used, or is missing.
        ModelError: the model has no tokenizer.
    """
    own_names = None
    if isinstance(images, str | Path):
        own_names = open_dataset(images, "test").class_names
    refuse_pool_without_names(own_names, classes)
    listed = class_list(str(images) if classes is None else classes, rules)
    _refuse_other_labels(images, own_names or (), listed)
    some = some_pixels(
        images, pretrained.framing, max_images, "pool", skip_bad_images=skip_bad_images
    )
    if listed.names == GENERAL_VOCABULARY:
        known = tuple(word for word in listed.names if not unknown_words(pretrained, [word]))
        listed = Classes(known, rules, f"{len(known)} words of {listed.described}")
    return Pool(
        name=some.name,
        pixels=PixelRows.of(some.pixels),
        num_given=some.num_given,
        classes=listed,
        text_embeddings=class_embeddings(pretrained, listed.names, listed.rules).float().cpu(),
        logit_scale=pretrained.logit_scale,
        problem=next(_problems(pretrained, listed), ""),
        notes=some.notes,
    )


def class_list(classes: str | Path | Sequence[str], rules: PromptRules) -> Classes:
    """The classes that a user names.

    Args:
        classes: a list of names; a file with one name per line; `general`, the everyday words of
            text-space drift; or a labeled dataset, whose names, words and templates are taken.
        rules: how they become prompts.

    Raises:
        ConfigError, DataError: they are none of these, fewer than two, or two of them are one.
    """
    if not isinstance(classes, str | Path):
        if not isinstance(classes, Sequence) or not all(isinstance(one, str) for one in classes):
            raise ConfigError(
                f"classes is {short(classes)}; give a list of class names, a file of them, "
                "'general' or a labeled dataset"
            )
        found = Classes(tuple(classes), rules, f"{len(classes)} classes of your own")
    elif str(classes) == GENERAL:
        found = Classes(GENERAL_VOCABULARY, rules, "the general vocabulary")
    elif Path(classes).expanduser().is_file() and Path(classes).suffix.lower() in OF_NAMES:
        named = read_names(Path(classes).expanduser())
        names = named.in_order or tuple(named.by_class.values())
        found = Classes(names, rules, f"the {len(names)} names of {classes}", f" in {classes}")
    else:
        found = _classes_of_dataset(classes, rules)
    return _checked(found)


def _classes_of_dataset(source: str | Path, rules: PromptRules) -> Classes:
    try:
        images = open_dataset(source, "test")
        _, names = labelled(images)
    except DriftscopeError as error:
        raise DataError(
            f"classes is {str(source)!r}: give a file with a class name a line, 'general', or a "
            f"labeled dataset ({error})"
        ) from None
    filled = rules.filled_from(images, names)
    return Classes(names, filled, f"the {len(names)} classes of {source}", f" by {source}")


def class_lists(benchmarks: Sequence[LabelledSet], pool: Pool | None) -> list[tuple[str, ...]]:
    """The class names of everything that is told by them; features need none."""
    by_texts = (one.class_names for one in benchmarks if isinstance(one, TransferSet))
    return [*by_texts, *([pool.classes.names] if pool else ())]


def _checked(classes: Classes) -> Classes:
    if len(classes.names) < 2:
        told = f"only one class, {shown(classes.names[0])}," if classes.names else "no class"
        raise DataError(
            f"{told} is named{classes.place}, and a zero-shot model chooses among two or more; "
            "give the names of everything that the images may show, one a line in a file"
        )
    words = words_of(classes.names, dict(classes.rules.class_words))
    blank = sum(not word.strip() for word in words)
    if blank:
        raise DataError(
            f"{blank} class name(s) of {classes.described} are blank; give every class a word"
        )
    same = [word for word, count in Counter(word.lower() for word in words).items() if count > 1]
    if same:
        raise DataError(
            f"{len(same)} class name(s) stand twice in {classes.described}, such as {same[0]!r} "
            "(spelling and underscores apart); name every class once"
        )
    return classes


def _refuse_other_labels(images: object, names: Sequence[str], classes: Classes) -> None:
    """Raises DataError where a pool's own class names are others than the classes."""
    if len(names) < 2 or classes.names == GENERAL_VOCABULARY:
        return
    words = words_of(classes.names, dict(classes.rules.class_words))
    known = {name.lower() for name in (*classes.names, *words)}
    others = [
        name
        for name, word in zip(names, words_of(names, {}), strict=True)
        if not {name.lower(), word.lower()} & known
    ]
    if others:
        some = ", ".join(map(repr, others[:_SHOWN]))
        raise DataError(
            f"the pool {images} holds labels that contradict the classes: {len(others)} of its "
            f"{len(names)} class folders or labels ({some}) are not among {classes.described}; "
            "name every class that its images may show"
        )


def _problems(model: VisionLanguageModel, classes: Classes) -> Iterator[str]:
    """What of the classes' prompts makes an estimate meaningless, found from the names alone."""
    words = words_of(classes.names, dict(classes.rules.class_words))
    yield from doubts_of_names(classes.names, words)
    yield from doubts_of_prompts(model, classes.names, classes.rules.prompts(classes.names))
    unknown = unknown_words(model, words)
    if unknown:
        yield (
            f"the tokenizer does not know {len(unknown)} of the classes' words, such as "
            f"{unknown[0]!r}"
        )


# ---------------------------------------------------------------- the estimate


@dataclass(frozen=True, eq=False)
class Referee:
    """What the pretrained model makes of a pool: it judges every model by it.

    Attributes:
        pool: the images and classes.
        logits: the pretrained model's.
        withheld: why it gives no estimate; "" where it does.
        doubts: what makes all of its estimates doubtful.
    """

    pool: Pool
    logits: Float[Tensor, "image class"]
    withheld: str
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, pool: Pool, embeddings: Float[Tensor, "image dim"]) -> Referee:
        """The referee of a pool, from the pretrained model's image embeddings."""
        logits = zero_shot_logits(embeddings, pool.text_embeddings, pool.logit_scale)
        return cls._judging(pool, logits)

    @classmethod
    def _judging(cls, pool: Pool, logits: Float[Tensor, "image class"]) -> Referee:
        withheld = pool.problem or _why_withheld(logits, pool.num_copies)
        return cls(pool, logits, withheld, (*_doubts(logits), *_doubts_of_copies(pool)))

    def part(self, places: Sequence[int]) -> Referee:
        """The referee of some of the pool's images."""
        return Referee._judging(self.pool.part(places), self.logits[list(places)])

    def described(self) -> dict[str, Any]:
        """What judges, as JSON values."""
        return {
            "name": self.pool.name,
            "num_images": len(self.logits),
            "classes": self.pool.classes.described,
            "withheld": self.withheld,
            "doubts": list(self.doubts),
        }

    def estimate(
        self,
        embeddings: Float[Tensor, "image dim"],
        texts: Float[Tensor, "class dim"] | None = None,
    ) -> Estimate:
        """The estimated retention of an adapted model.

        Args:
            embeddings: its image embeddings of the pool.
            texts: its own class embeddings; the pretrained ones where its text tower is frozen.
        """
        texts = self.pool.text_embeddings if texts is None else texts
        return self.judge(zero_shot_logits(embeddings, texts, 1.0).argmax(dim=1))

    def judge(self, chosen: Int64[Tensor, " image"]) -> Estimate:
        """The estimated retention of a model that gives the pool's images these classes."""
        distribution = self.logits.softmax(dim=1)
        given = not self.withheld
        spread = estimate_spread(self.logits, chosen, temperature_sd=TEMPERATURE_SD)
        imprecise = _why_imprecise(len(chosen) - self.pool.num_copies, spread) if given else ""
        return Estimate(
            retention_pct=estimated_retention_pct(distribution, chosen) if given else None,
            low_90_pct=spread.low_90 if given else None,
            high_90_pct=spread.high_90 if given else None,
            low_95_pct=spread.low_95 if given else None,
            high_95_pct=spread.high_95 if given else None,
            agreement_pct=agreement_pct(chosen, self.logits.argmax(dim=1)),
            constant_pct=constant_retention_pct(distribution),
            confidence_pct=100 * float(distribution.amax(dim=1).mean()),
            information=information_share(distribution),
            num_images=len(self.logits),
            num_classes=self.logits.shape[1],
            pool=self.pool.name,
            classes=self.pool.classes.described,
            withheld=self.withheld,
            doubts=tuple(filter(None, (*self.doubts, imprecise))) if given else (),
            imprecise=imprecise,
        )


def _why_imprecise(num_images: int, spread: Spread) -> str:
    """Why these images may be too few for this model; "" where they are not."""
    width = spread.high_90 - spread.low_90
    if num_images < SURE_POOL_IMAGES:
        return (
            f"the pool has {num_images} images, and so few can miss a loss of 10 points; give "
            f"{SURE_POOL_IMAGES} or more"
        )
    if width > SURE_WIDTH:
        enough = 10 * math.ceil(num_images * (width / SURE_WIDTH) ** 2 / 10)
        return (
            f"its 90 % interval is {width:.0f} points wide, so it may be more than 10 points off; "
            f"with about {enough:,} images it would be {SURE_WIDTH:.0f} points wide"
        )
    return ""


def _why_withheld(logits: Float[Tensor, "image class"], num_copies: int) -> str:
    """Why the pretrained model's view of a pool carries no estimate; "" where it does."""
    count, num_classes = len(logits) - num_copies, logits.shape[1]
    if count < MIN_POOL_IMAGES:
        told = f"{count} different images" if num_copies else f"{count} images"
        return f"the pool has {told}, and an estimate needs {MIN_POOL_IMAGES} or more"
    distribution = logits.softmax(dim=1)
    information = information_share(distribution)
    if information < MIN_INFORMATION:
        return (
            "the pretrained model cannot tell the pool's images by these classes (it finds "
            f"{information:.2f} of the classes' information there, and {MIN_INFORMATION} is "
            "needed): they may show other things; give images that the classes are of"
        )
    constant = constant_retention_pct(distribution)
    if constant >= MAX_CONSTANT_PCT:
        return (
            f"one answer to every image would keep {constant:.0f} %, so the {num_classes} classes "
            "cannot tell a good model from a dead one; give more classes, or images of all of them"
        )
    return ""


def _doubts_of_copies(pool: Pool) -> Iterator[str]:
    if pool.num_copies > FEW * len(pool.pixels):
        yield (
            f"{pool.num_copies:,} of the pool's {len(pool.pixels):,} images are copies of others, "
            "so the estimate is less sure than its interval says; give each image once"
        )


def _doubts(logits: Float[Tensor, "image class"]) -> tuple[str, ...]:
    information = information_share(logits.softmax(dim=1))
    if information >= SURE_INFORMATION:
        return ()
    return (
        f"the pretrained model is unsure of the pool's images (it finds {information:.2f} of the "
        f"classes' information there, and {SURE_INFORMATION} makes it sure): some may show other "
        "things, and then the estimate is too low",
    )
