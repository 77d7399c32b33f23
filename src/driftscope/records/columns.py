"""The documented columns of a study's tables: name, type, unit, meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from driftscope.metric import Metric
from driftscope.metrics import ESTIMATED, METRICS, drifts, levels
from driftscope.protocols import ACCURACIES, protocol_of

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "integer", "number"]

DRIFT_SCALARS = tuple(one.key for one in drifts("run"))
"""The signals that are one number a run, by the names tables use."""

STRUCTURE_SCALARS = tuple(one.key for one in levels("run"))
"""What a reading says of full attention maps, where the spec asked for `maps`."""


def transfer_scalars(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Accuracy and retention of each transfer set as flat numbers.

    The first set's are `zero_shot_pct` and `retention_pct`, as in the tables; those of the others
    end in `_` and the set's name. Accuracies that are not zero-shot are `knn_pct` and
    `linear_probe_pct`.

    Args:
        changes: by set, what has `accuracy_pct` and `retention_pct` (None where undefined).
    """
    scalars: dict[str, float | None] = {}
    for name, change in changes.items():
        for key in (ACCURACIES[protocol_of(name)], "retention_pct"):
            value = change["retention_pct" if key == "retention_pct" else "accuracy_pct"]
            scalars[f"{key}_{name}" if key in scalars else key] = value
    return scalars


