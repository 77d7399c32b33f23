"""Methods and regularizers as a spec names them: one frozen variant each, chosen by `kind`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from driftscope.errors import shown

_LARGEST: Final = 2**63 - 1
_MOST_RANKS: Final = 4_096
"""No layer of an encoder that we know is wider by much, and matrices of this rank are made."""


class Frozen(BaseModel):
    """Fields that cannot change, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise ValueError(f"{name} is {shown(value)}; whole numbers end at {_LARGEST:,}")
            if name in cls.model_fields and _takes_numbers_alone(cls.model_fields[name].annotation):
                held = value if isinstance(value, list | tuple) else [value]
                if wrong := [one for one in held if isinstance(one, bool)]:
                    raise ValueError(f"{name} is {wrong[0]}, which is no number")
        return values


def _takes_numbers_alone(annotation: Any) -> bool:
    """Whether a field's values are numbers, to which pydantic turns yes and no: 1 and 0."""
    kinds = get_args(annotation)
    if not kinds:
        return annotation in (int, float)
    return any(map(_takes_numbers_alone, kinds)) and bool not in kinds


class _Labelled(Frozen):
    """A variant with a name that tells it from every other one."""

    def _other_options(self, *shown: str) -> list[str]:
        """What differs from its default and is not `shown` by the name in a form of its own."""
        changed = self.model_dump(exclude_defaults=True, exclude={"kind", *shown})
        return [f"{name}{_short(value)}" for name, value in changed.items()]


Option: TypeAlias = bool | int | float | str | None
"""What an option of a tuner's configuration may be."""


def as_pairs(value: object) -> object:
    """A mapping as pairs by its keys; anything else as it is, to be refused in words."""
    if isinstance(value, dict):  # keys of other types, too, are refused in words, not by sorting
        return tuple(sorted(value.items(), key=lambda pair: str(pair[0])))
    return value


def _short(value: Option) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Method(_Labelled):
    """What every method can choose: how the classifier starts.

    `head: zero_shot` starts it from the text embeddings of the class prompts.
    """

    head: Literal["random", "zero_shot"] = "random"

    @property
    def label(self) -> str:
        """The name tables and figures show: the kind, and what differs from its default form."""
        return "_".join([*self._label_parts(), *(["zs_head"] if self.head == "zero_shot" else [])])

    def _label_parts(self) -> list[str]:
        return [str(type(self).model_fields["kind"].default), *self._other_options("head")]


class FullFineTuning(_Method):
    """All image-branch parameters that inference uses, and a linear classifier."""

    kind: Literal["full_ft"] = "full_ft"


class FreezeFirst(_Method):
    """Full fine-tuning but for the embeddings and the first `blocks` blocks."""

    kind: Literal["freeze_first"] = "freeze_first"
    blocks: int = Field(ge=1)

    def _label_parts(self) -> list[str]:
        return [f"freeze_first{self.blocks}"]


class LastBlock(_Method):
    """The last block, the layer norm after it and the classifier."""

    kind: Literal["last_block"] = "last_block"


class LinearProbe(_Method):
    """The classifier alone, on features that are computed once."""

    kind: Literal["linear_probe"] = "linear_probe"


class LpFt(_Method):
    """A linear probe, then full fine-tuning from its head (Kumar et al. 2022)."""

    kind: Literal["lp_ft"] = "lp_ft"
    probe_epochs: int = Field(10, ge=1)
    probe_learning_rate: float = Field(1e-3, gt=0)


class BitFit(_Method):
    """The image tower's biases and the classifier (Zaken et al. 2022)."""

    kind: Literal["bitfit"] = "bitfit"


class LayerNormTuning(_Method):
    """The image tower's layer norms and the classifier."""

    kind: Literal["layer_norm"] = "layer_norm"


class Flyp(Frozen):
    """Both towers, by the contrastive loss with class prompts as captions (Goyal et al. 2023).

    There is no classifier: the class prompts' embeddings by the text tower in training are it.
    """

    kind: Literal["flyp"] = "flyp"

    @property
    def label(self) -> str:
        """The name tables and figures show."""
        return "flyp"


LinearLayer: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
ATTENTION_IN: tuple[LinearLayer, ...] = ("q_proj", "v_proj")


