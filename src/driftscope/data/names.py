"""What class names stand for: files of names, WordNet ids, the numbers of usual benchmarks."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from driftscope.config.source import plain_yaml
from driftscope.data.spellings import by_spelling, composed
from driftscope.data.templates import TEMPLATE_SETS
from driftscope.errors import ConfigError, DataError, did_you_mean
from driftscope.files import named_path, read_text
from driftscope.limits import CLASS_NAMES, LIST_MB, NAME_CHARACTERS, TEMPLATES, Limit

_WORDNET_FILES = (
    "LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json", "words.txt",
)  # fmt: skip
"""Published beside ImageNet and Tiny-ImageNet: all synonyms of WordNet ids."""
_USUAL_FILES = (
    "classnames.txt", "class_names.txt", "classes.txt", "cat_to_name.json", *_WORDNET_FILES
)  # fmt: skip
_NUMBERED_FILES = (
    "labels.txt", "names.txt", "class_to_idx.json", "idx_to_class.json", "id2label.json",
    "label_map.json", "categories_places365.txt",
)  # fmt: skip
"""Read where they name the classes by their numbers, else passed over."""
_NUMBER_FIRST = re.compile(r"[\[(#]?(\d+)(?:\s*[])]?\s*[].,:;)=|-]\s*|\s+)(.*[^\W\d].*)")
_NUMBER_LAST = re.compile(r"(.*\D)(?:\s+|\s*[,:;=|]\s*)(\d+)")
_HEADING = re.compile(
    r"(?i)((class|label|category)[ _]?)?(id|idx|index|number|no|label|class)\s*[,;\t]\s*"
    r"((class|label|category)[ _]?)?(names?|labels?|class|words?|description)"
)
"""The first line of a table of numbers and names."""
_QUOTED = re.compile(r"(['\"])(.*)\1,?")
_PLACE_FOR_NAME = re.compile(r"\{(c|cls|class|class_?name|label|name|category|0)\}|%s")
"""What others write in prompts where the class belongs."""
_SHARE_OF_AGREEING = 0.5
_TEMPLATE_FILE = "zeroshot_classification_templates.txt"
_INDEX_BEFORE = re.compile(r"^n\d{8}\s+")
_WORD_AND_NUMBER = re.compile(r"(\D*?)[\W_]*(\d+)")
"""`class_0`, `c12`: one word and a number."""
_PLACE = re.compile(r"/[a-z]/(\S+)")
_TAXONOMY = re.compile(
    r"\d+_(Animalia|Plantae|Fungi|Chromista|Protozoa|Bacteria)(_[^_]+){4}_(?P<genus>[^_]+)_"
    r"(?P<species>[^_].*)"
)
"""iNaturalist's folders: a number, then the ranks from the kingdom to the species."""
_COUNTRIES = re.compile(r"(?i)countr(y|ies)")
_CODE = re.compile(r"[A-Z]{2}")
_WORDNET_ID = re.compile(r"n\d{8}")


def refuse_pool_without_names(own_names: Sequence[str] | None, classes: object) -> None:
    """Raises `ConfigError` where neither a pool nor its user says what its images may show."""
    if not own_names and classes is None:
        raise ConfigError(
            "the pool has no class names of its own; give what its images may show with classes "
            "(--classes NAMES.txt, general or a labeled dataset)"
        )


def is_wordnet_id(name: str) -> bool:
    """Whether it is one of WordNet's nouns by number, such as `n01440764`."""
    return _WORDNET_ID.fullmatch(name) is not None


@cache
def imagenet_names() -> Mapping[str, str]:
    """WordNet id to words of ImageNet's 1,000 classes, in their order.

    The words are WordNet's first ones; where those are two classes' or mean something else more
    often (crane, nail) they say which is meant.
    """
    return _names_by_id("imagenet_names.tsv")


