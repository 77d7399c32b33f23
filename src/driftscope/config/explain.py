"""What is wrong with declared values, as one sentence: the place, the value, what is valid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from driftscope.config.interventions import InterventionSpec
from driftscope.config.source import Location, Where
from driftscope.config.variants import MethodSpec, RegularizerSpec
from driftscope.errors import did_you_mean, shown


def _kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The variants of a discriminated union by kind."""
    return {
        variant.model_fields["kind"].default: variant for variant in get_args(get_args(union)[0])
    }


METHOD_KINDS = tuple(_kinds(MethodSpec))
BARE_METHODS = tuple(
    kind
    for kind, variant in _kinds(MethodSpec).items()
    if not any(field.is_required() for field in variant.model_fields.values())
)
"""The methods that a kind alone declares."""
REGULARIZER_KINDS = tuple(_kinds(RegularizerSpec))
INTERVENTION_KINDS = tuple(_kinds(InterventionSpec))
_VARIANTS = _kinds(MethodSpec) | _kinds(RegularizerSpec) | _kinds(InterventionSpec)
_UNIONS = {
    "method": ("method", METHOD_KINDS),
    "regularizers": ("regularizer", REGULARIZER_KINDS),
    "interventions": ("intervention", INTERVENTION_KINDS),
}
"""What a kind is of, by the key that it stands under, and the kinds that there are."""


class PlacedError(ValueError):
    """Values that do not go together, and the one of them where a reader should look.

    The location is counted from the model or field whose validator raises it.
    """

    def __init__(self, message: str, *location: int | str) -> None:
        super().__init__(message)
        self.location = location


def part_names() -> list[str]:
    """The parts of a run that can be named alone: `method.rank`, `regularizers.apr.weight`, …."""
    options = {name for kind in METHOD_KINDS for name in _VARIANTS[kind].model_fields}
    return [
        *(f"method.{name}" for name in sorted(options)),
        *(f"regularizers.{kind}.{name}" for kind in REGULARIZER_KINDS
          for name in _VARIANTS[kind].model_fields),
    ]  # fmt: skip


def explain(error: ValidationError, model: type[BaseModel], where: Where) -> str:
    """One sentence for the first thing wrong, with the count of the others."""
    # a misspelt key is also a missing one: name the misspelling
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    # pydantic puts the chosen variant's tag into the location: method.lora.rank
    place = where(tuple(part for part in _location(problems[0]) if part not in _VARIANTS))
    sentence = f"{place}: {_problem(problems[0], model)}"
    others = len(problems) - 1
    return f"{sentence} (and {others} more)" if others else sentence


def _location(problem: Any) -> Location:
    location: Location = problem["loc"]
    error = problem.get("ctx", {}).get("error")
    return (*location, *error.location) if isinstance(error, PlacedError) else location


_OTHER_NAMES = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "data": "dataset",
    "base_model": "model",
    "r": "rank",
}
"""What other trainers and papers call our keys."""


def _meant(key: str, valid: Collection[str]) -> str:
    other = _OTHER_NAMES.get(key)
    return f"did you mean {other!r}?" if other in valid else did_you_mean(key, valid)


def _problem(problem: Any, model: type[BaseModel]) -> str:
    kind, location, value = problem["type"], problem["loc"], problem["input"]
    name = ".".join(str(part) for part in location if part not in _VARIANTS)
    if kind == "extra_forbidden":
        return f"unknown key {name!r}: {_meant(str(location[-1]), _valid_keys(location, model))}"
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        given = str(value.get("kind") if isinstance(value, dict) else value)
        what, kinds = _UNIONS[str(location[0])]
        return f"unknown {what} {given!r}: {did_you_mean(given, kinds)}"
    sentence = str(problem["msg"]).removeprefix("Value error, ")
    message = sentence[0].lower() + sentence[1:]
    if not location or _location(problem) != location:  # values that do not go together
        return message
    message = message.replace("input ", "it ").replace("a valid tuple", "a list")
    return f"{name} is {shown(value)}, but {message}"


def _valid_keys(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for kind, variant in _VARIANTS.items():
        if kind in location:
            return list(variant.model_fields)
    if len(location) > 1:  # a part of a spec: the keys of its own model
        inner = model.model_fields[str(location[0])].annotation
        for part in get_args(inner):
            if isinstance(part, type) and issubclass(part, BaseModel):
                return list(part.model_fields)
    return list(model.model_fields)