class _Adapter(_Method):
    """Adapters on linear layers of the image tower's blocks, with the visual projection or not."""

    targets: tuple[LinearLayer, ...] = Field(ATTENTION_IN, min_length=1)
    train_projection: bool = True

    @field_validator("targets")
    @classmethod
    def _targets_are_distinct(cls, targets: tuple[LinearLayer, ...]) -> tuple[LinearLayer, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError("each layer may be named once")
        return targets

    def _label_parts(self) -> list[str]:
        parts = [self._size_label()]
        if self.targets != type(self).model_fields["targets"].default:
            parts.append("-".join(target.removesuffix("_proj") for target in self.targets))
        if not self.train_projection:
            parts.append("frozen_proj")
        return [*parts, *self._other_options("head", "targets", "train_projection", "rank")]

    def _size_label(self) -> str:
        return str(type(self).model_fields["kind"].default)


class _LowRank(_Adapter):
    rank: int = Field(8, ge=1, le=_MOST_RANKS)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)

    def _size_label(self) -> str:
        return f"{super()._size_label()}_r{self.rank}"


class Lora(_LowRank):
    """Low-rank adapters on the image tower's self-attention (Hu et al. 2022; paper 4.2)."""

    kind: Literal["lora"] = "lora"


class Dora(_LowRank):
    """LoRA with the magnitude of each weight row learned apart (Liu et al. 2024)."""

    kind: Literal["dora"] = "dora"


class RsLora(_LowRank):
    """LoRA scaled by α/√r instead of α/r (Kalajdzievski 2023)."""

    kind: Literal["rslora"] = "rslora"


class Ia3(_Adapter):
    """Learned scales of keys, values and MLP activations (Liu et al. 2022)."""

    kind: Literal["ia3"] = "ia3"
    targets: tuple[LinearLayer, ...] = Field(("k_proj", "v_proj", "fc2"), min_length=1)


class Vera(_Adapter):
    """Learned scales of fixed random low-rank matrices shared by all layers (Kopiczko et al. 2024).

    As in the published code, the shared matrices come from a fixed key, not from the run's seed.
    """

    kind: Literal["vera"] = "vera"
    rank: int = Field(256, ge=1, le=_MOST_RANKS)
    dropout: float = Field(0.0, ge=0, lt=1)

    def _size_label(self) -> str:
        return f"vera_r{self.rank}"


class Peft(_Adapter):
    """Any tuner of the installed peft that fits linear layers, by its type and options.

    `type` is peft's name, such as `OFT`, `BOFT`, `LOKR`, `HRA` or `OSF`; `options` are those of its
    configuration. What is adapted (`targets`, `train_projection`) driftscope says.
    """

    kind: Literal["peft"] = "peft"
    type: str = Field(min_length=1)
    options: tuple[tuple[str, Option], ...] = ()

    @field_validator("type")
    @classmethod
    def _types_are_written_large(cls, name: str) -> str:
        return name.upper()

    @field_validator(
        "options",
        mode="before",
        json_schema_input_type=dict[str, Option] | tuple[tuple[str, Option], ...],
    )
    @classmethod
    def _options_may_be_a_mapping(cls, value: object) -> object:
        if not isinstance(value, (dict, list, tuple)):
            raise ValueError("it should map the names of options to values, as {r: 16}")
        return as_pairs(value)

    def _size_label(self) -> str:
        options = (f"{name}{_short(value)}" for name, value in self.options)
        return "_".join([self.type.lower(), *options])

    def _other_options(self, *shown: str) -> list[str]:
        return super()._other_options(*shown, "type", "options")


MethodSpec: TypeAlias = Annotated[
    FullFineTuning
    | FreezeFirst
    | LastBlock
    | LinearProbe
    | LpFt
    | BitFit
    | LayerNormTuning
    | Flyp
    | Lora
    | Dora
    | RsLora
    | Ia3
    | Vera
    | Peft,
    Field(discriminator="kind"),
]


class _Regularizer(_Labelled):
    """A penalty added to the loss, `weight` (λ) times its value."""

    weight: float = Field(gt=0)

    @property
    def label(self) -> str:
        """The name tables and figures show, such as `apr_0.1`."""
        kind = str(type(self).model_fields["kind"].default)
        return "_".join([kind, f"{self.weight:g}", *self._other_options("weight")])


