"""YAML files with the line of every key and item, so that a message can say where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from driftscope.errors import ConfigError

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
        loader = _YamlLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is not None:
            _note_places(node, (), str(path), places)
        values = None if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the spec {path}: {error}") from None
    except yaml.scanner.ScannerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        if "'\\t'" in str(error.problem):
            raise ConfigError(f"{path}, line {line} begins with a tab; use spaces") from None
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: it holds itself, or is too deep") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold 'key: value' lines (such as 'learning_rate: 1e-3'), "
            f"but holds {type(values).__name__}"
        )
    return values, Source(str(path), places)


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


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML that reads `1e-3` as the number its writer means (YAML 1.1 reads a string)."""


def _read_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace("_", ""))


_YamlLoader.add_implicit_resolver(
    "!exponent", re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
_YamlLoader.add_constructor("!exponent", _read_float)
