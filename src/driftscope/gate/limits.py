"""What can be limited: the one table that the command's options and the verdicts come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from driftscope.errors import ConfigError


@dataclass(frozen=True)
class Gated:
    """A number that can be limited.

    Attributes:
        scalar: its name in records and reports.
        bound: whether the limit is the least or the most it may be.
        title: its name in the option and in the table.
        unit: of the number and its limit; "" for none.
        meaning: for the command's help.
        sensible: where a limit can lie; one outside was meant in another unit.
        of_transfer_set: whether each transfer set has its own.
        magnitude: whether its sign is left aside.
    """

    scalar: str
    bound: Literal["min", "max"]
    title: str
    unit: str
    meaning: str
    sensible: tuple[float, float]
    of_transfer_set: bool = False
    magnitude: bool = False

    @property
    def parameter(self) -> str:
        """The option's name as Python writes it, such as `max_embedding_drift`."""
        return f"{self.bound}_{self.title}".replace(" ", "_").replace("-", "_").lower()

    @property
    def option(self) -> str:
        """The option as it is typed, such as `--max-embedding-drift`."""
        return "--" + self.parameter.replace("_", "-")

    def keeps(self, value: float, limit: float) -> bool:
        """Whether a value is within the limit, which is itself within; NaN is not."""
        measured = abs(value) if self.magnitude else value
        return measured >= limit if self.bound == "min" else measured <= limit


_SHARE = (1.0, 1000.0)
_ACCURACY = (1.0, 100.0)
_CHANGE = (0.0, 1000.0)
GATED = (
    Gated("retention_pct", "min", "retention", "%",
          "share of the zero-shot accuracy that is left", _SHARE, of_transfer_set=True),
    Gated("zero_shot_pct", "min", "zero-shot", "%",
          "zero-shot accuracy", _ACCURACY, of_transfer_set=True),
    Gated("test_accuracy_pct", "min", "test accuracy", "%",
          "accuracy on the target's test images", _ACCURACY),
    Gated("val_accuracy_pct", "min", "val accuracy", "%",
          "accuracy on the target's validation images", _ACCURACY),
    Gated("embedding_drift", "max", "embedding drift", "",
          "1 − mean cosine of image embeddings", (0.0, 2.0)),
    Gated("cka", "min", "CKA", "", "similarity of activations, mean over blocks", (0.0, 1.0)),
    Gated("cka_debiased", "min", "CKA-debiased", "", "the same, not inflated by few images",
          (-1.0, 1.0)),
    Gated("weight_drift", "max", "weight drift", "", "‖ΔW‖/‖W₀‖ of the encoder", (0.0, 10.0)),
    Gated("text_kl_nats", "max", "text KL", "nats",
          "drift of the zero-shot distribution over the vocabulary", (0.0, 100.0)),
    Gated("text_top1_agreement_pct", "min", "text agreement", "%",
          "images whose nearest text stays the same", (1.0, 100.0)),
    Gated("random_text_logit_change", "max", "logit change", "logits",
          "mean |change| of logits for random texts", (0.0, 100.0)),
    Gated("delta_entropy_pct", "max", "entropy change", "%",
          "|change| of attention entropy: where, not damage", _CHANGE, magnitude=True),
    Gated("delta_late_entropy_pct", "max", "late-entropy change", "%",
          "the same, in the last third of the layers", _CHANGE, magnitude=True),
    Gated("delta_erf95_pct", "max", "erf95 change", "%",
          "|change| of erf@0.95", _CHANGE, magnitude=True),
    Gated("delta_gini_pct", "max", "gini change", "%",
          "|change| of attention gini", _CHANGE, magnitude=True),
    Gated("delta_head_diversity_pct", "max", "head-diversity change", "%",
          "|change| of head diversity", _CHANGE, magnitude=True),
)  # fmt: skip
"""Everything that can be limited, in the order in which it is shown."""


def sensible_limits(scalar: str) -> tuple[float, float]:
    """Where a limit of a number can lie, by the name that records use."""
    return next(gated.sensible for gated in GATED if gated.scalar == scalar)


@dataclass(frozen=True)
class Limit:
    """What was asked: a number's least or most; `transfer` is None for every transfer set."""

    gated: Gated
    value: float
    transfer: str | None = None


def parse_limit(gated: Gated, text: str) -> Limit:
    """The limit that an option's value asks for: `90`, or for a transfer set `pets=90`.

    Raises:
        ConfigError: it is no number, or one that this number's unit makes no sense of.
    """
    transfer, equals, number = text.rpartition("=")
    if equals and not gated.of_transfer_set:
        raise ConfigError(f"{gated.option} takes a number alone, not {text!r}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        named = " or NAME=NUMBER" if gated.of_transfer_set else ""
        raise ConfigError(f"{gated.option} takes a number{named}, not {text!r}")
    least, most = gated.sensible
    if not least <= value <= most:
        unit = f" {gated.unit}" if gated.unit else ""
        raise ConfigError(
            f"{gated.option} {value:g} makes no sense: "
            f"a limit lies from {least:g} to {most:g}{unit}"
        )
    return Limit(gated, value, transfer or None)
