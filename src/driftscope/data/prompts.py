"""Class names as sentences for the text tower.

A class name becomes words by these rules, in this order:

1. what the user says (`class_words` of a spec: class name to words) holds as it is; words that are
   found beside a set's names are names themselves (`plain_words`);
2. what all names of a set have in common is no part of a name: a number before each, each
   another one (`01_cat`, `02_dog`, not `10_euro`, `20_euro`), numbers behind each that count the
   classes (`cat_0`, `dog_1`), a word such as *class* before each, and hyphens that stand for spaces
   (`beer-mug`, in a set whose names have no spaces and often hyphens);
3. known misspellings of published label lists are put right (`cra` is crab), ids before the name go
   (`001.Albatross`, `n02085620-Chihuahua`), WordNet ids of ImageNet become its words;
4. underscores, `%20`, runs of spaces and the dot behind a number become one space, and of
   `/b/bakery/shop` the letter goes;
5. camel case is taken apart and written small (`AnnualCrop` is annual crop) where more names of a
   set are joined so than have spaces. Capitals that stand together stay together (`SUVCar` is SUV
   car), and names that would leave a letter alone are as they are (`iPod`, `LaTeX`).

Everything else stays: other hyphens, and the capitals of single words, which CLIP's tokenizer
reads as small letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from driftscope.data.names import (
    NamesFile,
    imagenet_names,
    is_wordnet_id,
    read_names,
    read_templates,
    with_spaces,
)
from driftscope.data.spellings import by_spelling, composed
from driftscope.data.templates import TEMPLATE_SETS
from driftscope.errors import DataError, did_you_mean

PHOTO_TEMPLATE = "a photo of a {}"
"""The paper's only prompt (4.4)."""

MISSPELT = {"cra": "crab"}
"""Class 26 of CIFAR-100 in one of its releases."""

_ID_BEFORE = re.compile(r"^(0\d*\.\s*|n\d{8}[-_ ])(?=[^\W\d])")
"""What stands before the name in `n02085620-Chihuahua`, and before one alone in `001.Albatross`."""
_NUMBER_AND_DOT = re.compile(r"^(\d+)\.\s*(?=[^\W\d])")
_NUMBER_BEFORE = re.compile(r"^(\d+)(?:[\s._-]+|\s*[:)]\s*)(?=[^\W\d])")
_NUMBER_BEHIND = re.compile(r"(.*[^\W\d])[\s_-]+\(?(\d+)\)?")
_SAME_WORD = re.compile(r"(?i)(class|label|category|images?|imgs?|photos?|pictures?)[\s_-]+(?=\w)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W_])")
_SHARE_OF_HYPHENS = 0.25
"""Where so many names of a set have hyphens, and none a space, hyphens stand for spaces."""
_NOT_CAMEL = re.compile(r"[\s\d_]")
_CAMEL_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class PromptRules:
    """How class names become sentences: templates, or names of sets of them; own words."""

    templates: tuple[str, ...] = (PHOTO_TEMPLATE,)
    class_words: tuple[tuple[str, str], ...] = ()
    names: NamesFile | None = None
    """A file of names, for the classes that it fits."""

    def __post_init__(self) -> None:
        of_composed = tuple((composed(name), said) for name, said in self.class_words)
        object.__setattr__(self, "class_words", of_composed)

    def prompts(self, class_names: Sequence[str]) -> list[list[str]]:
        """For every class its sentences, one a template.

        Raises:
            DataError: a template without a place for the name, or own words for a class that
                there is not.
        """
        templates = expand_templates(self.templates)
        return [
            [template.format(words) for template in templates]
            for words in words_of(class_names, dict(self.class_words))
        ]

    def filled(
        self, class_names: Sequence[str], words: Mapping[str, str], templates: Sequence[str]
    ) -> PromptRules:
        """With the words and templates of a set where these rules leave them open."""
        own = {**self.own_words(class_names), **dict(self.class_words)}
        open_templates = self.templates == (PHOTO_TEMPLATE,) and templates
        asked = tuple(templates) if open_templates else self.templates
        return PromptRules(asked, tuple({**_said_once(words, asked), **own}.items()))

    def filled_from(self, images: object, class_names: Sequence[str]) -> PromptRules:
        """The same with what a set of images brings; one that driftscope makes brings nothing."""
        return self.filled(
            class_names, getattr(images, "words", {}), getattr(images, "templates", ())
        )

    def own_words(self, class_names: Sequence[str]) -> dict[str, str]:
        """The words that a user gives for these classes, by class name."""
        of_file = self.names.words_of(class_names, must_fit=False) if self.names else {}
        return {**of_file, **by_spelling(dict(self.class_words), class_names)}

    def refuse_if_unused(self, sets: Sequence[Sequence[str]]) -> None:
        """Refuses a user's words that name no class of any of these sets, and rules of none.

        Args:
            sets: the class names of each that is told by them.

        Raises:
            DataError: they do not, or there is no set.
        """
        if self != PromptRules() and not sets:
            raise DataError(
                "class words or templates are given, but nothing is told by its class's name; "
                "give a labeled transfer set or a pool, or leave them out"
            )
        if not (self.names or self.class_words) or any(map(self.own_words, sets)):
            return
        if self.names is not None:
            self.names.words_of(sets[0], must_fit=True)
        else:
            raise DataError(
                f"class_words names {self.class_words[0][0]!r}, but no class of this set of "
                f"{len(sets[0])} ({', '.join(sets[0][:3])}, …)"
            )


