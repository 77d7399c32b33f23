"""What a run is, declared: frozen pydantic models, read from YAML, with a stable id.

A `RunSpec` says everything that decides a run's numbers and nothing about the machine.
Its id is a hash of what differs from the defaults, so an option that driftscope learns
later does not rename the runs of today.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from driftscope.config.variants import Flyp, Frozen, MethodSpec, RegularizerSpec
from driftscope.errors import ConfigError, did_you_mean

SPEC_VERSION = 1
"""Raised when a default changes its meaning; part of every run id."""


def _kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The variants of a discriminated union by kind."""
    return {
        variant.model_fields["kind"].default: variant for variant in get_args(get_args(union)[0])
    }


METHOD_KINDS = tuple(_kinds(MethodSpec))
REGULARIZER_KINDS = tuple(_kinds(RegularizerSpec))
_VARIANTS = _kinds(MethodSpec) | _kinds(RegularizerSpec)

Protocol: TypeAlias = Literal["leakfree", "paper"]
Step: TypeAlias = Annotated[int, Field(ge=1)]
ProbeAt: TypeAlias = Literal["epoch", "log"] | Step | tuple[Step, ...]


class RunSpec(Frozen):
    """One adaptation: what is adapted, how, on which data, from which seed.

    Counts of images are upper limits; `None` takes all there are. `seed` decides the
    training (head, adapter, order, flips, dropout), `data_seed` the splits. `batch_size` images
    make an optimizer step, in `micro_batches` forward passes. `probe_at` says when the model is
    evaluated: at every epoch's end, and besides every so many steps, or at the steps listed, or
    (`log`) after 1, 2, 4, 8, … steps.
    """

    model: str = "mini"
    dataset: str = "terrain"
    method: MethodSpec
    learning_rate: float = Field(gt=0)
    seed: int = Field(7, ge=0)
    data_seed: int = Field(0, ge=0)
    protocol: Protocol = "leakfree"

    epochs: int = Field(6, ge=1)
    batch_size: int = Field(64, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0)
    horizontal_flip: bool = True
    decay_norms_and_biases: bool = True
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    micro_batches: int = Field(1, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    regularizers: tuple[RegularizerSpec, ...] = ()
    probe_at: ProbeAt = "epoch"

    train_images: int | None = Field(None, ge=1)
    val_images: int = Field(300, ge=1)
    probe_images: int = Field(200, ge=2)
    test_images: int | None = Field(None, ge=1)
    transfer: tuple[str, ...] = ("concepts100",)
    transfer_images: int | None = Field(1000, ge=1)

    @field_validator("method", mode="before")
    @classmethod
    def _method_may_be_a_bare_name(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @property
    def regularizer_label(self) -> str:
        """The regularizers' names joined, such as `apr_0.1+l2_sp_0.01`; `none` without any."""
        return "+".join(regularizer.label for regularizer in self.regularizers) or "none"

    @model_validator(mode="after")
    def _options_fit_together(self) -> RunSpec:
        kinds = [regularizer.kind for regularizer in self.regularizers]
        if len(set(kinds)) < len(kinds):
            raise ValueError("regularizers must be of different kinds; add up their weights")
        if self.micro_batches > self.batch_size:
            raise ValueError(
                f"micro_batches must be at most batch_size ({self.batch_size}), "
                f"it is {self.micro_batches}"
            )
        if isinstance(self.method, Flyp) and self.micro_batches > 1:
            raise ValueError(
                "flyp contrasts the images of a batch with each other, so micro_batches must be 1"
            )
        if isinstance(self.method, Flyp) and self.label_smoothing:
            raise ValueError("flyp trains by a contrastive loss; label_smoothing must be 0")
        return self


def canonical_spec(spec: RunSpec) -> dict[str, Any]:
    """The spec reduced to what differs from the defaults; variants keep their kind."""
    canonical = spec.model_dump(mode="json", exclude_defaults=True)
    canonical["method"] = _with_kind(spec.method)
    if spec.regularizers:
        canonical["regularizers"] = sorted(
            (_with_kind(regularizer) for regularizer in spec.regularizers), key=lambda r: r["kind"]
        )
    return canonical


def _with_kind(variant: MethodSpec | RegularizerSpec) -> dict[str, Any]:
    return {**variant.model_dump(mode="json", exclude_defaults=True), "kind": variant.kind}


def run_id(spec: RunSpec) -> str:
    """Twelve hexadecimal digits that name the spec; equal specs, equal ids, on every machine."""
    text = json.dumps([SPEC_VERSION, canonical_spec(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_run_spec(values: Mapping[str, Any], where: str = "the run spec") -> RunSpec:
    """Builds a `RunSpec`; raises `ConfigError` naming the key, the value and what is valid."""
    try:
        return RunSpec.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, RunSpec, where)) from None


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds; `ConfigError` where it is not readable as one."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_YamlLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the spec {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold 'key: value' lines (such as 'learning_rate: 1e-3'), "
            f"but holds {type(values).__name__}"
        )
    return values


def load_run_spec(path: Path) -> RunSpec:
    """Reads a run's YAML file."""
    return parse_run_spec(read_yaml_mapping(path), str(path))


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML that reads `1e-3` as the number its writer means (YAML 1.1 reads a string)."""


def _read_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace("_", ""))


_YamlLoader.add_implicit_resolver(
    "!exponent", re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
_YamlLoader.add_constructor("!exponent", _read_float)


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One sentence for the first thing wrong, with the count of the others."""
    # a misspelt key is also a missing one: name the misspelling
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    sentence = f"{where}: {_problem(problems[0], model)}"
    others = len(problems) - 1
    return f"{sentence} (and {others} more)" if others else sentence


def _problem(problem: Any, model: type[BaseModel]) -> str:
    kind, location, value = problem["type"], problem["loc"], problem["input"]
    # pydantic puts the chosen variant's tag into the location: method.lora.rank
    name = ".".join(str(part) for part in location if part not in _VARIANTS)
    if kind == "extra_forbidden":
        return (
            f"unknown key {name!r}: {did_you_mean(str(location[-1]), _valid_keys(location, model))}"
        )
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        given = str(value.get("kind") if isinstance(value, dict) else value)
        what, kinds = (
            ("method", METHOD_KINDS)
            if location[0] == "method"
            else ("regularizer", REGULARIZER_KINDS)
        )
        return f"unknown {what} {given!r}: {did_you_mean(given, kinds)}"
    sentence = str(problem["msg"]).removeprefix("Value error, ")
    message = sentence[0].lower() + sentence[1:]
    if not location:  # options that do not fit together
        return message
    return f"{name} is {value!r}, but {message.replace('input ', 'it ')}"


def _valid_keys(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for kind, variant in _VARIANTS.items():
        if kind in location:
            return list(variant.model_fields)
    return list(model.model_fields)


class StudySpec(Frozen):
    """A declared matrix of runs: `base` holds for all, `axes` are crossed."""

    name: str = Field(min_length=1)
    title: str = ""
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @field_validator("axes")
    @classmethod
    def _axes_have_values(cls, axes: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for name, values in axes.items():
            if not values:
                raise ValueError(f"axis {name!r} has no values")
        return axes


def load_study_spec(path: Path) -> StudySpec:
    """Reads a study's YAML file."""
    try:
        return StudySpec.model_validate(read_yaml_mapping(path))
    except ValidationError as error:
        raise ConfigError(_explain(error, StudySpec, str(path))) from None
