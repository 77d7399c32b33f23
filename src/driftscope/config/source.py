"""YAML files with the line of every key and item, so that a message can say where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.constructor import SafeConstructor

from driftscope.errors import ConfigError, one_line, shown
from driftscope.files import read_text
from driftscope.limits import YAML_MB, YAML_VALUES

Location: TypeAlias = tuple[int | str, ...]
"""Keys and indices from the top of a document down, such as `("axes", "seed", 0)`."""
Where: TypeAlias = Callable[[Location], str]
"""Says in words where a location is."""


@dataclass(frozen=True)
class Source:
    """Where values were read from: a name, and the place of every location that is known."""

    name: str
    places: Mapping[Location, str] = field(default_factory=dict)

    def at(self, location: Location = ()) -> str:
        """The place of the location, or of the nearest part above it: `study.yaml, line 7`."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.places:
                return self.places[location[:end]]
        return self.name

    def is_own(self, location: Location) -> bool:
        """Whether the location was read from the source itself, not from one it extends."""
        place = self.at(location)
        return place == self.name or place.startswith(f"{self.name}, ")


def read_yaml(path: Path) -> tuple[dict[str, Any], Source]:
    """The mapping a YAML file holds, and the line of each of its keys and items.

    Raises:
        ConfigError: the file cannot be read, is no YAML, holds no mapping, or repeats a key.
    """
    places: dict[Location, str] = {}
    try:
        loader = _YamlLoader(read_text(path, YAML_MB))
        node = loader.get_single_node()
        if node is not None:
            _refuse_too_many(node)
            _note_places(node, (), str(path), places)
        values = None if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the spec {path}: {one_line(error)}") from None
    except yaml.scanner.ScannerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        if "'\\t'" in str(error.problem):
            raise ConfigError(f"{path}, line {line} begins with a tab; use spaces") from None
        raise ConfigError(f"{path} is not valid YAML: {_told(error)}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # "\UFFFFFFFF" is no character
        raise ConfigError(f"{path} is not valid YAML: {_told(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: it holds itself, or is too deep") from None
    if not isinstance(values, dict):
        held = "nothing" if values is None else f"{_KINDS.get(type(values), 'a value')} alone"
        raise ConfigError(
            f"{path} must hold 'key: value' lines (such as 'learning_rate: 1e-3'), but holds {held}"
        )
    return values, Source(str(path), places)


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "yes or no"}


def plain_yaml(text: str) -> Any:
    """What a text of YAML holds that is no spec, such as class names or a dataset's card.

    Raises:
        ValueError: it is no YAML, is too deep, or unpacks to more values than are taken.
    """
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_too_many(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(_told(error)) from None


def _refuse_too_many(top: yaml.Node) -> None:
    """Raises `ValueError` where aliases stand for more values than are taken.

    A file of 300 bytes can name a list of ten lists of ten lists, and so on.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise ValueError("it holds itself")
        if id(node) not in sizes:
            inner = above | {id(node)} if isinstance(node, yaml.CollectionNode) else above
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            sizes[id(node)] = 1 + sum(size(part, inner) for part in parts)
        return sizes[id(node)]

    if (num_values := size(top, frozenset())) > YAML_VALUES.value:
        shown = f"{num_values:,}" if num_values < 10**15 else "more than 10^15"
        raise ValueError(f"its aliases stand for {shown} values; {YAML_VALUES.sentence}")


def _note_places(
    node: yaml.Node, location: Location, name: str, places: dict[Location, str]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*location, str(key.value))
            if inner in places:
                raise ConfigError(
                    f"{name}, line {key.start_mark.line + 1}: the key {key.value!r} is given twice"
                )
            places[inner] = f"{name}, line {key.start_mark.line + 1}"
            _note_places(value, inner, name, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[(*location, index)] = f"{name}, line {item.start_mark.line + 1}"
            _note_places(item, (*location, index), name, places)


class _Told(SafeConstructor):
    """What a tag says and a text is not (`!!bool x`, 2026-02-30) has its place in the file."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:  # PyYAML looks into what it takes for granted
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown(node.value)} is no {_TAGS.get(kind, kind)}", node.start_mark
            ) from None


_TAGS = {"int": "whole number that is read", "float": "number", "bool": "yes or no",
         "timestamp": "date", "binary": "base64"}  # fmt: skip


class _PlainLoader(_Told, yaml.CSafeLoader):
    """Safe YAML in C, in which 010 is the text that it looks like."""


class _YamlLoader(_Told, yaml.SafeLoader):
    """Safe YAML that reads numbers as their writer means them.

    `1e-3` is a number, which YAML 1.1 reads as a text. `010` and `1:30` are refused: YAML 1.1
    reads an 8 and a 90.
    """


def _text_if_ambiguous(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    return str(node.value) if _is_ambiguous(node) else int(loader.construct_yaml_int(node))


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _text_if_ambiguous)


def _read_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    _refuse_ambiguous(node)
    return int(loader.construct_yaml_int(node))


def _read_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    _refuse_ambiguous(node)
    return float(loader.construct_yaml_float(node))


def _is_ambiguous(number: yaml.ScalarNode) -> bool:
    return ":" in number.value or re.fullmatch(r"[-+]?0[0-9_]+", number.value) is not None


def _refuse_ambiguous(number: yaml.ScalarNode) -> None:
    if _is_ambiguous(number):
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{shown(number.value)} is another number in other versions of YAML; write it without "
            "leading zeros or colons, or in quotes if it is a text",
            number.start_mark,
        )


def _told(error: Exception) -> str:
    """What PyYAML says, in one sentence: it shows its own place and a drawing of it."""
    if isinstance(error, OverflowError):
        return "a backslash in it stands for no character"
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return one_line(error)
    told = ", ".join(filter(None, (error.context, error.problem)))
    return " ".join(f"line {mark.line + 1}, column {mark.column + 1}: {told}".split())


_YamlLoader.add_implicit_resolver(
    "!exponent", re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
_YamlLoader.add_constructor("!exponent", _read_float)
_YamlLoader.add_constructor("tag:yaml.org,2002:float", _read_float)
_YamlLoader.add_constructor("tag:yaml.org,2002:int", _read_int)