def _said_once(words: Mapping[str, str], templates: Sequence[str]) -> dict[str, str]:
    """Digits without their "number" where every prompt says it: "the number 0"."""
    if not all("number" in template for template in expand_templates(templates)):
        return dict(words)
    return {name: word.removeprefix("number ") for name, word in words.items()}


def prompt_rules(
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
) -> PromptRules:
    """The rules of what a user gives.

    Args:
        class_words: class name to words, or a file of them: YAML or JSON, lines `CLASS: words`,
            or a line a class in label order.
        templates: sentences with `{}`, names of sets of them, or files with one a line.

    Raises:
        DataError: a file that cannot be read, or a template that is none of these.
    """
    given = [templates] if isinstance(templates, str) else list(templates or ())
    known = [one for name in given for one in ((name,) if "{}" in name else read_templates(name))]
    expand_templates(known or [PHOTO_TEMPLATE])
    shown = tuple(known) or (PHOTO_TEMPLATE,)
    if isinstance(class_words, str | Path):
        return PromptRules(shown, (), read_names(Path(class_words)))
    return PromptRules(shown, tuple((class_words or {}).items()), None)


def class_prompts(class_names: Sequence[str], template: str = PHOTO_TEMPLATE) -> list[str]:
    """One sentence a class."""
    return [template.format(words) for words in words_of(class_names, {})]


def words_of(class_names: Sequence[str], class_words: Mapping[str, str]) -> list[str]:
    """The words of every class; own words may be for classes of another dataset."""
    plain = _without_hyphens(_without_one_word(_without_numbers(class_names)))
    return [
        class_words.get(name) or said
        for name, said in zip(class_names, _without_camels(list(map(_spaced, plain))), strict=True)
    ]


def plain_words(found: Mapping[str, str]) -> dict[str, str]:
    """Words that are found beside class names, by the rules for names: `red_fox` is red fox.

    Those of our own list of ImageNet's classes hold as they are, such as iPod.
    """
    as_they_are = set(imagenet_names().values())
    return {
        name: said if said in as_they_are else plain
        for (name, said), plain in zip(
            found.items(), words_of(list(found.values()), {}), strict=True
        )
    }


def _without_numbers(class_names: Sequence[str]) -> Sequence[str]:
    """Names without the numbers before them, where each has one, and each another.

    Numbers that tell the names apart are of the names (`10_euro`, `20_euro`). Where they count the
    classes, a few names may be alike without them (ImageNet has two cranes).
    """
    found = [match for name in class_names if (match := _NUMBER_BEFORE.match(name))]
    numbers = {match[1] for match in found}
    if len(class_names) < 2 or len(numbers) < len(class_names):
        return _without_count(class_names)
    cut = [match.string[match.end() :] for match in found]
    different = len(set(cut))
    may_be_alike = 2 * different > len(cut) and _count_from_first([int(one) for one in numbers])
    return cut if different == len(cut) or may_be_alike else class_names