def _names_by_id(file: str) -> dict[str, str]:
    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def benchmark_words(place: str, class_names: Sequence[str]) -> dict[str, str]:
    """Words of class names that are numbers or codes of a usual benchmark; {} where none is known.

    The benchmark is told by its name in the place's, and by the count of its numbers. Of names that
    say all ranks of a species, as iNaturalist's do, the words are its own two, and of Country211's
    codes the countries. Of ImageNet's lists of synonyms (`tench, Tinca tinca`) they are ours.
    """
    ranks = [_TAXONOMY.fullmatch(name) for name in class_names]
    if all(ranks):
        return {match[0]: f"{match['genus']} {match['species'].replace('_', ' ')}"
                for match in ranks if match}  # fmt: skip
    if len(class_names) == len(imagenet_names()) and _agree(list(imagenet_names()), class_names):
        pairs = zip(class_names, imagenet_names().values(), strict=True)
        return {name: said for name, said in pairs if name != said}
    if _COUNTRIES.search(place) and all(map(_CODE.fullmatch, class_names)):
        known = _names_by_id("country_names.tsv")
        return {name: known[name] for name in class_names} if {*class_names} <= {*known} else {}
    numbers = [_number(name) for name in class_names]
    if None in numbers or len(set(numbers)) != len(numbers):
        return {}
    for names, known_by, first in _numbered_benchmarks():
        words = dict(enumerate(names, start=first))
        if re.search(known_by, place, re.IGNORECASE) and set(numbers) == set(words):
            return {
                name: words[number]
                for name, number in zip(class_names, numbers, strict=True)
                if number is not None
            }
    return {}


@cache
def _numbered_benchmarks() -> tuple[tuple[Sequence[str], str, int], ...]:
    file = Path(__file__).with_name("benchmark_names.yaml")
    listed = plain_yaml(file.read_text(encoding="utf-8"))
    imagenet = (tuple(imagenet_names().values()), "imagenet", 0)
    return (imagenet, *((one["names"], one["known_by"], one["first"]) for one in listed))


@dataclass(frozen=True)
class NamesFile:
    """A file of class names: words by class (`by_class`), or a line a class in label order.

    Attributes:
        path: the file.
        by_class: words by class.
        in_order: the lines.
        is_whole: it names all classes of a set by their numbers, or is not of this set.
    """

    path: Path
    by_class: Mapping[str, str] = field(default_factory=dict)
    in_order: tuple[str, ...] = ()
    is_whole: bool = False

    @classmethod
    def beside(cls, folder: Path) -> NamesFile | None:
        """The file of a usual name in a folder; None where there is none."""
        found = next((folder / name for name in _USUAL_FILES if (folder / name).is_file()), None)
        if found:
            try:
                names = read_names(found)
            except _NoNamesError:  # such as a label for each of a million images
                return None
            return replace(names, is_whole=names.is_whole or _are_numbers(names.by_class))
        for name in _NUMBERED_FILES:
            try:
                if (folder / name).is_file():
                    return replace(read_names(folder / name), is_whole=True)
            except DataError:
                continue
        return None

    def words_of(self, class_names: Sequence[str], *, must_fit: bool) -> dict[str, str]:
        """Class name to words, of the classes that the file names.

        Lines without a class before them belong to classes that are numbers (the first of all to
        the lowest) or to WordNet ids in their order.

        Raises:
            DataError: `must_fit`, and it names none of the classes, or other many.
        """
        by_class = self.by_class or self._by_first_word(class_names)
        plain = {_plain_number(key): words for key, words in by_class.items()}
        keys = {name: _plain_number(name) for name in class_names}
        if _are_numbers(plain) and (numbers := _numbers_of(class_names)):
            keys = {name: str(number) for name, number in numbers.items()}
        found = by_spelling(plain, list(keys.values()))
        words = {name: found[key] for name, key in keys.items() if key in found}
        if self.is_whole and len(words) < len(class_names):
            words = {}
        if not words and len(self.in_order) == len(class_names):
            words = self._in_order(class_names)
        if self.path.name in _WORDNET_FILES:
            words = {name: _first_synonym(name, said) for name, said in words.items()}
        words = {name: with_spaces(said) for name, said in words.items()}
        plain_names = {name: re.sub(r" \(\d+\)$", "", name) for name in class_names}
        if not words and set(plain_names.values()) <= set(self.in_order):  # two of one name
            return {name: plain for name, plain in plain_names.items() if name != plain}
        if not words and must_fit and not set(class_names) <= set(self.in_order):
            raise DataError(
                f"{self.path} names {_some_classes(self.by_class or self.in_order)}, but none of "
                f"the {len(class_names)} of this set ({', '.join(class_names[:3])}, …); give "
                "lines 'CLASS: words', or for classes that are numbers a line each"
            )
        return words

    def _by_first_word(self, class_names: Sequence[str]) -> dict[str, str]:
        """Lines such as `n01440764 tench`, where each begins with a class's name."""
        parts = [line.split(maxsplit=1) for line in self.in_order]
        known = {part[0]: part[1] for part in parts if len(part) == 2}
        numbers = set(map(_plain_number, known))
        return known if set(map(_plain_number, class_names)) <= numbers else {}

    def _in_order(self, class_names: Sequence[str]) -> dict[str, str]:
        if not {*class_names}.isdisjoint(self.in_order):
            return {}  # the lines are the names themselves
        numbers = _numbers_of(class_names)
        if numbers is not None:
            ordered = sorted(class_names, key=lambda name: numbers[name])
            whole = [numbers[name] for name in ordered]
            start = whole[0]
            if whole != list(range(start, start + len(ordered))) or start > 1:
                return {}
        elif all(map(is_wordnet_id, class_names)):
            ordered = sorted(class_names)
            if not _agree(ordered, self.in_order):
                return {}
        else:
            return {}
        lines = [_INDEX_BEFORE.sub("", line) for line in self.in_order]
        return dict(zip(ordered, lines, strict=True))


