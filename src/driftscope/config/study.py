"""What a study is, declared: the axes that are crossed, and what departs from the crossing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from driftscope.config.explain import PlacedError, explain
from driftscope.config.source import Location, Source, read_yaml
from driftscope.config.variants import Frozen
from driftscope.errors import ConfigError, did_you_mean, shown
from driftscope.files import named_path

APPENDED = ("overrides", "extra", "exclude")
"""What a study adds to those of the study it extends; everything else replaces."""
OWN = ("name", "title")
"""What a study never has from the study it extends: it would be taken for that study."""


class Override(Frozen):
    """Values for the runs that fit a condition, such as 30 epochs where the dataset is pets."""

    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(min_length=1)


class StudySpec(Frozen):
    """A declared matrix of runs.

    `base` holds for all runs; `axes` are crossed. An axis is a run's key, or a part of one:
    `method.rank`, `regularizers.apr.weight`. `overrides` change the base of the runs that fit
    `when`; the axes stand above them. An entry of `extra` adds runs: what it names takes the
    values given (a list is crossed), what it does not name is crossed as in the axes. `exclude`
    takes away the runs that fit an entry.
    """

    name: str = Field(min_length=1)
    title: str = ""
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    extra: tuple[dict[str, Any], ...] = ()
    exclude: tuple[dict[str, Any], ...] = ()

    _source: Source = PrivateAttr(default=Source("the study"))

    @property
    def source(self) -> Source:
        """Where its values were read."""
        return self._source

    @field_validator("axes")
    @classmethod
    def _axes_have_distinct_values(
        cls, axes: dict[str, tuple[Any, ...]]
    ) -> dict[str, tuple[Any, ...]]:
        for name, values in axes.items():
            if not values:
                raise PlacedError(f"axis {name!r} has no values", name)
            seen: set[object] = set()
            for index, value in enumerate(values):
                if (same := _hashable(value)) in seen:
                    raise PlacedError(f"axis {name!r} names {shown(value)} twice", name, index)
                seen.add(same)
        return axes

    @model_validator(mode="after")
    def _each_key_has_one_place(self) -> StudySpec:
        for name in self.axes:
            if name in self.base:
                raise PlacedError(f"{name!r} is an axis and cannot be in base too", "base", name)
            for number, override in enumerate(self.overrides):
                if name in override.set:
                    raise PlacedError(
                        f"{name!r} is an axis, so no override can set it; use extra and exclude",
                        *("overrides", number, "set", name),
                    )
        return self


def _hashable(value: Any) -> object:
    """What equals that of an equal value, and of no other: thousands are told apart at once."""
    if isinstance(value, dict):
        return frozenset((key, _hashable(inner)) for key, inner in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def load_study_spec(study: Path | str) -> StudySpec:
    """Reads a study's YAML file, or a shipped study by its name, with what it extends.

    Raises:
        ConfigError: naming the file, the line and the nearest valid key.
    """
    values, source = _with_extended(find_study(study), ())
    try:
        spec = StudySpec.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, StudySpec, source.at)) from None
    spec._source = source
    return spec


def find_study(study: Path | str, beside: Path | None = None) -> Path:
    """The file of a study given as a path, or by the name of a shipped one.

    Args:
        study: path or name; `.yaml` may be left out of both.
        beside: a folder whose files come before the shipped ones.

    Raises:
        ConfigError: there is neither.
    """
    shipped = shipped_studies()
    places = [named_path(study), named_path(f"{study}.yaml")]
    if beside is not None:
        places = [beside / place for place in places]
    for place in places:
        if place.is_file():
            return place
    name = str(study).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"no study {str(study)!r}: it is neither a file nor one of the shipped studies; "
        f"{did_you_mean(name, shipped)}"
    )


def shipped_studies() -> dict[str, Path]:
    """The studies that come with driftscope: name -> file."""
    package = Path(str(files("driftscope")))
    # the wheel holds them inside the package, a source tree beside it
    for folder in (package / "studies", package.parents[1] / "studies"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    return {}


_OF_A_RUN = {"model", "dataset", "method", "learning_rate"}


def _with_extended(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Source]:
    """A file's values over those of the study it extends, and the places of all."""
    if path.resolve() in above:
        raise ConfigError(f"{path} extends itself, by way of {above[-1].name}")
    values, source = read_yaml(path)
    keys = [*StudySpec.model_fields, "extends"]
    if _OF_A_RUN & {*values} and not {"base", "axes", "extends"} & {*values}:
        raise ConfigError(
            f"{path} declares a run, not a study; carry it out with driftscope run {path} --out "
            "DIR, or put its keys under base"
        )
    for key in map(str, values):
        if key not in keys:
            place = source.at((key,))
            raise ConfigError(f"{place}: unknown key {key!r}: {did_you_mean(key, keys)}")
    extended = values.pop("extends", None)
    if extended is None:
        return values, source
    if not isinstance(extended, str):
        raise ConfigError(f"{source.at(('extends',))}: extends names one study, not {extended!r}")
    try:
        parent = find_study(extended, beside=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{source.at(('extends',))}: {error}") from None
    return _joined(*_with_extended(parent, (*above, path.resolve())), values, source)


def _joined(
    parent: dict[str, Any], parent_source: Source, child: dict[str, Any], source: Source
) -> tuple[dict[str, Any], Source]:
    """The child's values over the parent's; a key that is in the child's base is no axis there."""
    values = {**{key: value for key, value in parent.items() if key not in OWN}, **child}
    for key in ("base", "axes"):
        if isinstance(parent.get(key), dict) and isinstance(child.get(key), dict):
            values[key] = {**parent[key], **child[key]}
    for mine, other in (("base", "axes"), ("axes", "base")):
        named = child.get(mine)
        if isinstance(named, Mapping) and isinstance(values.get(other), Mapping):
            own = child.get(other) or {}
            values[other] = {k: v for k, v in values[other].items() if k not in named or k in own}
    inherited = {at: words for at, words in parent_source.places.items() if at[0] not in OWN}
    places: dict[Location, str] = {**inherited, **source.places}
    for key in APPENDED:
        if isinstance(parent.get(key), list) and isinstance(child.get(key), list):
            values[key] = [*parent[key], *child[key]]
            places |= {place: parent_source.places[place] for place in parent_source.places
                       if place[0] == key}  # fmt: skip
            shift = len(parent[key])
            for place, words in source.places.items():
                if place[0] == key and len(place) > 1:
                    places[(key, int(place[1]) + shift, *place[2:])] = words
    return values, Source(source.name, places)
