"""Names that are no places: of what driftscope brings, of hub datasets, and of suites of them.

A suite, such as `vtab`, is several datasets under one name: where each lies, and its prompts.

The facts are those that CLIP_benchmark and DataComp publish; they stand in `suites.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

BROUGHT_MODELS = ("mini", "mini-p14")
"""The models that come with driftscope."""
BROUGHT_SETS = ("concepts100", "terrain", "stars")
"""The sets of images that driftscope draws."""

DATA_FOLDER_VARIABLE = "DRIFTSCOPE_DATA"
"""Names the folder in which copies of hub datasets lie."""
OWNER = "clip-benchmark"
"""Whose datasets of the hub the sets are."""


@dataclass(frozen=True)
class Member:
    """A dataset of a suite.

    Attributes:
        key: its name there, such as `vtab-pets`.
        also: other names that a folder of it may have.
        templates: its prompts, where the set itself brings none.
    """

    key: str
    also: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Its id on the hub, by which it is named everywhere."""
        return f"{OWNER}/wds_{self.key}"

    @property
    def folders(self) -> tuple[str, ...]:
        """What a folder of it may be called, the likeliest first."""
        return (self.place, f"wds_{self.key}", self.key, *self.also)


@dataclass(frozen=True)
class Suite:
    """Datasets under one name; `what` says what they are."""

    name: str
    what: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Preset:
    """A hub dataset that driftscope knows by a short name."""

    hub_id: str
    image: str
    label: str

    @property
    def columns(self) -> dict[str, str]:
        """Its columns, as an address gives them."""
        return {"image": self.image, "label": self.label}


PRESETS: Mapping[str, Preset] = {
    "eurosat": Preset("tanganke/eurosat", "image", "label"),
    "pets": Preset("timm/oxford-iiit-pet", "image", "label"),
    "cifar100": Preset("uoft-cs/cifar100", "img", "fine_label"),
    "cifar10": Preset("uoft-cs/cifar10", "img", "label"),
}
"""The paper's datasets (4.1) and CIFAR-10."""


@cache
def suites() -> Mapping[str, Suite]:
    """All suites by name."""
    told = _told()
    return {
        name: Suite(name, one["what"], tuple(map(_member, _keys(told["suites"], name))))
        for name, one in told["suites"].items()
    }


def suite_of(name: str) -> Suite | None:
    """The suite of a name, None where there is none; a folder of that name is `./NAME`."""
    return suites().get(name)


def member_of(place: str) -> Member | None:
    """The member whose id on the hub this is; None for any other place."""
    key = place.removeprefix(f"{OWNER}/wds_")
    is_one = key != place and key in _told()["sets"]
    return _member(key) if is_one else None


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of datasets, each once; a suite's stands for all of its members."""
    found: dict[str, None] = {}
    for name in names:
        suite = suite_of(name)
        found |= dict.fromkeys([one.place for one in suite.members] if suite else [name])
    return tuple(found)


def _keys(told: Mapping[str, Any], name: str) -> list[str]:
    inner = [key for other in told[name].get("includes", ()) for key in _keys(told, other)]
    return list(dict.fromkeys([*inner, *told[name]["sets"]]))


def _member(key: str) -> Member:
    one = _told()["sets"][key]
    return Member(key, tuple(one.get("also", ())), tuple(one["templates"]))


@cache
def _told() -> Mapping[str, Any]:
    file = Path(__file__).with_name("suites.yaml")
    told: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return told
