"""Interventions as a spec names them: what of a training is undone, kept still or held small."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from driftscope.config.variants import Frozen, LinearLayer

What: TypeAlias = Literal["queries_keys", "values_out", "attention", "blocks"]
"""The part of each block: two pairs of projections, all four, or everything."""

PROJECTIONS: dict[What, tuple[LinearLayer, ...]] = {
    "queries_keys": ("q_proj", "k_proj"),
    "values_out": ("v_proj", "out_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
}
"""The layers of a part, by the names that adapters take; `blocks` is all of a block instead."""


class OnParts(Frozen):
    """What `what` names, in these blocks (counted from 1) or, without any, in all of them."""

    what: What
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @field_validator("blocks")
    @classmethod
    def _blocks_have_one_order(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(blocks)) < len(blocks):
            raise ValueError("each block may be named once")
        return tuple(sorted(blocks))

    @property
    def label(self) -> str:
        """The name tables and figures show, such as `restore_queries_keys`."""
        numbers = "-".join(map(str, self.blocks))
        return "_".join([*self._label_parts(), *([f"of{numbers}"] if numbers else [])])

    def _label_parts(self) -> list[str]:
        return [str(type(self).model_fields["kind"].default), self.what]

    @property
    def parts_text(self) -> str:
        """What it acts on, in words."""
        words = {
            "queries_keys": "queries and keys",
            "values_out": "values and attention outputs",
            "attention": "attention projections",
            "blocks": "all weights",
        }[self.what]
        numbers = ", ".join(map(str, self.blocks))
        return f"{words} of {f'blocks {numbers}' if numbers else 'all blocks'}"


class Reset(OnParts):
    """After an epoch or an optimizer step the parts go back to W₀, and training goes on.

    Their momentum starts anew; the scale of their gradients, AdamW's second moment, is kept.
    """

    kind: Literal["reset"] = "reset"
    epoch: int | None = Field(None, ge=1)
    step: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _there_is_one_time(self) -> Reset:
        if (self.epoch is None) == (self.step is None):
            raise ValueError("reset takes place at one time: give epoch or step, not both")
        return self

    def step_of(self, steps_per_epoch: int) -> int:
        """The optimizer step after which it takes place."""
        return self.step if self.epoch is None else self.epoch * steps_per_epoch  # type: ignore[return-value]

    def _label_parts(self) -> list[str]:
        when = f"step{self.step}" if self.epoch is None else f"epoch{self.epoch}"
        return [*super()._label_parts(), when]


class Restore(OnParts):
    """Wherever the model is looked at or kept, the parts are at W₀; training goes on without.

    A linear classifier is fitted anew to the model so restored.
    """

    kind: Literal["restore"] = "restore"


class Freeze(OnParts):
    """The parts stay at W₀ all through the training."""

    kind: Literal["freeze"] = "freeze"


class MaxNorm(Frozen):
    """After each step every low-rank change (α/r)·BA is shrunk to at most `share` · ‖W₀‖.

    Frobenius norms, layer by layer.
    """

    kind: Literal["max_norm"] = "max_norm"
    share: float = Field(gt=0)

    @property
    def label(self) -> str:
        """The name tables and figures show, such as `max_norm_0.05`."""
        return f"max_norm_{self.share:g}"


class LossAdaptiveRate(Frozen):
    """Each step's learning rate is multiplied by min(1, √(`loss_nats` / the batch's loss)).

    What a step forgets is bounded by the rate times the root of the loss (FINCH, Prashant et al.
    2026, arXiv 2605.20005). So no step forgets more than one of this loss at the full rate. This
    rule is ours, made from that bound: the schedule of that paper is not known to us.
    """

    kind: Literal["loss_adaptive_rate"] = "loss_adaptive_rate"
    loss_nats: float = Field(gt=0)

    @property
    def label(self) -> str:
        """The name tables and figures show, such as `loss_adaptive_rate_0.1`."""
        return f"loss_adaptive_rate_{self.loss_nats:g}"


InterventionSpec: TypeAlias = Annotated[
    Reset | Restore | Freeze | MaxNorm | LossAdaptiveRate, Field(discriminator="kind")
]


def in_one_order(interventions: tuple[Any, ...]) -> tuple[Any, ...]:
    """By kind and label, so that the order in which they are written names no other run."""
    return tuple(sorted(interventions, key=lambda one: (one.kind, one.label)))