def retention_interval_pct(score: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of a score's retention, in percent; None where images were not counted.

    Bonett and Price's of two shares of the same images (`stats.proportions`).

    Args:
        score: an adapted zero-shot score with its `num_correct` and `flows`.
    """
    from driftscope.stats.proportions import paired_ratio_interval

    flows = score.get("flows") or {}
    if not {"num_lost", "num_gained"} <= flows.keys() or score.get("num_correct") is None:
        return None
    lost, gained = int(flows["num_lost"]), int(flows["num_gained"])
    kept = int(score["num_correct"]) - gained
    if kept < 0 or kept + lost <= 0:
        return None
    low, high = paired_ratio_interval(kept, lost, gained)
    return 100 * low, 100 * high


@dataclass(frozen=True)
class ColumnMeaning:
    """What a column holds. Integers are int64, or float64 with NaN where one is unknown.

    An optional column is left out where no row has a value.
    """

    kind: Kind
    unit: str
    meaning: str
    is_optional: bool = False


def _column(one: Metric, addition: str = "", *, is_optional: bool = False) -> ColumnMeaning:
    """The column of a metric; `addition` says where or when, as in "selected epoch"."""
    meaning = f"{one.definition}, {addition}" if addition else one.definition
    kind: Kind = "integer" if one.is_count else "number"
    unit = one.unit or one.range_text
    return ColumnMeaning(kind, unit, meaning, is_optional or bool(one.plug_in))


def _columns(*keys: str, addition: str = "") -> dict[str, ColumnMeaning]:
    return {key: _column(METRICS[key], addition) for key in keys}


def _of_pretrained(found: Mapping[str, ColumnMeaning]) -> dict[str, ColumnMeaning]:
    """The same numbers of the pretrained model, in columns that begin with `pretrained_`."""
    return {
        f"pretrained_{key}": replace(column, meaning=f"the pretrained model's {METRICS[key].label}")
        for key, column in found.items()
    }


_SELECTED = "selected epoch"

_ACCURACIES = {
    key: _column(METRICS[key], _SELECTED, is_optional=key != "zero_shot_pct")
    for key in ACCURACIES.values()
}

_KEYS = {
    "run_id": ColumnMeaning("text", "", "the run's id"),
    "dataset": ColumnMeaning("text", "", "target dataset"),
    "method": ColumnMeaning("text", "", "method with what departs from its default, as lora_r16"),
    "learning_rate": ColumnMeaning("number", "", "peak learning rate"),
    "seed": ColumnMeaning("integer", "", "training seed"),
}

_OF_RUNS = {one.key: _column(one) for one in drifts("run")}

_INTERVAL = {end: _column(METRICS[end], is_optional=True) for end in ("low_90_pct", "high_90_pct")}
"""Of the estimate."""

RUN_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "model": ColumnMeaning("text", "", "pretrained model as the spec names it"),
    "method_kind": ColumnMeaning("text", "", "the method's kind alone"),
    "regularizer": ColumnMeaning("text", "", "penalties, budget and interventions, or none"),
    "budget_pct": ColumnMeaning(
        "number", "%", "retention that the training had to keep", is_optional=True
    ),
    "data_seed": ColumnMeaning("integer", "", "seed of the splits"),
    "protocol": ColumnMeaning("text", "", "leakfree or paper"),
    "epochs": ColumnMeaning("integer", "epochs", "epochs asked for"),
    "batch_size": ColumnMeaning("integer", "images", "images per optimizer step"),
    "weight_decay": ColumnMeaning("number", "", "AdamW's weight decay"),
    "options": ColumnMeaning("text", "", "all else that differs from the defaults, or default"),
    "status": ColumnMeaning("text", "", "done or diverged"),
    "origin": ColumnMeaning("text", "", "run, or import:FILE"),
    "num_runs": ColumnMeaning("integer", "runs", "1; of an imported cell mean, its runs"),
    "selected_epoch": ColumnMeaning(
        "integer",
        "epoch",
        "epoch of best validation accuracy; of a budget looked after at the end, the last",
    ),
    **_columns("train_loss", addition="last epoch"),
    **_columns("val_accuracy_pct", "test_accuracy_pct", addition=_SELECTED),
    "test_num_images": ColumnMeaning("integer", "images", "images of the test accuracy"),
    "transfer": ColumnMeaning("text", "", "name of the main transfer set"),
    **_of_pretrained(_ACCURACIES),
    **_ACCURACIES,
    "zero_shot_num_images": ColumnMeaning("integer", "images", "images of the zero-shot accuracy"),
    **_columns("retention_pct"),
    **_columns("above_chance_pct", "chance_pct", "ece_pct", "pretrained_ece_pct"),
    "doubts": ColumnMeaning("text", "", "what makes the zero-shot numbers doubtful"),
    **{end: _column(METRICS[end], _SELECTED, is_optional=True) for end in _INTERVAL},
    "text_vocabulary": ColumnMeaning("text", "", "the texts of the history's text-space drift"),
    **_OF_RUNS,
    **_columns(ESTIMATED, addition=_SELECTED),
    **_columns(*STRUCTURE_SCALARS),
    **_of_pretrained(_columns(*STRUCTURE_SCALARS)),
    **_columns("trainable_parameters", "total_parameters", "wall_seconds"),
}

HISTORY_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "kind": ColumnMeaning("text", "", "epoch (its end), or probe (within it)"),
    "epoch": ColumnMeaning("integer", "epoch", "epochs finished; of a probe, the one under way"),
    "step": ColumnMeaning("integer", "step", "optimizer steps done"),
    **_columns("train_loss", "train_accuracy_pct", "penalty", "val_accuracy_pct"),
    **_columns("budget_strength", "rate_factor"),
    **_OF_RUNS,
    **{one.key: _column(one) for one in drifts("epoch")},
    **_INTERVAL,
    "num_images": ColumnMeaning("integer", "images", "probe images of the signals"),
    **_columns("zero_shot_pct", "retention_pct", addition="main transfer set"),
}
"""Further transfer sets add `zero_shot_pct_NAME` and `retention_pct_NAME` (`transfer_scalars`)."""

_ALWAYS_BY_LAYER = ("entropy_nats", "delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct")
"""Columns of layers that are there in any case, beside CKA."""

LAYER_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "layer": ColumnMeaning("integer", "", "layer, 1…L"),
    **_columns(*_ALWAYS_BY_LAYER, "cka", "cka_debiased"),
    **{
        one.key: _column(one, is_optional=True)
        for one in (*levels("layer"), *drifts("layer"))
        if one.key not in (*_ALWAYS_BY_LAYER, "cka", "cka_debiased")
    },
}

_BY_HEAD = {one.key: _column(one, is_optional=one.reads == "maps") for one in levels("head")}

HEAD_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "layer": ColumnMeaning("integer", "", "layer, 1…L"),
    "head": ColumnMeaning("integer", "", "head, 1…; NaN where only the mean over heads is known"),
    **_BY_HEAD,
    **_of_pretrained(_BY_HEAD),
    **_columns("cka", "cka_debiased"),
}

CLASS_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "class": ColumnMeaning("text", "", "class of the main transfer set"),
    "num_images": ColumnMeaning("integer", "images", "images of the class"),
    **_columns("pretrained_pct"),
    **_columns("adapted_pct", addition=_SELECTED),
    **_columns("retention_pct"),
}

RESCUE_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "way": ColumnMeaning("text", "", "search, lines, wise or layers; or pretrained, adapted"),
    "budget_pct": ColumnMeaning(
        "number", "%", "asked of the lower end of the estimate's 90 % interval; NaN of both ends"
    ),
    "scale": ColumnMeaning(
        "number", "0 to 1", "where on the way, from the pretrained model; 1 is its end"
    ),
    **_columns("estimated_retention_pct", "low_90_pct"),
    **_columns("retention_pct", addition="main transfer set"),
    **_columns("refitted_accuracy_pct", "kept_head_accuracy_pct"),
    "test_num_images": ColumnMeaning("integer", "images", "images of these accuracies"),
    "judging_num_images": ColumnMeaning("integer", "images", "of the pool, that judge the budget"),
    **_columns("cpu_seconds"),
}

_POINTS = "points"
"""Of retention."""

DAMAGE_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "group": ColumnMeaning("text", "", "group of weights, such as a block's attention"),
    "block": ColumnMeaning("integer", "", "block, 1…L; NaN of a group outside of blocks"),
    "regained_points": ColumnMeaning(
        "number", _POINTS, "retention regained when the group alone goes back to W₀"
    ),
    "lost_points": ColumnMeaning("number", _POINTS, "retention lost when the group alone is tuned"),
    "shapley_points": ColumnMeaning(
        "number", _POINTS, "Shapley value: its part of the whole loss of retention"
    ),
    "shapley_error_points": ColumnMeaning(
        "number", _POINTS, "standard error of that, over pairs of orders"
    ),
}

TABLES = {
    "runs": RUN_COLUMNS,
    "history": HISTORY_COLUMNS,
    "layers": HEAD_COLUMNS,
    "classes": CLASS_COLUMNS,
    "rescues": RESCUE_COLUMNS,
    "damage": DAMAGE_COLUMNS,
}
"""What a study reads as and exports."""


def typed(frame: pd.DataFrame, columns: dict[str, ColumnMeaning]) -> pd.DataFrame:
    """The frame with these columns first and of these types; missing ones are all unknown.

    Optional columns without a value are left out.
    """
    import numpy as np

    empty = [
        name
        for name, column in columns.items()
        if column.is_optional and len(frame) and (name not in frame or frame[name].isna().all())
    ]
    columns = {name: column for name, column in columns.items() if name not in empty}
    frame = frame.drop(columns=empty, errors="ignore")
    others = [name for name in frame.columns if name not in columns]
    frame = frame.reindex(columns=[*columns, *others])
    for name, column in columns.items():
        if column.kind == "text":
            frame[name] = frame[name].astype("str").where(frame[name].notna())
            continue
        numbers = frame[name].astype(np.float64)
        whole = column.kind == "integer" and bool((numbers.abs() < 2**63).all())
        frame[name] = frame[name].astype(np.int64) if whole else numbers
    return frame
