"""What is wrong with declared values, as one sentence: the place, the value, what is valid."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from driftscope.config.interventions import InterventionSpec
from driftscope.config.source import Location, Where
from driftscope.config.variants import MethodSpec, RegularizerSpec
from driftscope.errors import did_you_mean, shown

_LONGEST_TYPE = 30
"""Letters that the name of a tuner of peft may have."""


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


_OF_UNION = re.compile(r"(literal|tuple|list|dict)\[.*|(constrained-)?(bool|int|float|str)")
"""What pydantic puts into the location of a value that may be of several kinds, for each."""


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
    first = _named(_location(problems[0]))
    ways = [problem for problem in problems if _named(_location(problem)) == first]
    sentence = f"{where(first)}: {_problem(ways, model)}"
    others = len({_named(_location(problem)) for problem in problems}) - 1
    return f"{sentence} (and {others} more)" if others else sentence


def _named(location: Location) -> Location:
    """The keys on the way to a value, without what pydantic adds: which variant, which kind."""
    return tuple(
        part
        for part in location
        if part not in _VARIANTS and not (isinstance(part, str) and _OF_UNION.fullmatch(part))
    )


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


def _problem(ways: Sequence[Any], model: type[BaseModel]) -> str:
    """What is wrong with one value, in each of the ways in which it could have been right."""
    problem = ways[0]
    kind, location, value = problem["type"], problem["loc"], problem["input"]
    name = ".".join(map(str, _named(location)))
    if kind == "extra_forbidden":
        return f"unknown key {name!r}: {_meant(str(location[-1]), _valid_keys(location, model))}"
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        given = str(value.get("kind") if isinstance(value, dict) else value)
        what, kinds = _UNIONS[str(location[0])]
        hint = did_you_mean(given, kinds)
        if what == "method" and hint.startswith("valid") and len(given) <= _LONGEST_TYPE:
            hint += f"; a tuner of peft is {{kind: peft, type: {given}}}"
        return f"unknown {what} {given!r}: {hint}"
    sentence = str(problem["msg"]).removeprefix("Value error, ")
    message = sentence[0].lower() + sentence[1:]
    if not location or _location(problem) != location:  # values that do not go together
        return message
    if kind in ("model_type", "model_attributes_type"):
        _, kinds = _UNIONS.get(str(location[0]), ("", ()))
        keys = kinds or _valid_keys((*location, ""), model)
        needed = "a kind" if kinds else "keys"
        return f"{name} is {shown(value)}, but it should have {needed}: {', '.join(keys)}"
    messages = [_in_words(message), *(_in_words(str(one["msg"])) for one in ways[1:])]
    wanted = " or ".join(dict.fromkeys(one.removeprefix("it should be ") for one in messages))
    it_should_be = "it should be " if messages[0].startswith("it should be ") else ""
    return f"{name} is {shown(value)}, but {it_should_be}{wanted}"


_WORDS = {
    "input ": "it ",
    "Input ": "it ",
    "a valid tuple": "a list",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
}
_HOW_READ = re.compile(r", (unable to (parse|interpret) \w+.*|got a number with a fractional part)")


def _in_words(message: str) -> str:
    """A message of pydantic as we say it."""
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return _HOW_READ.sub("", message)


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