def _without_count(class_names: Sequence[str]) -> Sequence[str]:
    """Names without the numbers behind them, where those count the classes."""
    found = [match for name in class_names if (match := _NUMBER_BEHIND.fullmatch(name))]
    are_names = len({match[1] for match in found}) == len(class_names) > 1
    if not are_names or not _count_from_first([int(match[2]) for match in found]):
        return class_names
    return [match[1] for match in found]


def _count_from_first(numbers: Sequence[int]) -> bool:
    """Whether numbers are 0, 1, … or 1, 2, … in any order."""
    first = min(numbers)
    return first <= 1 and sorted(numbers) == list(range(first, first + len(numbers)))


def _without_one_word(class_names: Sequence[str]) -> Sequence[str]:
    """Names without a word that says of each that it is a class, or images of one."""
    found = [_SAME_WORD.match(name) for name in class_names]
    if len(class_names) < 2 or len({match and match[1].lower() for match in found}) > 1:
        return class_names
    cut = [name[match.end() if match else 0 :]
           for name, match in zip(class_names, found, strict=True)]  # fmt: skip
    return class_names if all(map(str.isdecimal, cut)) else cut


def _without_hyphens(class_names: Sequence[str]) -> Sequence[str]:
    """Names with spaces for hyphens, where a set writes them so."""
    with_hyphen = sum(_HYPHEN.search(name) is not None for name in class_names)
    is_usual = with_hyphen > 1 and with_hyphen >= _SHARE_OF_HYPHENS * len(class_names)
    if not is_usual or any(re.search(r"[\s_]", name) for name in class_names):
        return class_names
    return [_HYPHEN.sub(" ", name) for name in class_names]


def _without_camels(names: Sequence[str]) -> Sequence[str]:
    """Names with camel case taken apart, but where it is that of brands.

    That is so where as many names have it beside spaces (`BMW ActiveHybrid 5`).
    """
    parts = list(map(_camel_parts, names))
    num_camels = sum(len(of) > 1 for of in parts)
    if num_camels <= sum(" " in name and bool(_CAMEL_SEAM.search(name)) for name in names):
        return names
    return [" ".join(map(_small, of)) if len(of) > 1 else of[0] for of in parts]


def _camel_parts(name: str) -> list[str]:
    """The words that are joined by their capitals; the name alone where it has another joint."""
    parts = _CAMEL_SEAM.split(name)
    are_no_words = (len(parts[0]) == 1 and parts[0].islower()) or max(map(len, parts)) < 3
    is_known = len(parts) > 1 and name in imagenet_names().values()
    return [name] if _NOT_CAMEL.search(name) or are_no_words or is_known else parts


def _small(word: str) -> str:
    return word if word.isupper() else word.lower()


def _spaced(class_name: str) -> str:
    """A name with spaces for what stands for them; ImageNet's words for a WordNet id."""
    name = _ID_BEFORE.sub("", MISSPELT.get(class_name, class_name))
    if is_wordnet_id(name):
        return imagenet_names().get(name, name)
    numbered = _NUMBER_AND_DOT.sub(r"\1 ", name.replace("%20", " "))
    return " ".join(with_spaces(numbered).split()) or class_name


def expand_templates(names: Sequence[str]) -> list[str]:
    """Templates as sentences with `{}`; a name stands for its whole set.

    Raises:
        DataError: neither a known set nor a sentence with one `{}`.
    """
    templates: list[str] = []
    for name in names:
        if name in TEMPLATE_SETS:
            templates += TEMPLATE_SETS[name]
        elif name.count("{}") == 1 and name.count("{") == name.count("}") == 1:
            templates.append(name)
        else:
            raise DataError(
                f"the template {name!r} is neither a sentence with one {{}} for the class name "
                f"nor a set of templates: {did_you_mean(name, TEMPLATE_SETS)}"
            )
    if not templates:
        raise DataError("no prompt template is given; give one, such as 'a photo of a {}'")
    return templates
