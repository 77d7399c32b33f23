"""What makes a zero-shot number mean something else than it seems to: one look, made for every set.

A doubt is a sentence that stands beside the number wherever it is shown; a gate does not pass on a
number that has one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.names import benchmark_words, is_wordnet_id
from driftscope.data.prompts import PHOTO_TEMPLATE
from driftscope.errors import PlainWarning

if TYPE_CHECKING:
    from driftscope.transfer.retrieval import RetrievalScore
    from driftscope.transfer.scores import ZeroShotScore

_NO_NAME = re.compile(
    r"(?i)[-+]?\d+([.,]\d+)?|(class|cls|c|label|lbl|category|cat|id|type|target|folder|y)[\W_]*\d+"
    r"|[0-9a-f]{16,}|true|false|nan|none|null|n/?a|unknown|undefined|unspecified|unlabell?ed"
    r"|missing|void|ignored?|others?|misc(ellaneous)?|background( google)?"
    r"|[\W_]+|untitled( folder)?|new folder( \(\d+\))?|/?[mg][ /_]0\w{2,7}"
)
"""Numbers, what stands where there is no name, and ids of Freebase."""
_NO_THING = re.compile(
    r"(?i)((class|type|group|grade|category)[\W_]+)?([a-z]|i{2,3}|i?v|vi{1,3})"
    r"|yes|no|pos|neg|positive|negative|n?ok|unsure|uncertain"
)
"""Letters and answers: words only in a sentence that says of what (`a {} review of a movie`)."""
_JOINED = re.compile(r"[^\W\d_][.+~=|/\\^][^\W\d_]")
"""Words that a mark joins in place of a space, as in `red.circle`."""
_ABBREVIATION = re.compile(r"[A-Z]{2,4}")
"""Codes, where all classes have one: of countries, of diagnoses (`MEL`, `BCC`)."""
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+")
_SHOWN = 3
_SHORTEST_CONTEXT = 8
"""Tokens that every text tower reads."""


class DoubtWarning(PlainWarning):
    """A labeled set whose numbers may not mean what they seem to."""


def doubts_of_names(
    class_names: Sequence[str], words: Sequence[str], templates: Sequence[str] = (PHOTO_TEMPLATE,)
) -> Iterator[str]:
    """Words that no picture can be told by (numbers, `class_3`, `other`), or that marks join.

    So are words that differ from class to class in numbers alone (`patient 1`, `patient 2`).
    """
    is_told_of_what = tuple(templates) != (PHOTO_TEMPLATE,)
    odd = [
        name
        for name, said in zip(class_names, map(str.strip, words), strict=True)
        if _NO_NAME.fullmatch(said)
        or is_wordnet_id(said)
        or (_NO_THING.fullmatch(said) and not is_told_of_what)
    ]
    if odd:
        yield (
            f"{len(odd)} of its {len(words)} class names are no words ({_some(odd)}), so their "
            "prompts say nothing of the pictures; name them with class words "
            "(--class-words FILE, or ?names=FILE behind the set)"
        )
    if len(words) > 1 and all(map(_ABBREVIATION.fullmatch, words)) and not odd:
        yield (
            f"its {len(words)} class names are abbreviations ({_some(class_names)}), which models "
            "hardly know; name them with class words (--class-words FILE, or ?names=FILE behind "
            "the set)"
        )
    without_numbers = {_NUMBER.sub("#", said.casefold()) for said in words}
    are_digits = benchmark_words("mnist", class_names) == dict(zip(class_names, words, strict=True))
    are_numbered = len(without_numbers) == 1 and "#" in min(without_numbers)
    if not odd and len(words) > 1 and are_numbered and not are_digits:
        yield (
            f"its {len(words)} class names differ in numbers alone ({_some(class_names)}), so "
            "their prompts say next to nothing of the pictures; name them with class words "
            "(--class-words FILE, or ?names=FILE behind the set)"
        )
    joined = [name for name, said in zip(class_names, words, strict=True) if _JOINED.search(said)]
    if 2 * len(joined) > len(words):
        yield (
            f"the words of {len(joined)} of its {len(words)} class names are joined by marks "
            f"({_some(joined)}), and prompts have spaces; name them with class words "
            "(--class-words FILE, or ?names=FILE behind the set)"
        )


def doubts_of_several(class_names: Sequence[str]) -> Iterator[str]:
    """Names that are made of others, as those of images of several classes are."""
    known = set(class_names)
    made = [name for name in class_names if len(parts := name.split()) > 1 and known >= set(parts)]
    if len(made) > 1:
        yield (
            f"{len(made)} of its {len(class_names)} classes are made of the names of others "
            f"({_some(made)}), so its images may be of several classes each"
        )


def doubts_of_prompts(
    model: VisionLanguageModel, class_names: Sequence[str], prompts: Sequence[Sequence[str]]
) -> Iterator[str]:
    """Classes whose prompts are read alike, differ in marks alone, or are cut off."""
    first = dict(zip(class_names, (of_class[0] for of_class in prompts), strict=True))
    alike: dict[tuple[bytes, ...], list[str]] = {}
    for name, key in zip(class_names, prompt_keys(model, prompts), strict=True):
        alike.setdefault(key, []).append(name)
    same = [names for names in alike.values() if len(names) > 1]
    if same:
        count = sum(map(len, same))
        why = _why_alike(model, [first[name] for names in same for name in names])
        yield (
            f"{count} of its {len(class_names)} classes share their prompt with another "
            f"({'; '.join(' = '.join(map(repr, names[:_SHOWN])) for names in same[:_SHOWN])}){why}"
            "; only the first of those can be right"
        )
    by_words: dict[str, list[str]] = {}
    for name, *_ in alike.values():
        by_words.setdefault(" ".join(_WORD.findall(first[name].casefold())), []).append(name)
    if marked := [names for names in by_words.values() if len(names) > 1]:
        shown = "; ".join(" = ".join(map(repr, names)) for names in marked[:_SHOWN])
        yield (
            f"{sum(map(len, marked))} of its {len(class_names)} class names differ from another "
            f"in marks alone ({shown}), so they may be one class"
        )
    cut = [
        name
        for name, of_class in zip(class_names, prompts, strict=True)
        if _is_cut(model, max(of_class, key=len))
    ]
    if cut:
        yield (
            f"the prompts of {len(cut)} of its {len(class_names)} classes are longer than the "
            f"model reads and are cut ({_some(cut)}); give shorter class words"
        )


def doubts_of_score(pretrained: ZeroShotScore) -> Iterator[str]:
    """A pretrained score that is no better than guessing, or than always giving one answer."""
    interval = f"{pretrained.wilson_low_pct:.1f}–{pretrained.wilson_high_pct:.1f}"
    if pretrained.wilson_low_pct <= pretrained.chance_pct:
        yield (
            f"the pretrained score, {pretrained.accuracy_pct:.1f} % [{interval}], is not above "
            f"chance ({pretrained.chance_pct:.1f} %): there is nothing of which a share could be "
            "left, and the names or labels may be those of something else"
        )
    elif pretrained.accuracy_pct <= pretrained.constant_pct:
        yield (
            f"the pretrained score, {pretrained.accuracy_pct:.1f} % [{interval}], is not above "
            f"that of always giving the commonest class ({pretrained.constant_pct:.1f} %); read "
            "the mean accuracy per class"
        )


def doubts_of_captions(
    model: VisionLanguageModel, captions: Sequence[Sequence[str]], texts: Sequence[str]
) -> Iterator[str]:
    """Captions that are no sentences, that many images share, or that the model reads cut."""
    odd = [text for text in texts if _NO_NAME.fullmatch(text.strip())]
    if odd:
        yield (
            f"{len(odd)} of its {len(texts)} captions are no words ({_some(odd)}); name the column "
            "of captions (?caption=COLUMN behind the set)"
        )
    commonest = max(Counter(text for of_image in captions for text in of_image).values())
    if commonest > max(1, len(captions) // 2):
        yield (
            f"one caption is that of {commonest} of its {len(captions)} images, so hardly anything "
            "tells them apart"
        )
    keys = token_ids(model, texts)
    if alike := len(texts) - len(set(keys.values())):
        yield f"{alike} of its {len(texts)} captions are read like another by the tokenizer"
    if cut := sum(_is_cut(model, text) for text in texts):
        yield f"{cut} of its {len(texts)} captions are longer than the model reads and are cut"


def doubts_of_recall(pretrained: RetrievalScore) -> Iterator[str]:
    """A pretrained recall that is no better than a random order."""
    for way, score in pretrained.ways().items():
        if not score.is_above_chance:
            interval = f"{score.wilson_low_pct:.1f}–{score.wilson_high_pct:.1f}"
            yield (
                f"the pretrained recall@1 {way.replace('_', ' ')}, {score.recall_at_1_pct:.1f} % "
                f"[{interval}], is not above chance ({score.chance_at_1_pct:.1f} %): there is "
                "nothing of which a share could be left"
            )


def prompt_keys(
    model: VisionLanguageModel, prompts: Sequence[Sequence[str]]
) -> list[tuple[bytes, ...]]:
    """What the model reads of every class's prompts; classes with equal keys are one to it."""
    ids = token_ids(model, [prompt for of_class in prompts for prompt in of_class])
    return [tuple(ids[prompt] for prompt in of_class) for of_class in prompts]


