"""From a study's declaration to its runs: all of them, known before the first is started."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel

from driftscope.config import RunSpec, StudySpec, parse_run_spec, run_id
from driftscope.config.explain import part_names
from driftscope.config.source import Location
from driftscope.errors import ConfigError, did_you_mean, shown
from driftscope.limits import RUNS

Draft = dict[str, tuple[Any, Location]]
"""A run on its way: key -> its value and where the study says so."""

_SHOWN_ALWAYS = ("dataset", "method", "learning_rate")
_PARTS = part_names()


@dataclass(frozen=True)
class Cell:
    """The runs that differ in the seed alone; `labels` say how it differs from other cells."""

    labels: dict[str, str]
    specs: tuple[RunSpec, ...]


def expand(study: StudySpec, *, was_checked: bool = False) -> list[RunSpec]:
    """Every run of a study, each once: the axes crossed, the last one fastest, then the extra.

    Args:
        study: the declaration.
        was_checked: whether it is a stored one, whose own entries fitted when it was declared; it
            does not tell them from those of a study that it extends.

    Raises:
        ConfigError: a key or value that no run can have, with its line; an override or
            exclusion that fits no run; no runs at all.
    """
    specs: dict[str, RunSpec] = {}
    used: set[Location] = set()
    for draft in _drafts(study):
        drafted = _with_overrides(study, draft, used)
        spec = _parsed(study, drafted)
        if not _excluded(study, spec, used):
            specs.setdefault(run_id(spec), spec)
    if not was_checked:
        _refuse_unused(study, used)
    if not specs:
        raise ConfigError(f"{study.source.at()}: the study has no runs; declare axes, or extra")
    return list(specs.values())


def select(specs: Iterable[RunSpec], conditions: Sequence[str]) -> list[RunSpec]:
    """The runs that fit every condition, such as `method=lora|full_ft,seed=7`.

    Raises:
        ConfigError: a condition of another form, an unknown key or one given twice, or no run
            that fits.
    """
    wanted: dict[str, list[str]] = {}
    for condition in (part for text in conditions for part in text.split(",")):
        key, equals, values = (side.strip() for side in condition.partition("="))
        if not (key and equals and values):
            raise ConfigError(
                f"{condition!r} is no condition; write it as method=lora or seed=7|11"
            )
        if key in wanted:
            raise ConfigError(f"{key!r} is asked for twice; for either of two write {key}=7|11")
        wanted[key] = [value.strip() for value in values.split("|")]
    specs = list(specs)
    for key in wanted:
        _refuse_unknown_key(key, "--only")
    chosen = [spec for spec in specs if _fits_all(spec, wanted)]
    if not chosen:
        raise ConfigError(
            f"no run fits {','.join(conditions)!r}; the study has "
            + "; ".join(f"{key}: {', '.join(_values_of(specs, key))}" for key in wanted)
        )
    return chosen


def cells(specs: Sequence[RunSpec]) -> list[Cell]:
    """The runs grouped by everything but the seed, in the order of the first run of each."""
    groups: dict[tuple[Any, ...], list[RunSpec]] = {}
    names = [name for name in RunSpec.model_fields if name != "seed"]
    for spec in specs:
        groups.setdefault(tuple(getattr(spec, name) for name in names), []).append(spec)
    varying = [
        name
        for index, name in enumerate(names)
        if name in _SHOWN_ALWAYS or len({key[index] for key in groups}) > 1
    ]
    shown = list(_SHOWN_ALWAYS)
    for name in (name for name in varying if name not in _SHOWN_ALWAYS):
        if _tells_more(name, shown, [group[0] for group in groups.values()]):
            shown.append(name)
    return [
        Cell({name: value_text(group[0], name) for name in shown}, tuple(group))
        for group in groups.values()
    ]


def _tells_more(name: str, shown: Sequence[str], specs: Sequence[RunSpec]) -> bool:
    """Whether runs that agree in what is shown differ in this."""
    values: dict[tuple[Any, ...], set[Any]] = {}
    for spec in specs:
        agree = tuple(getattr(spec, other) for other in shown)
        values.setdefault(agree, set()).add(getattr(spec, name))
    return any(len(there) > 1 for there in values.values())


def value_text(spec: RunSpec, key: str) -> str:
    """A run's value as tables show it: labels for methods, regularizers and interventions."""
    if key == "method":
        return spec.method.label
    if key in ("regularizers", "interventions"):
        return "+".join(one.label for one in getattr(spec, key)) or "none"
    value = spec.budget.label if key == "budget" and spec.budget else _value(spec, key)
    if value is None:
        return "none"
    if isinstance(value, float):
        return _number_text(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _number_text(value: float) -> str:
    """0.01, but 1e-4 and 2.5e-4, as rates are written."""
    if not 0 < abs(value) < 0.01:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


# ---------------------------------------------------------------- crossing


def _refuse_too_many(study: StudySpec, num_runs: int) -> None:
    if num_runs > RUNS.value:
        raise ConfigError(
            f"{study.source.at()}: the study declares {shown(num_runs)} runs; {RUNS.sentence}"
        )


def _drafts(study: StudySpec) -> Iterator[Draft]:
    axes: dict[str, list[tuple[Any, Location]]] = {
        name: [(value, ("axes", name, index)) for index, value in enumerate(values)]
        for name, values in study.axes.items()
    }
    num_runs = 0
    if axes or not study.extra:
        num_runs += math.prod(map(len, axes.values()))
        _refuse_too_many(study, num_runs)
        yield from _crossed(axes)
    for number, entry in enumerate(study.extra):
        own = {name: _choices(value, ("extra", number, name)) for name, value in entry.items()}
        # what an entry names takes the place of that axis, and of axes over parts of it
        others = {name: axes[name] for name in axes if name.split(".")[0] not in own}
        num_runs += math.prod(map(len, {**others, **own}.values()))
        _refuse_too_many(study, num_runs)
        yield from _crossed({**others, **own})


def _choices(value: Any, place: Location) -> list[tuple[Any, Location]]:
    if isinstance(value, list | tuple):
        return [(item, (*place, index)) for index, item in enumerate(value)]
    return [(value, place)]


def _crossed(axes: Mapping[str, Sequence[tuple[Any, Location]]]) -> Iterator[Draft]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _with_overrides(study: StudySpec, draft: Draft, used: set[Location]) -> Draft:
    """Base, then the overrides whose condition the run fits, then its own values."""
    whole: Draft = {
        key: (value, ("base", key)) for key, value in study.base.items() if key not in draft
    }
    if not study.overrides:
        return whole | draft
    # what a condition asks about: the run as it is without any override
    plain = _parsed(study, whole | draft, lenient=True)
    for number, override in enumerate(study.overrides):
        for key in override.when:
            _refuse_unknown_key(key, study.source.at(("overrides", number, "when", key)))
        if _fits_all(plain, override.when):
            used.add(("overrides", number))
            whole |= {
                key: (value, ("overrides", number, "set", key))
                for key, value in override.set.items()
            }
    return whole | draft


def _parsed(study: StudySpec, draft: Draft, *, lenient: bool = False) -> RunSpec:
    """The run of a draft; a lenient one may lack what an override is yet to bring."""
    values: dict[str, Any] = {}
    for key in sorted(draft, key=lambda name: name.count(".")):  # wholes before their parts
        _put(values, key, draft[key][0], study.source.at(draft[key][1]))
    if lenient:
        values = {"method": "full_ft", "learning_rate": 1.0, **values}
    return parse_run_spec(values, lambda location: study.source.at(_said(draft, values, location)))


def _said(draft: Draft, values: Mapping[str, Any], location: Location) -> Location:
    """Where the study says what has become a part of a run's values."""
    names = list(map(str, location))
    if names[:1] == ["regularizers"] and len(names) > 1:  # parts name the kind, not the place
        given = values["regularizers"][location[1]]
        kind = given.get("kind") if isinstance(given, Mapping) else given
        parts = [key for key in draft if key.startswith(f"regularizers.{kind}.")]
        if parts:
            named = ".".join(["regularizers", str(kind), *names[2:]])
            return draft[named if named in parts else parts[0]][1]
    for end in range(len(location), 0, -1):
        key = ".".join(names[:end])
        if key in draft:
            return (*draft[key][1], *location[end:])
    return ()


def _put(values: dict[str, Any], key: str, value: Any, place: str) -> None:
    """Sets a key, or a part of one: `method.rank`, `regularizers.apr.weight`."""
    first, *parts = key.split(".")
    if not parts:
        values[first] = value
    elif first == "method" and len(parts) == 1:
        method = values.get("method")
        whole = dict(method) if isinstance(method, Mapping) else {"kind": method}
        values["method"] = {**whole, parts[0]: value}
    elif first == "regularizers" and len(parts) == 2:
        kind, option = parts
        given = values.get("regularizers") or []
        listed = given if isinstance(given, list | tuple) else [given]
        named = [one if isinstance(one, Mapping) else {"kind": one} for one in listed]
        same = next((one for one in named if one.get("kind") == kind), {"kind": kind})
        others = [one for one in named if one.get("kind") != kind]
        values["regularizers"] = [*others, {**same, option: value}]
    else:
        raise ConfigError(
            f"{place}: {key!r} names no part of a run; parts are written method.OPTION "
            "(method.rank) and regularizers.KIND.OPTION (regularizers.apr.weight)"
        )


# ---------------------------------------------------------------- conditions


def _excluded(study: StudySpec, spec: RunSpec, used: set[Location]) -> bool:
    for number, condition in enumerate(study.exclude):
        for key in condition:
            _refuse_unknown_key(key, study.source.at(("exclude", number, key)))
        if _fits_all(spec, condition):
            used.add(("exclude", number))
            return True
    return False


def _refuse_unused(study: StudySpec, used: set[Location]) -> None:
    """A condition that fits nothing is a slip of the pen, and would go unnoticed.

    Not so one of the study that is extended: it may be about runs that are not here.
    """
    for kind, entries in (("overrides", study.overrides), ("exclude", study.exclude)):
        for number in range(len(entries)):
            if (kind, number) not in used and study.source.is_own((kind, number)):
                raise ConfigError(
                    f"{study.source.at((kind, number))}: this entry of {kind} fits no run"
                )


def _refuse_unknown_key(key: str, place: str) -> None:
    if key in RunSpec.model_fields or key in _PARTS:
        return
    whole, dot, _ = key.partition(".")
    near = [part for part in _PARTS if dot and part.startswith(f"{whole}.")]
    raise ConfigError(
        f"{place}: unknown key {key!r}: {did_you_mean(key, near or RunSpec.model_fields)}"
    )


def _fits_all(spec: RunSpec, condition: Mapping[str, Any]) -> bool:
    return all(_fits(spec, key, wanted) for key, wanted in condition.items())


def _fits(spec: RunSpec, key: str, wanted: Any) -> bool:
    """Whether a run's value is the wanted one, or one of those wanted."""
    value = _value(spec, key)
    if isinstance(wanted, list | tuple):
        return _is(value, wanted) or any(_fits(spec, key, one) for one in wanted)
    if isinstance(wanted, Mapping):
        return _is(value, wanted)
    if key == "method":
        return wanted in (spec.method.kind, spec.method.label)
    if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(wanted, str):
        try:
            return math.isclose(value, float(wanted), rel_tol=1e-9)
        except ValueError:
            return False
    return bool(value == wanted) or value_text(spec, key) == str(wanted)


def _is(value: Any, written: Any) -> bool:
    """Whether a value is what was written: of a variant, what is written of it."""
    if isinstance(value, BaseModel) and isinstance(written, Mapping):
        return all(_is(getattr(value, name, None), part) for name, part in written.items())
    if isinstance(value, tuple) and isinstance(written, list | tuple):
        # a run's regularizers stand in the order of their kinds
        parts = sorted(written, key=lambda p: str(p.get("kind")) if isinstance(p, Mapping) else "")
        return len(value) == len(parts) and all(map(_is, value, parts))
    return bool(value == written)


def _value(spec: RunSpec, key: str) -> Any:
    value: Any = spec
    for part in key.split("."):
        if isinstance(value, tuple):  # regularizers, by kind
            value = next((one for one in value if one.kind == part), None)
        else:
            value = getattr(value, part, None)
    return value


def _values_of(specs: Sequence[RunSpec], key: str) -> list[str]:
    return list(dict.fromkeys(value_text(spec, key) for spec in specs))