class AttentionPreservation(_Regularizer):
    """APR: mean over layers of KL(current ‖ pretrained) of CLS-to-patch attention."""

    kind: Literal["apr"] = "apr"


class EntropyFloor(_Regularizer):
    """Mean over layers of relu(ρ·H₀ − H), H₀ the layer's pretrained CLS attention entropy."""

    kind: Literal["entropy_floor"] = "entropy_floor"
    rho: float = Field(0.7, gt=0)


class EntropyShift(_Regularizer):
    """Mean over layers of (H/H₀ − 1 − target)², H₀ the layer's pretrained CLS attention entropy.

    It pushes attention to `target_pct` percent more entropy than it had, or less where negative.
    """

    kind: Literal["entropy_shift"] = "entropy_shift"
    target_pct: float = Field(gt=-100)


class L2Sp(_Regularizer):
    """Squared L2 distance of the encoder's weights from the pretrained (Li et al. 2018)."""

    kind: Literal["l2_sp"] = "l2_sp"


class FeatureDistance(_Regularizer):
    """Squared L2 distance of image embeddings from the pretrained.

    LDIFS (Mukhoti et al. 2023) on the last layer alone; it joins the features of several layers.
    """

    kind: Literal["feature_distance"] = "feature_distance"


class RandomTextDistillation(_Regularizer):
    """Squared change of the logits for random texts (Lipsum-FT, Nam et al. 2024)."""

    kind: Literal["random_text"] = "random_text"
    num_texts: int = Field(80, ge=1)
    text_length: int = Field(8, ge=1)


RegularizerSpec: TypeAlias = Annotated[
    AttentionPreservation
    | EntropyFloor
    | EntropyShift
    | L2Sp
    | FeatureDistance
    | RandomTextDistillation,
    Field(discriminator="kind"),
]


Way: TypeAlias = Literal["search", "lines", "wise", "layers"]
"""How the strengths of a rescue come about (`driftscope.rescuing`)."""

PostStep: TypeAlias = Literal[Way, "where"]
"""What is measured after a training: what a way of a rescue keeps, or where the damage sits."""


LEAST_SEARCHED = 30
"""So many images of a pool a search needs that do not judge."""


class BudgetSpec(Frozen):
    """Least retention that a training keeps, in percent, as its pool of unlabeled images tells it.

    Training starts with a classifier that is fitted to the pretrained embeddings. `every` says how
    often it looks: at each epoch's end, or also every so many steps. By `project` a model that has
    fallen below goes back towards the pretrained one, and the classifier with it, until the lower
    end of the estimate's 90 % interval keeps the budget; by `rate` the learning rate falls so far
    that the forecast of the end keeps it; `both` does both. What goes back does so by one share,
    or, with `strengths: searched`, each row by its own, as a rescue's search finds them. At the
    `end` alone it looks after the last step. `images` of the pool are looked at.
    """

    retention_pct: float = Field(ge=1, lt=100)
    every: Literal["epoch", "end"] | Annotated[int, Field(ge=1)] = "epoch"
    by: Literal["project", "rate", "both"] = "project"
    strengths: Literal["uniform", "searched"] = "uniform"
    images: int = Field(150, ge=30)

    @field_validator("retention_pct", mode="before")
    @classmethod
    def _it_is_in_percent(cls, value: object) -> object:
        if isinstance(value, float) and 0 < value < 1:
            raise ValueError(f"it is in percent: for {100 * value:g} % write {100 * value:g}")
        return value

    @model_validator(mode="after")
    def _rates_neither_wait_nor_are_searched(self) -> Self:
        if self.by != "project" and self.every == "end":
            raise ValueError(
                f"by: {self.by} lets the rate of later steps fall, and after the end there are "
                "none; set every to epoch or to a number of steps"
            )
        if self.by == "rate" and self.strengths == "searched":
            raise ValueError("by: rate takes nothing back, so there are no strengths to search")
        return self

    @property
    def label(self) -> str:
        """The name tables and figures show, such as `budget_90`."""
        parts = ["budget", f"{self.retention_pct:g}"]
        parts += [] if self.by == "project" else [self.by]
        parts += [] if self.strengths == "uniform" else [self.strengths]
        parts += {"epoch": [], "end": ["end"]}.get(str(self.every), [f"every{self.every}"])
        return "_".join(parts)
