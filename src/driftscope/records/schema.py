"""What the files of a run, a monitor and a comparison hold: typed, versioned, named here alone.

Version 1 is what every driftscope so far writes; a file without a version is of that one. A field
that a later version adds is kept out of the way. Numbers that a metric declares lie in mappings by
the metric's key, so that a new metric needs no new field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from driftscope.deprecation import renamed
from driftscope.errors import RecordError, shown
from driftscope.metric import Metric
from driftscope.metrics import METRICS, drifts, levels
from driftscope.records.columns import retention_interval_pct
from driftscope.stats.proportions import wilson_interval_pct

SCHEMA_VERSION: Final = 1
OLD_TEXTS: Final = "the transfer set's classes, as driftscope 0.1 read them"
"""Marks text-space drift by its former definition, which no other number compares with."""

Number: TypeAlias = float | None
"""None is a number that was not finite, or not measured."""
Layers: TypeAlias = list[Number]
Heads: TypeAlias = list[Layers]
_TOO_LARGE = 10**300
"""What no float holds."""


class Part(BaseModel):
    """A part of a file: cannot change, takes no text for a number, leaves unknown fields out."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True
    )

    @model_validator(mode="after")
    def _numbers_are_possible(self) -> Self:
        for name in _ranged_fields(type(self)):
            refuse_impossible(name, getattr(self, name))
        for name, value in (self.model_extra or {}).items():
            refuse_impossible(name, value)
        return self


class _Facts(Part):
    """A part whose unknown fields are kept."""

    model_config = ConfigDict(extra="allow")

    def facts(self) -> dict[str, Any]:
        """All fields that the file has, under their names there."""
        return self.model_dump(exclude_unset=True, by_alias=True)


