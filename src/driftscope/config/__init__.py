"""What a run is, declared: frozen pydantic models, read from YAML, with a stable id.

A `RunSpec` says everything that decides a run's numbers and nothing about the machine.
Its id is a hash of what differs from the defaults, so an option that driftscope learns
later does not rename the runs of today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, ValidationError, WithJsonSchema, field_validator, model_validator

from driftscope.config.explain import (
    BARE_METHODS,
    INTERVENTION_KINDS,
    METHOD_KINDS,
    REGULARIZER_KINDS,
    PlacedError,
    explain,
)
from driftscope.config.interventions import InterventionSpec, MaxNorm, in_one_order
from driftscope.config.options_text import options_text
from driftscope.config.source import Source, Where, read_yaml
from driftscope.config.study import StudySpec, load_study_spec
from driftscope.config.variants import (
    LEAST_SEARCHED,
    BudgetSpec,
    Flyp,
    Frozen,
    FullFineTuning,
    Lora,
    MethodSpec,
    PostStep,
    RegularizerSpec,
    RsLora,
    Way,
    as_pairs,
)
from driftscope.errors import ConfigError
from driftscope.files import named_path
from driftscope.suites import expanded

__all__ = [
    "INTERVENTION_KINDS",
    "LEAST_SEARCHED",
    "METHOD_KINDS",
    "REGULARIZER_KINDS",
    "BudgetSpec",
    "FullFineTuning",
    "MethodSpec",
    "RegularizerSpec",
    "RunSpec",
    "StudySpec",
    "Way",
    "budget_spec",
    "canonical_spec",
    "load_run_spec",
    "load_study_spec",
    "parse_run_spec",
    "run_id",
]

SPEC_VERSION = 1
"""Raised when a default changes its meaning; part of every run id."""
BUDGET_VERSION = 2
"""The same of a budget, in the ids of its runs; 2 fits the classifier first and shrinks it, too."""
SEARCH_VERSION = 3
"""The same of a search for strengths, after a run or in its budget; 2 starts at WiSE-FT's strength
and learns labels, 3 sees mixed and shifted views and prices what is lost by the budget."""
RESCUE_VERSION = 2
"""The same of a search after a run; 2 looks at some of a large pool for its start."""


IN_COLUMNS = (
    "model",
    "dataset",
    "method",
    "learning_rate",
    "seed",
    "data_seed",
    "protocol",
    "epochs",
    "batch_size",
    "weight_decay",
    "regularizers",
    "budget",
    "interventions",
    "transfer",
    "post",
)
"""What tells runs apart in a table by a column or label of its own, or is no part of a training."""

Protocol: TypeAlias = Literal["leakfree", "paper"]
_BareMethod: TypeAlias = Annotated[str, WithJsonSchema({"enum": list(BARE_METHODS)})]
Step: TypeAlias = Annotated[int, Field(ge=1)]
Corruption: TypeAlias = Literal[
    "contrast",
    "gaussian_noise",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "spatter",
]
ProbeAt: TypeAlias = Literal["epoch", "log"] | Step | tuple[Step, ...]


class RunSpec(Frozen):
    """One adaptation: what is adapted, how, on which data, from which seed.

    Counts of images are upper limits; `None` takes all there are. `seed` decides the
    training (head, adapter, order, flips, dropout), `data_seed` the splits. `batch_size` images
    make an optimizer step, in `micro_batches` forward passes; `compile` compiles the image tower
    for them (where a penalty reads its attention, such as `apr`, it runs uncompiled all the same).
    `probe_at` says when the model is evaluated: at every epoch's end, and besides every so many
    steps, or at the steps listed, or (`log`) after 1, 2, 4, 8, … steps; `maps` also reads rollout
    and patch-to-patch entropy, from full attention maps. `templates` (or names of sets of them) and
    `class_words` make the prompts; on the unlabeled images of `pool`, which show some of `classes`,
    retention is estimated, and training may keep a `budget` of it; after training `post` tells for
    these ways of a rescue what they keep at budgets of 90, 95 and 99 %, and by `where` which group
    of weights does the damage; `interventions` undo a part of the training, keep it still or hold
    it small; `balanced` draws validation and probe images evenly over classes;
    `transfer_by` says by what the classes of the transfer sets are told: `zero_shot`, or from the
    features alone `knn` and `linear_probe` (by default zero-shot where the model has a text tower,
    else the others); `corruptions` are applied to the test images of the target task.
    `skip_bad_images` leaves unreadable images out of every set, and says how many.
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
    maps: bool = False

    train_images: int | None = Field(None, ge=1)
    val_images: int = Field(300, ge=1)
    probe_images: int = Field(200, ge=2)
    test_images: int | None = Field(None, ge=1)
    transfer: tuple[str, ...] = ("concepts100",)
    transfer_by: tuple[Literal["zero_shot", "knn", "linear_probe"], ...] = ()
    transfer_images: int | None = Field(1000, ge=1)
    retrieval: tuple[str, ...] = ()
    pool: str | None = None
    classes: str | tuple[str, ...] | None = None
    pool_images: int | None = Field(1000, ge=1)
    budget: BudgetSpec | None = None
    interventions: tuple[InterventionSpec, ...] = ()
    post: tuple[PostStep, ...] = ()
    templates: tuple[str, ...] = ("a photo of a {}",)
    class_words: tuple[tuple[str, str], ...] = ()
    balanced: bool = True
    corruptions: tuple[Corruption, ...] = ()
    corruption_severity: int = Field(3, ge=1, le=5)
    skip_bad_images: bool = False

    @field_validator(
        "class_words",
        mode="before",
        json_schema_input_type=dict[str, str] | tuple[tuple[str, str], ...],
    )
    @classmethod
    def _class_words_may_be_a_mapping(cls, value: object) -> object:
        return as_pairs(value)

    @field_validator("transfer")
    @classmethod
    def _suites_stand_for_their_sets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return expanded(names)

    @field_validator("method", mode="before", json_schema_input_type=MethodSpec | _BareMethod)
    @classmethod
    def _method_may_be_a_bare_name(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("regularizers")
    @classmethod
    def _regularizers_have_one_order(
        cls, regularizers: tuple[RegularizerSpec, ...]
    ) -> tuple[RegularizerSpec, ...]:
        return tuple(sorted(regularizers, key=lambda regularizer: regularizer.kind))

    @field_validator("interventions")
    @classmethod
    def _interventions_have_one_order(
        cls, interventions: tuple[InterventionSpec, ...]
    ) -> tuple[InterventionSpec, ...]:
        labels = [one.label for one in interventions]
        if len(set(labels)) < len(labels):
            raise ValueError("each intervention may be named once")
        return in_one_order(interventions)

    @field_validator("post")
    @classmethod
    def _steps_have_one_order(cls, steps: tuple[PostStep, ...]) -> tuple[PostStep, ...]:
        return tuple(step for step in get_args(PostStep) if step in steps)

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways of a rescue that `post` names."""
        return tuple(way for way in get_args(Way) if way in self.post)

    @property
    def regularizer_label(self) -> str:
        """What is done to the training beside its method, such as `apr_0.1+budget_90`, or `none`.

        Its penalties, its budget, its interventions.
        """
        held = (*self.regularizers, *([self.budget] if self.budget else []), *self.interventions)
        return "+".join(one.label for one in held) or "none"

    @property
    def options_label(self) -> str:
        """All else that differs from the defaults, such as `train_images 400`, or `default`.

        All but what has a name or a column of its own: `IN_COLUMNS`. `options_in` reads it back.
        """
        return options_text(
            self.model_dump(mode="json", exclude_defaults=True, exclude=set(IN_COLUMNS))
        )

    @model_validator(mode="after")
    def _options_fit_together(self) -> RunSpec:
        kinds = [regularizer.kind for regularizer in self.regularizers]
        if len(set(kinds)) < len(kinds):
            raise PlacedError(
                "regularizers must be of different kinds; add up their weights", "regularizers"
            )
        if self.micro_batches > self.batch_size:
            raise PlacedError(
                f"micro_batches must be at most batch_size ({self.batch_size}), "
                f"it is {self.micro_batches}",
                "micro_batches",
            )
        if isinstance(self.method, Flyp) and self.micro_batches > 1:
            raise PlacedError(
                "flyp contrasts the images of a batch with each other, so micro_batches must be 1",
                "micro_batches",
            )
        of_batches = [kind for kind in kinds if kind in ("entropy_floor", "entropy_shift")]
        if of_batches and self.micro_batches > 1:
            raise ValueError(
                f"{of_batches[0]} holds for the mean of a whole batch, so micro_batches must be 1"
            )
        if any(isinstance(one, MaxNorm) for one in self.interventions) and not isinstance(
            self.method, Lora | RsLora
        ):
            raise PlacedError(
                "max_norm bounds the change (α/r)·BA of a low-rank adapter, and the method is "
                f"{self.method.kind}; use lora or rslora",
                "interventions",
            )
        if self.classes is not None and self.pool is None:
            raise PlacedError(
                "classes are of a pool of unlabeled images, and no pool is given", "classes"
            )
        if self.budget is not None and self.pool is None:
            raise PlacedError(
                "a budget needs a pool of unlabeled images on which retention is estimated; "
                "give pool, and classes where the pool has none",
                "budget",
            )
        if self.budget is not None and self.budget.strengths == "searched":
            self._a_search_has_what_it_needs(self.budget)
        if self.post and self.pool is None:
            raise PlacedError(
                "post needs a pool of unlabeled images on which retention is estimated; "
                "give pool, and classes where the pool has none",
                "post",
            )
        if isinstance(self.method, Flyp) and self.label_smoothing:
            raise PlacedError(
                "flyp trains by a contrastive loss; label_smoothing must be 0", "label_smoothing"
            )
        return self

    def _a_search_has_what_it_needs(self, budget: BudgetSpec) -> None:
        """A classifier, and images of the pool that the budget does not look at."""
        if isinstance(self.method, Flyp):
            raise PlacedError(
                "searched strengths are found with a classifier, and flyp trains class prompts; "
                "set strengths to uniform",
                "budget",
            )
        least = budget.images + LEAST_SEARCHED
        if self.pool_images is not None and self.pool_images < least:
            raise PlacedError(
                f"searched strengths need {LEAST_SEARCHED} images of the pool that the budget does "
                f"not look at, and pool_images is {self.pool_images}; set it to {least} or more, "
                f"better {budget.images + 5 * LEAST_SEARCHED}",
                "budget",
            )


def canonical_spec(spec: RunSpec) -> dict[str, Any]:
    """The spec reduced to what differs from the defaults; variants keep their kind."""
    canonical = spec.model_dump(mode="json", exclude_defaults=True)
    canonical["method"] = _with_kind(spec.method)
    if spec.regularizers:
        canonical["regularizers"] = [_with_kind(one) for one in spec.regularizers]
    if spec.interventions:
        canonical["interventions"] = [_with_kind(one) for one in spec.interventions]
    return canonical


def _with_kind(variant: MethodSpec | RegularizerSpec | InterventionSpec) -> dict[str, Any]:
    return {**variant.model_dump(mode="json", exclude_defaults=True), "kind": variant.kind}


def run_id(spec: RunSpec) -> str:
    """Twelve hexadecimal digits that name the spec; equal specs, equal ids, on every machine."""
    versions: list[int | str] = [SPEC_VERSION, *([BUDGET_VERSION] if spec.budget else [])]
    is_rescued = "search" in spec.post
    searches = is_rescued or (spec.budget and spec.budget.strengths == "searched")
    versions += [f"search {SEARCH_VERSION}"] if searches else []
    versions += [f"rescue {RESCUE_VERSION}"] if is_rescued else []
    text = json.dumps([*versions, canonical_spec(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_run_spec(values: Mapping[str, Any], where: Where | str = "the run spec") -> RunSpec:
    """Builds a `RunSpec`; raises `ConfigError` naming the place, the key and what is valid."""
    try:
        return RunSpec.model_validate(dict(values))
    except ValidationError as error:
        place = where if callable(where) else Source(where).at
        raise ConfigError(explain(error, RunSpec, place)) from None


def budget_spec(values: Mapping[str, Any]) -> BudgetSpec:
    """Builds a budget; raises `ConfigError` naming the key and what is valid."""
    try:
        return BudgetSpec.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, BudgetSpec, Source("the budget").at)) from None


def load_run_spec(path: Path | str) -> RunSpec:
    """Reads a run's YAML file."""
    values, source = read_yaml(named_path(path))
    if "axes" in values or "base" in values:
        raise ConfigError(
            f"{path} declares a study, not a run; carry it out with driftscope study run {path} "
            "--out DIR"
        )
    return parse_run_spec(values, source.at)