def token_ids(model: VisionLanguageModel, texts: Sequence[str]) -> Mapping[str, bytes]:
    """Each text's token ids as the text tower takes them."""
    different = list(dict.fromkeys(texts))
    rows: Tensor = model.tokenised(different)["input_ids"].cpu()
    return {text: row.numpy().tobytes() for text, row in zip(different, rows, strict=True)}


def _why_alike(model: VisionLanguageModel, prompts: Sequence[str]) -> str:
    """That words that tell such prompts apart are unknown to the tokenizer; "" where none are."""
    words = [set(_WORD.findall(prompt)) for prompt in prompts]
    unknown = unknown_words(model, sorted(set.union(*words) - set.intersection(*words)))
    if not unknown:
        return ""
    return (
        f", as the model's tokenizer does not know {_some(unknown)} and reads all such words alike"
    )


def unknown_words(model: VisionLanguageModel, texts: Sequence[str]) -> tuple[str, ...]:
    """Words that the model's tokenizer does not know, in order; the model reads them all alike."""
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.unk_token_id is None:
        return ()
    words = dict.fromkeys(word for text in texts for word in text.split())
    return tuple(
        word
        for word in words
        if tokenizer.unk_token_id in model.encoded(word, add_special_tokens=False)["input_ids"]
    )


def _is_cut(model: VisionLanguageModel, text: str) -> bool:
    if model.tokenizer is None or len(text.encode()) < _SHORTEST_CONTEXT:
        return False  # no token is shorter than a byte
    whole = model.encoded(model.backbone.prepared_text(text), verbose=False)["input_ids"]
    return len(whole) > model.tokenised([text])["input_ids"].shape[1]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) < 40 else f"{name[:37]}…" for name in names[:_SHOWN])
    return shown + (", …" if len(names) > _SHOWN else "")