class Signals(_Facts):
    """Numbers by metric, as one number, by layer, or by layer and head."""

    num_images: int | None = None

    @model_validator(mode="after")
    def _declared_metrics_are_numbers(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if not _is_numbers(value) and name in _declared():
                raise ValueError(f"{name} is {shown(value)}, which is no number and no list")
        return self

    def signal(self, name: str) -> Any:
        """What was measured under this name, of whatever shape; None where nothing was."""
        extra = self.model_extra or {}  # asked first: what is no attribute takes ten times longer
        return extra[name] if name in extra else getattr(self, name, None)

    def number(self, name: str) -> Number:
        """A metric's single number; None where there is none."""
        value = self.signal(name)
        return value if is_number(value) else None

    def numbers(self) -> dict[str, float]:
        """All single numbers by name."""
        extra = (self.model_extra or {}).items()
        return {name: value for name, value in extra if is_number(value)}

    def by_layer(self, name: str) -> list[Number] | None:
        """Each layer's number (the mean over its heads); None where none is by layer."""
        values = self.signal(name)
        return [_mean(value) for value in values] if isinstance(values, list) else None

    def mean(self, name: str) -> Number:
        """A signal's mean over layers and heads; None where it was not read."""
        return _mean(self.signal(name))


OfHeads: TypeAlias = Annotated[
    list[list[float]],
    BeforeValidator(lambda one: one or [], json_schema_input_type=list[list[float]] | None),
]
"""A signal by layer and head; empty where attention was not read."""


class StoredReading(Signals):
    """A model's reading without its tensors; `driftscope.Reading.from_dict` takes its `facts`."""

    entropy: OfHeads
    erf95: OfHeads
    gini: OfHeads
    unread: dict[str, str] = Field(default_factory=dict)
    """Why the model does not give a number, by its metric's key."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many layers and heads gave attention rows; 0 of both where none did."""
        return len(self.entropy), len(self.entropy[0]) if self.entropy else 0

    @model_validator(mode="after")
    def _attention_is_there_or_a_reason(self) -> Self:
        if not self.entropy and not self.unread:
            raise ValueError("entropy is empty, and nothing says why")
        return self

    @model_validator(mode="after")
    def _signals_have_one_shape(self) -> Self:
        num_layers, num_heads = self.shape
        for one in _read_by_layer():
            values = self.signal(one.field)
            if values is None:
                continue
            if not isinstance(values, list):
                raise ValueError(f"{one.field} is {shown(values)}, which is no list of layers")
            heads = [_length(row) for row in values]
            if one.reads == "maps":  # of every block, where a pooling head alone gives a row
                if len(values) < num_layers or set(heads) - {heads[0]} or not heads[0]:
                    raise ValueError(f"{one.field} is not of equally many heads in every layer")
            elif "head" in one.exists and heads != [num_heads] * num_layers:
                raise ValueError(f"{one.field} is not of {num_layers} layers and {num_heads} heads")
            elif len(values) != num_layers:
                raise ValueError(f"{one.field} is not of {num_layers} layers")
        return self


class StoredDrift(Signals):
    """What changed against the pretrained reading, and why a number is missing."""

    unmeasured: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _layers_are_lists(self) -> Self:
        for name in _changed_by_layer():
            if not isinstance(value := self.signal(name), list | None):
                raise ValueError(f"{name} is {shown(value)}, which is no list of layers")
        return self


class Flow(Part):
    """Images of a class that are taken for another now."""

    class_name: str = Field(alias="class")
    taken_for: str
    num_images: int


class Flows(Part):
    """Where images went: rightly classified before and not now (lost), or the reverse (gained)."""

    num_lost: int
    num_gained: int
    lost_to: list[Flow] = Field(default_factory=list)


_Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


def _ranged(key: str) -> Any:
    """A field in the range of its metric."""
    low, high = METRICS[key].bounds
    return Field(ge=low, le=high)


PerClass = TypedDict(
    "PerClass",
    {
        "class": str,
        "num_images": _Count | None,
        "pretrained_pct": Annotated[float, _ranged("pretrained_pct")] | None,
        "adapted_pct": Annotated[float, _ranged("adapted_pct")] | None,
        "retention_pct": Annotated[float, _ranged("retention_pct")] | None,
    },
    total=False,
)
"""A class of a transfer set before and after: a row of the table of classes, of which there are
many, so that it stays a mapping."""


class TransferScore(Part):
    """A zero-shot score; of an adapted model also what is left of the pretrained one's."""

    name: str = ""
    num_correct: int | None = None
    num_images: int | None = None
    accuracy_pct: Number = None
    wilson_low_pct: Number = None
    wilson_high_pct: Number = None
    top5_pct: Number = None
    mean_per_class_pct: Number = None
    per_class_correct: list[int] = Field(default_factory=list)
    per_class_images: list[int] = Field(default_factory=list)
    retention_pct: Number = None
    above_chance_pct: Number = None
    pretrained_accuracy_pct: Number = None
    pretrained_low_pct: Number = None
    pretrained_high_pct: Number = None
    chance_pct: Number = None
    constant_pct: Number = None
    ece_pct: Number = None
    pretrained_ece_pct: Number = None
    ece_change_points: Number = None
    doubts: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    per_class: list[PerClass] = Field(default_factory=list)
    flows: Flows | None = None

    @property
    def wilson_pct(self) -> tuple[float, float] | None:
        """The accuracy's 95 % interval; of an imported one counted from accuracy and images."""
        if self.wilson_low_pct is not None and self.wilson_high_pct is not None:
            return self.wilson_low_pct, self.wilson_high_pct
        if self.accuracy_pct is None or not self.num_images:
            return None
        return wilson_interval_pct(
            round(self.accuracy_pct / 100 * self.num_images), self.num_images
        )

    @property
    def retention_interval_pct(self) -> tuple[float, float] | None:
        """The retention's 95 % interval, in percent; None where images were not counted."""
        return retention_interval_pct(
            self.model_dump(include={"num_correct", "flows"}, exclude_none=True)
        )


class Corrupted(Part):
    """The accuracy on test images under one corruption."""

    made: str | None = None
    severity: int | None = None
    num_images: int | None = None
    accuracy_pct: Number = None
    wilson_pct: list[Number] | None = None
    notes: list[str] = Field(default_factory=list)
    """What was passed over or left out of a shipped split, and what is doubtful."""


class StoredEstimate(_Facts):
    """Retention without labels: the estimate in percent, or why it is withheld."""

    sentence: str = ""
    retention_pct: Number = None
    low_90_pct: Number = None
    high_90_pct: Number = None
    num_images: int | None = None
    """Of the pool, that were read."""
    withheld: str = ""
    doubts: list[str] = Field(default_factory=list)
    imprecise: str = ""


class Point(Part):
    """A run at one epoch."""

    epoch: _Count
    step: _Count | None = None
    val_accuracy_pct: Number = None
    reading: StoredReading
    drift: StoredDrift
    subsets: list[dict[str, Number]] = Field(default_factory=list)
    transfer: dict[str, TransferScore] = Field(default_factory=dict)
    retrieval: dict[str, dict[str, Any]] = Field(default_factory=dict)
    estimate: StoredEstimate | None = None
    test_accuracy_pct: Number = None
    test_num_images: int | None = None
    test_wilson_pct: list[Number] | None = None
    robustness: dict[str, Corrupted] = Field(default_factory=dict)


class Pretrained(Part):
    """The pretrained model on the same images."""

    reading: StoredReading
    transfer: dict[str, TransferScore] = Field(default_factory=dict)
    retrieval: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """How many layers and heads its reading has."""
        return self.reading.shape


class ProbeSubset(Part):
    """Images of the probe set whose signals are recorded apart."""

    hash: str
    indices: list[int]


class Splits(_Facts):
    """Which images were for what; an imported run's are not told."""

    num_images: dict[str, int] = Field(default_factory=dict)
    num_given: int | None = None
    """Images of the training split, before any was set aside; None in older records."""
    hashes: dict[str, str] = Field(default_factory=dict)
    probe_of: str | None = None
    probe_subsets: list[ProbeSubset] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class StoredPrompts(Part):
    """What a transfer set's class prompts are made of."""

    split: str | None = None
    templates: list[str] = Field(default_factory=list)
    class_words: dict[str, str] = Field(default_factory=dict)
    unknown_words: list[str] = Field(default_factory=list)


class Parameters(Part):
    """How many parameters there are."""

    trainable: _Count
    total: _Count


class WallSeconds(_Facts):
    """What a run took over all its processes; `training` is missing in imported records."""

    total: Annotated[float, _ranged("wall_seconds")]
    training: Annotated[float, _ranged("wall_seconds")] | None = None


class Environment(_Facts):
    """Where a run was made: versions, machine, commit, fingerprints of data and splits."""

    versions: dict[str, str] = Field(default_factory=dict)
    device: str | None = None
    threads: int | None = None
    platform: str | None = None
    git_commit: str | None = None
    data_fingerprints: dict[str, str] = Field(default_factory=dict)
    split_hashes: dict[str, str] = Field(default_factory=dict)


class SharedImages(Part):
    """Equal images within a split, or (`sides/of`) across two."""

    num_pairs: int = 0


class StoredRescue(Part):
    """What a way of a rescue kept at a budget, or an end (`driftscope.rescuing.budgets.Kept`)."""

    way: str
    budget_pct: Number = None
    scale: float
    estimated_retention_pct: Number = None
    low_90_pct: Number = None
    retention_pct: Number = None
    refitted_accuracy_pct: float
    kept_head_accuracy_pct: Number = None
    test_num_images: int
    judging_num_images: int | None = None
    cpu_seconds: float


def _refuse_doubles(names: Iterable[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{shown(twice)} is there twice")


class RescuedFrom(Part):
    """What a rescued model was made of, at which budget, on what (`rescue.json`)."""

    pretrained: str
    adapted: str
    keep_pct: float
    images: str | None = None
    pool: str | None = None
    classes: str | None = None
    class_names: tuple[str, ...] = ()


class StoredDamage(Part):
    """What one group of weights does, in points of retention (`rescuing.attribution`)."""

    name: str
    block: int | None = None
    regained: float
    lost: float
    shapley: Number = None
    shapley_error: Number = None


class StoredAttribution(Part):
    """Where a run's damage sits, by group of weights."""

    measured_on: str
    retention_pct: float
    num_pairs: int
    groups: list[StoredDamage]

    @field_validator("groups")
    @classmethod
    def _each_group_is_there_once(cls, groups: list[StoredDamage]) -> list[StoredDamage]:
        _refuse_doubles(one.name for one in groups)
        return groups


class RunResult(Part):
    """`result.json`: all that a run found. Its existence means that the run is done."""

    version: Literal[1] = Field(SCHEMA_VERSION, alias="schema")
    run_id: str
    origin: str = "run"
    status: Literal["done", "diverged"]
    spec: dict[str, Any]
    protocol: str
    class_names: list[str] = Field(default_factory=list)
    parameters: Parameters
    pretrained: Pretrained
    prompts: dict[str, StoredPrompts] = Field(default_factory=dict)
    text_vocabulary: str | None = None
    splits: Splits | None = None
    duplicates: dict[str, SharedImages] = Field(default_factory=dict)
    selected: Point | None
    """None where the first epoch diverged; so is `last`."""
    last_values: dict[str, Any] | None = Field(alias="last")
    rescues: list[StoredRescue] = Field(default_factory=list)
    """Of each way that `post` names; none where the encoder does not move."""
    notes: list[str] = Field(default_factory=list)
    """What is to be said of the training itself."""
    attribution: StoredAttribution | None = None
    """Where `post` names `where`, and the encoder moved."""
    environment: Environment = Field(default_factory=Environment)
    wall_seconds: WallSeconds
    files: dict[str, str] = Field(default_factory=dict)
    """The digests of the run's other files as they were when the result was written."""

    @field_validator("rescues")
    @classmethod
    def _rescues_have_both_ends(cls, rows: list[StoredRescue]) -> list[StoredRescue]:
        """Each way is there once a budget; an end is a way without one."""
        _refuse_doubles(
            one.way if one.budget_pct is None else f"{one.way} at {one.budget_pct} %"
            for one in rows
        )
        ends = {one.way for one in rows if one.budget_pct is None}
        if rows and ends != {"pretrained", "adapted"}:
            raise ValueError("the rows without a budget are not those of pretrained and adapted")
        return rows

    @property
    def texts(self) -> str | None:
        """The texts of text-space drift, in words; of a run of 0.1 that they were others.

        None where nothing says it, as of an imported run.
        """
        has_own = self.origin == "run" and self.text_vocabulary is None
        return OLD_TEXTS if has_own else self.text_vocabulary

    @model_validator(mode="after")
    def _readings_have_one_shape(self) -> Self:
        if self.selected is not None and self.selected.reading.shape != self.pretrained.shape:
            raise ValueError("the adapted model is read in other layers or heads than before")
        return self

    @cached_property
    def last(self) -> Point | None:
        """The run at its last epoch, read when it is first asked for: few ask.

        Raises:
            RecordError: it is damaged.
        """
        if self.last_values is None:
            return None
        last = parse(Point, self.last_values, f"the last epoch of run {self.run_id}")
        if last.reading.shape != self.pretrained.shape:
            raise RecordError(
                f"the last epoch of run {self.run_id} is damaged: it is read in other layers or "
                "heads than the pretrained model"
            )
        return last

    def __getitem__(self, name: str) -> Any:
        """A part as JSON values, as `RunRecord.result` gave it before 0.2."""
        renamed(f"result[{name!r}]", f"result.{name}")
        return self.model_dump(by_alias=True)[name]


class CellMean(_Facts):
    """An imported cell mean: a row of the runs table without a seed."""

    run_id: str
    dataset: str
    method: str
    learning_rate: float
    num_runs: int


class CellMeans(Part):
    """`cells.json`: the cell means of a folder of imported records."""

    cells: list[CellMean]


M = TypeVar("M", bound=Part)


def parse(model: type[M], values: Mapping[str, Any], where: Path | str) -> M:
    """What a file holds, as its model.

    Raises:
        RecordError: it does not hold what the model needs; names the file and the field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecordError(f"{where} {_damage(error)}") from None


def _damage(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    kind, given, field = problem["type"], problem["input"], ".".join(map(str, problem["loc"]))
    if field == "schema":
        return f"has schema {shown(given)}; this driftscope reads {SCHEMA_VERSION}"
    if kind == "missing":
        return f"is damaged: it has no {field}"
    if kind == "value_error":
        return f"is damaged: in {field}, {problem['msg'].removeprefix('Value error, ')}"
    named = {"model_type": "an object", "dict_type": "an object", "list_type": "a list"}
    wanted = named.get(kind) or problem["msg"].removeprefix("Input should be ")
    return f"is damaged: {field} is {shown(given)}, not {wanted}"


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold; true and false are none."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE


def refuse_impossible(name: str, value: Any) -> None:
    """Raises `ValueError` where a metric's number, or one in its lists, is outside its range."""
    found = _ranges().get(name)
    if found is None:
        return
    low, high, one = found
    number = _outside(value, low, high)
    if number is not None:
        unit = f" {one.unit}" if one.unit else ""
        raise ValueError(
            f"{name} is {number:g}{unit}, which is not possible (it is {one.range_text}{unit})"
        )


def _outside(value: Any, low: float, high: float) -> Number:
    """The first number, of nested lists too, that is not within the ends; None without one."""
    if isinstance(value, list):
        for part in value:
            is_within = isinstance(part, float) and low <= part <= high
            if not is_within and (found := _outside(part, low, high)) is not None:
                return found
        return None
    return value if is_number(value) and not low <= value <= high else None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return value is None or is_number(value)


def _mean(value: Any) -> Number:
    """A number, or the mean of nested lists of equal lengths; None where a part is unknown."""
    if not isinstance(value, list):
        return value if is_number(value) else None
    parts = [part for part in map(_mean, value) if part is not None]
    return sum(parts) / len(parts) if parts and len(parts) == len(value) else None


_ROUNDING = 1e-4
"""What single precision may add to a number at the end of its range."""


@cache
def _ranges() -> Mapping[str, tuple[float, float, Metric]]:
    """The least and the greatest value of every metric that has one, by its names in files."""
    found: dict[str, tuple[float, float, Metric]] = {}
    for one in METRICS.values():
        if one.range_text:
            low, high = (-inf if one.bounds[0] is None else one.bounds[0],
                         inf if one.bounds[1] is None else one.bounds[1])  # fmt: skip
            widened = (low - _ROUNDING * max(1, abs(low)), high + _ROUNDING * max(1, abs(high)))
            for name in (one.key, one.field, one.layer_field):
                found.setdefault(name, (*widened, one))
    return found


@cache
def _ranged_fields(part: type[Part]) -> tuple[str, ...]:
    """The fields of a part that are a metric with a range."""
    return tuple(name for name in part.model_fields if name in _ranges())


@cache
def _read_by_layer() -> tuple[Metric, ...]:
    return tuple(levels("layer"))


@cache
def _changed_by_layer() -> tuple[str, ...]:
    return tuple(one.layer_field for one in drifts("layer") if one.layer_field != one.key)


@cache
def _declared() -> frozenset[str]:
    """The names under which declared metrics lie in readings and drifts."""
    return frozenset(
        name for one in (*levels(), *drifts()) for name in (one.key, one.field, one.layer_field)
    )
