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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from driftscope.errors import ConfigError, did_you_mean

SPEC_VERSION = 1
"""Raised when a default changes its meaning; part of every run id."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FullFineTuning(_Frozen):
    """All image-branch parameters that inference uses, and a linear classifier."""

    kind: Literal["full_ft"] = "full_ft"

    @property
    def label(self) -> str:
        """The name tables and figures show."""
        return "full_ft"


class Lora(_Frozen):
    """Low-rank adapters on the image tower's self-attention (Hu et al. 2022; paper 4.2)."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: tuple[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], ...] = (
        "q_proj",
        "v_proj",
    )
    train_projection: bool = True

    @property
    def label(self) -> str:
        """The name tables and figures show: the rank, and what differs from the paper's LoRA."""
        parts = [f"lora_r{self.rank}"]
        if self.targets != Lora.model_fields["targets"].default:
            parts.append("-".join(target.removesuffix("_proj") for target in self.targets))
        if not self.train_projection:
            parts.append("frozen_proj")
        return "_".join(parts)


MethodSpec: TypeAlias = Annotated[FullFineTuning | Lora, Field(discriminator="kind")]
METHOD_KINDS: tuple[str, ...] = tuple(
    variant.model_fields["kind"].default for variant in get_args(get_args(MethodSpec)[0])
)

Protocol: TypeAlias = Literal["leakfree", "paper"]


class RunSpec(_Frozen):
    """One adaptation: what is adapted, how, on which data, from which seed.

    Counts of images are upper limits; `None` takes all there are. `seed` decides the
    training (head, adapter, order, flips, dropout), `data_seed` the splits.
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


def canonical_spec(spec: RunSpec) -> dict[str, Any]:
    """The spec reduced to what differs from the defaults; the method keeps its kind."""
    canonical = spec.model_dump(mode="json", exclude_defaults=True)
    method = spec.method.model_dump(mode="json", exclude_defaults=True)
    canonical["method"] = {**method, "kind": spec.method.kind}
    return canonical


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
    name = ".".join(str(part) for part in location if part not in METHOD_KINDS)
    if kind == "extra_forbidden":
        return (
            f"unknown key {name!r}: {did_you_mean(str(location[-1]), _valid_keys(location, model))}"
        )
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        given = value.get("kind") if isinstance(value, dict) else value
        return f"unknown method {given!r}: {did_you_mean(str(given), METHOD_KINDS)}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{name} is {value!r}, but {message.replace('input ', 'it ')}"


def _valid_keys(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for variant in get_args(get_args(MethodSpec)[0]):
        if variant.model_fields["kind"].default in location:
            return list(variant.model_fields)
    return list(model.model_fields)


class StudySpec(_Frozen):
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