def _some_classes(named: Collection[str]) -> str:
    return "one class" if len(named) == 1 else f"{len(named)} classes"


def read_names(path: Path) -> NamesFile:
    """Class names from YAML or JSON (`class: words`, or a list), or from lines of text.

    Raises:
        DataError: unreadable, or neither.
    """
    try:
        text = read_text(named_path(path), LIST_MB, "utf-8-sig")
        suffix = path.suffix.lower()
        if suffix == ".json":
            values: Any = json.loads(text)
        elif suffix in (".yaml", ".yml"):
            values = plain_yaml(text)
        else:
            values = _lines(text)
    except UnicodeDecodeError:
        raise DataError(
            f"cannot read the class words {path}: it is no UTF-8 text; save it as UTF-8"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read the class words {path}: {reason}") from None
    values = _of_objects(_composed(values))
    if isinstance(values, dict | list):
        _refuse_many_or_long(path, values, CLASS_NAMES)
    if isinstance(values, dict):
        _refuse_many_or_long(path, values.values(), CLASS_NAMES)
    if isinstance(values, dict):
        if numbers := _by_number({key: str(value) for key, value in values.items()}.items()):
            return NamesFile(path, by_class=numbers, is_whole=True)
        by_id = {one[0]: one for one in values.values() if _is_id_with_words(one)}
        values = {str(key): _words(value) for key, value in {**values, **by_id}.items()}
        if all(isinstance(words, str) for words in values.values()):
            return NamesFile(path, by_class=values)
    elif isinstance(values, list) and values and all(isinstance(one, str) for one in values):
        if numbers := _numbered(values):
            return NamesFile(path, by_class=numbers, is_whole=True)
        pairs = [re.split(r":\s+|\t", line, maxsplit=1) for line in values]
        if all(len(pair) == 2 for pair in pairs):
            return NamesFile(path, by_class={key.strip(): words for key, words in pairs})
        return NamesFile(path, in_order=tuple(values))
    raise DataError(
        f"{path} must hold lines 'ClassName: words', such as 'cra: crab', or a class's name a line"
    )


class _NoNamesError(DataError):
    """A file of more texts, or of longer ones, than a text tower is ever asked."""


def _refuse_many_or_long(path: Path, texts: Collection[Any], limit: Limit) -> None:
    if len(texts) > limit.value:
        raise _NoNamesError(f"{path} has {len(texts):,} texts; {limit.sentence}")
    longest = max((len(one) for one in texts if isinstance(one, str)), default=0)
    if longest > NAME_CHARACTERS.value:
        raise _NoNamesError(
            f"{path} has a text of {longest:,} characters; {NAME_CHARACTERS.sentence}"
        )


def _lines(text: str) -> list[str]:
    """The lines that name something, without comments, the heading of a table, and quotes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if not line.startswith("# ")] or lines
    if len(named) > 1 and _HEADING.fullmatch(named[0]):
        named = named[1:]
    quoted = [match[2] for line in named if (match := _QUOTED.fullmatch(line))]
    return quoted if len(quoted) == len(named) else named


def _composed(values: Any) -> Any:
    """The same with all texts composed, as class names are."""
    if isinstance(values, dict):
        return {_composed(key): _composed(value) for key, value in values.items()}
    if isinstance(values, list):
        return list(map(_composed, values))
    return composed(values) if isinstance(values, str) else values


def _of_objects(values: Any) -> Any:
    """What lists of `{"id": 0, "name": "cat"}` say, also below `names` or `categories`."""
    if isinstance(values, dict):
        below = [values[key] for key in ("names", "categories") if key in values]
        values = below[0] if below and isinstance(below[0], dict | list) else values
    if isinstance(values, list) and values and all(isinstance(one, dict) for one in values):
        return {str(one.get("id")): one.get("name") for one in values}
    return values


def read_templates(given: str | None, folder: Path | None = None) -> tuple[str, ...]:
    """Prompt templates of a set's name, a sentence or a file; else of the usual file in a folder.

    A place for the name is `{}`, or `{c}` as CLIP_benchmark writes it, `{label}`, `%s` and the
    like. () where there are none.

    Raises:
        DataError: neither a set of templates nor a file.
    """
    if given is not None and (given in TEMPLATE_SETS or "{}" in given):
        return (given,)
    file = named_path(given) if given else folder / _TEMPLATE_FILE if folder else None
    if file is None or not (given or file.is_file()):
        return ()
    try:
        lines = read_text(file, LIST_MB, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"templates={given} is neither a file nor a set of templates; "
            f"{did_you_mean(str(given), TEMPLATE_SETS)}"
        ) from None
    lines = [line.strip() for line in lines if line.strip()]
    _refuse_many_or_long(file, lines, TEMPLATES)
    return tuple(_PLACE_FOR_NAME.sub("{}", line) for line in lines)


def _numbered(lines: Sequence[str]) -> dict[str, str]:
    """Words by number of lines such as `1 tench`, `1. tench` or `tench 1`; {} for others."""
    first = [match for line in lines if (match := _NUMBER_FIRST.fullmatch(line))]
    last = [match for line in lines if (match := _NUMBER_LAST.fullmatch(line))]
    if len(first) == len(lines):
        return _by_number((match[2], match[1]) for match in first)
    if len(last) == len(lines):
        return _by_number((match[1], match[2]) for match in last)
    return {}


def _by_number(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Words by number, of pairs of words and number; {} unless those are 0, 1, … or 1, 2, …."""
    listed = list(pairs)
    words = {number: said.strip() for said, text in listed if (number := _number(text)) is not None}
    first = min(words, default=0)
    if first > 1 or set(words) != set(range(first, first + len(listed))):
        return {}
    return {str(number): said for number, said in words.items()}


def _agree(ids: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether lines name the classes of ImageNet's WordNet ids, as far as those are known."""
    known = [(words, line) for one, line in zip(ids, lines, strict=True)
             if (words := imagenet_names().get(one))]  # fmt: skip
    shared = sum(bool(_words_in(words) & _words_in(line)) for words, line in known)
    return shared >= _SHARE_OF_AGREEING * len(known)


def _words_in(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def _are_numbers(keys: Iterable[str]) -> bool:
    return all(map(str.isdecimal, keys))


def _is_id_with_words(value: Any) -> bool:
    """Whether it is a pair such as `["n01440764", "tench"]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(one, str) for one in value)
        and is_wordnet_id(value[0])
    )


def _first_synonym(name: str, said: str) -> str:
    """Of a WordNet id's words our own, else the first of those that are said."""
    return imagenet_names().get(name) or said.partition(",")[0].strip()


def with_spaces(said: str) -> str:
    """Words as a sentence has them, of `tiger_shark` and of Places365's `/b/bakery/shop`."""
    place = _PLACE.fullmatch(said)
    return (place[1].replace("/", " ") if place else said).replace("_", " ").strip()


def _words(value: Any) -> Any:
    """The words of a class: as they are, or the last of a list (`["n01440764", "tench"]`)."""
    return value[-1] if isinstance(value, list) and value else value


def _numbers_of(class_names: Sequence[str]) -> dict[str, int] | None:
    """The numbers that names are, or that all have behind one word (`class_0`); None without."""
    parts = [_WORD_AND_NUMBER.fullmatch(name) for name in class_names]
    words = {None if match is None else match[1].lower() for match in parts}
    numbers = [_number(match[2]) for match in parts if match]
    if len(words) > 1 or None in {*words, *numbers} or any(map(is_wordnet_id, class_names)):
        return None
    return {name: number or 0 for name, number in zip(class_names, numbers, strict=True)}


def _number(name: str) -> int | None:
    return int(name) if name.isdecimal() and name.isascii() else None


def _plain_number(name: str) -> str:
    """`00012` as `12`; other names as they are."""
    number = _number(name)
    return name if number is None else str(number)
