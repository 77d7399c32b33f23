"""What a dataset card, or the file that cards replaced, says of the tables beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.config.source import plain_yaml
from driftscope.files import read_bytes, read_values
from driftscope.limits import LIST_MB

_LISTS = ("List", "LargeList", "Sequence")
_LISTS_OF_CARDS = ("list", "large_list", "sequence")


def read_card(root: Path) -> Mapping[str, Any]:
    """The front matter of the dataset card beside the files; {} where there is none."""
    readme = root / "README.md"
    if not readme.is_file():
        return {}
    try:
        parts = read_bytes(readme).decode("utf-8", "replace").split("---", 2)
        card = plain_yaml(parts[1]) if len(parts) == 3 else None
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def told_of(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a card says of each configuration."""
    listed = card.get("dataset_info") or []
    listed = [listed] if isinstance(listed, dict) else listed
    return [one for one in listed if isinstance(one, dict)]


def info_of(card: Mapping[str, Any], configuration: str) -> Mapping[str, Any]:
    """What a card says of one configuration; {} where it says nothing."""
    named = (one for one in told_of(card) if one.get("config_name", "default") == configuration)
    return next(named, {})


def noted_beside(root: Path, configuration: str, *, is_only: bool) -> Mapping[str, Any]:
    """What `dataset_infos.json`, which cards replaced, says of a configuration; {} for nothing."""
    try:
        held = from_json(read_values(root / "dataset_infos.json", LIST_MB))
        only = next(iter(held)) if len(held) == 1 and is_only else configuration
        info = held[only if configuration not in held else configuration]
        return {"features": info["features"], "splits": list((info.get("splits") or {}).values())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def features_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """The features of a card, in the form that files note them in."""
    try:
        listed = info.get("features") or []
        if isinstance(listed, dict):
            return listed
        return {entry["name"]: _feature_of(entry) for entry in listed}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}  # a card of another form says nothing about columns


def _feature_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A column's feature, from what a card says of its values or of the values of its lists."""
    held = next((entry[kind] for kind in _LISTS_OF_CARDS if kind in entry), None)
    if held is not None:
        return {"_type": "List", "feature": _feature(held)}
    return _feature(entry.get("dtype"))


def _feature(dtype: Any) -> dict[str, Any]:
    if dtype == "image":
        return {"_type": "Image"}
    if isinstance(dtype, dict) and "class_label" in dtype:
        names = dtype["class_label"]["names"]
        ordered = (
            [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
        )
        return {"_type": "ClassLabel", "names": ordered}
    return {"_type": "Value"}


def class_names_of(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The classes of the columns of class numbers, or of lists of them."""
    by_value = {
        name: feature.get("feature") if type_of(feature) in _LISTS else feature
        for name, feature in features.items()
    }
    return {
        name: [str(one) for one in feature["names"]]
        for name, feature in by_value.items()
        if type_of(feature) == "ClassLabel" and feature.get("names")
    }


def noted_names(root: Path) -> dict[str, list[str]]:
    """The classes noted beside the files of the columns of class numbers, of the only set there."""
    card = read_card(root)
    told = told_of(card)
    info = info_of(card, "default") or (told[0] if len(told) == 1 else {})
    return class_names_of(features_of(info or noted_beside(root, "default", is_only=True)))


def type_of(feature: Any) -> str | None:
    """What kind of column a feature is, such as `Image`; None for anything else."""
    return feature.get("_type") if isinstance(feature, dict) else None
