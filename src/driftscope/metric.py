"""A number that driftscope reports: its name, its unit, its range, and how it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

from driftscope.errors import ConfigError

Better: TypeAlias = Literal["higher", "lower"]
Place: TypeAlias = Literal["run", "epoch", "layer", "head", "class", "transfer"]
"""Where a number exists: one a run, an epoch or probe, a layer, a head, a class, a transfer set."""
Reads: TypeAlias = Literal["rows", "rollout", "maps", "blocks", "embeddings", "readings"]
"""What a signal's function is given:

- rows: a layer's attention rows [image, head, patch]; it gives [image, head] or [image]
- rollout: the rollout rows [image, patch]; it gives [image]
- maps: nothing: the pass takes it from the full attention maps under the metric's key
- blocks: what stands for the image after a block (the class token's activations, or the mean
  patch token's) [image, dim], pretrained and adapted
- embeddings: the image embeddings [image, dim], pretrained and adapted
- readings: the pretrained and the adapted `Reading`
"""
Group: TypeAlias = Literal[
    "attention",
    "representation",
    "weights",
    "text space",
    "estimate",
    "zero-shot",
    "target",
    "training",
    "size",
]


@dataclass(frozen=True)
class Metric:
    """One number that is reported.

    Attributes:
        key: its name in records, tables, reports and logs.
        label: its name in a sentence, such as "retention"; a heading starts with a capital.
        unit: "%", "nats", …; "" for none.
        decimals: how many are written, everywhere.
        better: which way is better for what the model could do before; None where neither is.
        bounds: the least and the greatest possible value; None where there is no such end.
        exists: where it exists.
        definition: what it is, in a short phrase.
        group: what it tells of.
        symbol: the formula or the scale in short, for a number without a unit.
        source: the publication or section that defines it.
        signed: whether a "+" is written.
        unchanged: its value where nothing has changed; None where that is not fixed.
        limits: where a limit on it can lie, if that is narrower than the bounds.
        limit_name: its name in a gate's option, if not derived from the key.
        attribute: its name in a `Reading`, if unlike the key.
        function: what computes it, as "module:name" or a function; "" where no signal does.
        reads: what that function is given.
        change_of: the key of the level whose percent change it is; "" for other numbers.
        is_detail: whether it is left out where the main numbers alone are shown.
        plug_in: the entry point that it comes from; "" for driftscope's own.

    Raises:
        ConfigError: a field makes no sense.
    """

    key: str
    label: str
    definition: str
    group: Group = "representation"
    unit: str = ""
    decimals: int = 3
    better: Better | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    exists: frozenset[Place] = frozenset({"run", "epoch"})
    symbol: str = ""
    source: str = ""
    signed: bool = False
    unchanged: float | None = None
    limits: tuple[float, float] | None = None
    limit_name: str = ""
    attribute: str = ""
    function: str | Callable[..., Any] = ""
    reads: Reads | None = None
    change_of: str = ""
    is_detail: bool = False
    plug_in: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.key):
            raise ConfigError(
                f"a metric's key is {self.key!r}; give lower-case letters, digits and underscores"
            )
        low, high = self.bounds
        if low is not None and high is not None and not low < high:
            raise ConfigError(
                f"the bounds of the metric {self.key} are {self.bounds}; give low < high"
            )
        if self.decimals < 0 or not self.label:
            raise ConfigError(
                f"the metric {self.key} has the label {self.label!r} and {self.decimals} decimals; "
                "give words, and 0 or more"
            )

    # ---------------------------------------------------------------- how it is written

    @property
    def heading(self) -> str:
        """The head of a column or the label of an axis, such as "Retention, %"."""
        return self._with_unit_behind(self.name)

    @property
    def name(self) -> str:
        """The heading without the unit, such as "Retention"."""
        return self.label[0].upper() + self.label[1:]

    @property
    def name_with_unit(self) -> str:
        """The label with the unit, such as "retention, %"."""
        return self._with_unit_behind(self.label)

    def _with_unit_behind(self, name: str) -> str:
        is_told = not self.unit or name.lower().endswith(self.unit)
        return name if is_told else f"{name}, {self.unit}"

    @property
    def scale(self) -> str:
        """The unit, else the formula, else "1": what JSON files give as the number's unit."""
        return self.unit or self.symbol or "1"

    def text(self, value: float | None) -> str:
        """The number with its decimals and a true minus sign; "–" where there is none.

        >>> Metric("loss", "loss", "mean loss", decimals=1).text(-1.26)
        '−1.3'
        """
        return number_text(value, self.decimals, signed=self.signed)

    def with_unit(self, value: float | None) -> str:
        """The written number and its unit.

        >>> Metric("kept_pct", "kept", "what is left", unit="%", decimals=1).with_unit(91.24)
        '91.2 %'
        """
        text = self.text(value)
        return f"{text} {self.unit}" if self.unit and text != "–" else text

    # ---------------------------------------------------------------- what it can be

    @property
    def is_count(self) -> bool:
        """Whether it is a whole number of things."""
        return self.decimals == 0 and self.unit != "s"

    def is_possible(self, value: float) -> bool:
        """Whether the number can have this value; NaN and infinities are never possible."""
        low, high = self.bounds
        is_within = (low is None or value >= low - _ROUNDING) and (
            high is None or value <= high + _ROUNDING
        )
        return math.isfinite(value) and is_within

    @property
    def limit_range(self) -> tuple[float, float]:
        """Where a limit on it can lie; one outside was meant in another unit."""
        low, high = self.bounds
        possible = (-math.inf if low is None else low, math.inf if high is None else high)
        return self.limits or ((0.0, math.inf) if self.is_change else possible)

    @property
    def range_text(self) -> str:
        """The possible values in words, such as "0 to 1"; "" where they have no end."""
        low, high = self.bounds
        if low is None and high is None:
            return ""
        if high is None:
            return f"{low:g} or more".replace("-", "−")
        if low is None:
            return f"at most {high:g}".replace("-", "−")
        return f"{low:g} to {high:g}".replace("-", "−")

    @property
    def is_change(self) -> bool:
        """Whether it is the change of a signal, of which neither sign is better."""
        return self.better is None and self.signed

    @property
    def is_signal(self) -> bool:
        """Whether it tells how a model differs from the pretrained one: a number of a `Drift`."""
        is_drift = self.group in _SIGNAL_GROUPS and self.unchanged is not None
        return is_drift and "epoch" in self.exists

    @property
    def is_level(self) -> bool:
        """Whether one model alone has it: a number of a `Reading`."""
        return self.reads in ("rows", "rollout", "maps")

    @property
    def field(self) -> str:
        """Its name in a `Reading` or a `Drift`."""
        return self.attribute or self.key

    @property
    def layer_field(self) -> str:
        """The name of its values by layer."""
        return f"{self.key}_per_{'block' if self.reads == 'blocks' else 'layer'}"

    def limited_as(self, bound: Literal["min", "max"]) -> str:
        """A limit on it as Python names it, such as `max_embedding_drift`."""
        name = re.sub("_(pct|nats|bits)$", "", self.key)
        if name.startswith("delta_"):
            name = f"{name.removeprefix('delta_')}_change"
        return f"{bound}_{self.limit_name.replace(' ', '_') or name}"

    def limit_option(self, bound: Literal["min", "max"]) -> str:
        """A limit on it as the gate's option, such as `--max-embedding-drift`."""
        return "--" + self.limited_as(bound).replace("_", "-")

    def load_function(self) -> Callable[..., Any]:
        """The function that computes it.

        Raises:
            ConfigError: it names none, or one that does not exist.
        """
        if callable(self.function):
            return self.function
        module, _, name = self.function.partition(":")
        try:
            function: Callable[..., Any] = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"the metric {self.key} is computed by {self.function!r}, which cannot be loaded "
                f"({error}); give module:function"
            ) from error
        return function


_ROUNDING = 1e-9
_SIGNAL_GROUPS = ("attention", "representation", "weights", "text space", "estimate")


def number_text(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number with a true minus sign; an en dash where there is none.

    >>> number_text(-1.25, 1, signed=True), number_text(float("nan"), 1), number_text(12345, 0)
    ('−1.2', '–', '12,345')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''}{'' if decimals else ','}.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")
