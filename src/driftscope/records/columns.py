"""The documented columns of a study's tables: name, type, unit, meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "integer", "number"]

DRIFT_SCALARS = (
    "delta_entropy_pct",
    "delta_erf95_pct",
    "delta_gini_pct",
    "delta_head_diversity_pct",
    "cka",
    "cka_debiased",
    "embedding_drift",
    "weight_drift",
)
"""The signals that are one number a reading, by the names tables use."""

STRUCTURE_SCALARS = (
    "rollout_entropy_bits",
    "rollout_erf95",
    "rollout_gini",
    "patch_to_patch_entropy_bits",
)
"""What a reading says of full attention maps, where the spec asked for `maps`."""


def transfer_scalars(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Zero-shot accuracy and retention of each transfer set as flat numbers.

    The first set's are `zero_shot_pct` and `retention_pct`, as in the tables; those of the others
    end in `_` and the set's name.

    Args:
        changes: by set, what has `accuracy_pct` and `retention_pct` (None where undefined).
    """
    scalars: dict[str, float | None] = {}
    for position, (name, change) in enumerate(changes.items()):
        suffix = f"_{name}" if position else ""
        scalars[f"zero_shot_pct{suffix}"] = change["accuracy_pct"]
        scalars[f"retention_pct{suffix}"] = change["retention_pct"]
    return scalars


def retention_interval_pct(score: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of a score's retention, in percent; None where images were not counted.

    Bonett and Price's of two shares of the same images (`stats.proportions`).

    Args:
        score: an adapted zero-shot score with its `num_correct` and `flows`.
    """
    from driftscope.stats.proportions import paired_ratio_interval

    flows = score.get("flows") or {}
    if not {"num_lost", "num_gained"} <= flows.keys() or "num_correct" not in score:
        return None
    lost, gained = int(flows["num_lost"]), int(flows["num_gained"])
    kept = int(score["num_correct"]) - gained
    if kept + lost == 0:
        return None
    low, high = paired_ratio_interval(kept, lost, gained)
    return 100 * low, 100 * high


@dataclass(frozen=True)
class ColumnMeaning:
    """What a column holds. Integers are int64, or float64 with NaN where one is unknown."""

    kind: Kind
    unit: str
    meaning: str


_KEYS = {
    "run_id": ColumnMeaning("text", "", "the run's id"),
    "dataset": ColumnMeaning("text", "", "target dataset"),
    "method": ColumnMeaning("text", "", "method with what departs from its default, as lora_r16"),
    "learning_rate": ColumnMeaning("number", "", "peak learning rate"),
    "seed": ColumnMeaning("integer", "", "training seed"),
}

_DRIFTS = {
    "delta_entropy_pct": ColumnMeaning("number", "%", "change of mean CLS attention entropy"),
    "delta_erf95_pct": ColumnMeaning("number", "%", "change of mean erf@0.95"),
    "delta_gini_pct": ColumnMeaning("number", "%", "change of mean attention gini"),
    "delta_head_diversity_pct": ColumnMeaning("number", "%", "change of mean head diversity"),
    "cka": ColumnMeaning("number", "0…1", "linear CKA to the pretrained, mean over blocks"),
    "cka_debiased": ColumnMeaning("number", "≤ 1", "the same with the unbiased HSIC estimator"),
    "embedding_drift": ColumnMeaning("number", "0…2", "1 − mean cosine of image embeddings"),
    "weight_drift": ColumnMeaning("number", "", "‖ΔW‖₂/‖W₀‖₂ of the encoder"),
}

_STRUCTURE = {
    "rollout_entropy_bits": ColumnMeaning("number", "bits", "entropy of the attention rollout"),
    "rollout_erf95": ColumnMeaning("number", "0…1", "erf@0.95 of the attention rollout"),
    "rollout_gini": ColumnMeaning("number", "0…1", "gini of the attention rollout"),
    "patch_to_patch_entropy_bits": ColumnMeaning(
        "number", "bits", "patch-to-patch attention entropy, mean over layers and heads"
    ),
}

RUN_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "model": ColumnMeaning("text", "", "pretrained model as the spec names it"),
    "method_kind": ColumnMeaning("text", "", "the method's kind alone"),
    "regularizer": ColumnMeaning("text", "", "regularizers with their weights, or none"),
    "data_seed": ColumnMeaning("integer", "", "seed of the splits"),
    "protocol": ColumnMeaning("text", "", "leakfree or paper"),
    "epochs": ColumnMeaning("integer", "epochs", "epochs asked for"),
    "batch_size": ColumnMeaning("integer", "images", "images an optimizer step"),
    "weight_decay": ColumnMeaning("number", "", "AdamW's weight decay"),
    "options": ColumnMeaning("text", "", "all else that differs from the defaults, or default"),
    "status": ColumnMeaning("text", "", "done or diverged"),
    "origin": ColumnMeaning("text", "", "run, or import:FILE"),
    "num_runs": ColumnMeaning("integer", "runs", "1; of an imported cell mean, its runs"),
    "selected_epoch": ColumnMeaning("integer", "epoch", "epoch of best validation accuracy"),
    "train_loss": ColumnMeaning("number", "", "mean training loss of the last epoch"),
    "val_accuracy_pct": ColumnMeaning("number", "%", "validation accuracy, selected epoch"),
    "test_accuracy_pct": ColumnMeaning("number", "%", "test accuracy, selected epoch"),
    "test_num_images": ColumnMeaning("integer", "images", "images of the test accuracy"),
    "transfer": ColumnMeaning("text", "", "name of the main transfer set"),
    "pretrained_zero_shot_pct": ColumnMeaning("number", "%", "pretrained zero-shot accuracy"),
    "zero_shot_pct": ColumnMeaning("number", "%", "adapted zero-shot accuracy, selected epoch"),
    "zero_shot_num_images": ColumnMeaning("integer", "images", "images of the zero-shot accuracy"),
    "retention_pct": ColumnMeaning("number", "%", "100 × adapted / pretrained zero-shot accuracy"),
    **_DRIFTS,
    **_STRUCTURE,
    **{
        f"pretrained_{name}": ColumnMeaning(c.kind, c.unit, f"the pretrained model's {c.meaning}")
        for name, c in _STRUCTURE.items()
    },
    "trainable_parameters": ColumnMeaning("integer", "parameters", "parameters trained"),
    "total_parameters": ColumnMeaning("integer", "parameters", "parameters in all"),
    "wall_seconds": ColumnMeaning("number", "s", "wall time of the run, over all its processes"),
}

HISTORY_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "kind": ColumnMeaning("text", "", "epoch (its end), or probe (within it)"),
    "epoch": ColumnMeaning("integer", "epoch", "epochs finished; of a probe, the one under way"),
    "step": ColumnMeaning("integer", "step", "optimizer steps done"),
    "train_loss": ColumnMeaning("number", "", "mean over the epoch; of a probe, of its last step"),
    "train_accuracy_pct": ColumnMeaning("number", "%", "training accuracy of the epoch"),
    "penalty": ColumnMeaning("number", "", "mean of the weighted penalties over the epoch"),
    "val_accuracy_pct": ColumnMeaning("number", "%", "validation accuracy"),
    **_DRIFTS,
    "delta_late_entropy_pct": ColumnMeaning("number", "%", "of the last third of the layers"),
    "delta_rollout_entropy_pct": ColumnMeaning("number", "%", "of the attention rollout"),
    "delta_rollout_erf95_pct": ColumnMeaning("number", "%", "of the attention rollout"),
    "delta_rollout_gini_pct": ColumnMeaning("number", "%", "of the attention rollout"),
    "delta_patch_to_patch_entropy_pct": ColumnMeaning("number", "%", "of patch-to-patch attention"),
    "feature_distance": ColumnMeaning("number", "", "mean squared distance of image embeddings"),
    "text_kl_nats": ColumnMeaning("number", "nats", "KL of the zero-shot distributions"),
    "text_top1_agreement_pct": ColumnMeaning("number", "%", "images of the same zero-shot class"),
    "random_text_logit_change": ColumnMeaning("number", "logits", "mean, for random texts"),
    "num_images": ColumnMeaning("integer", "images", "probe images of the signals"),
    "zero_shot_pct": ColumnMeaning("number", "%", "zero-shot accuracy, main transfer set"),
    "retention_pct": ColumnMeaning("number", "%", "retention, where it was probed on the way"),
}
"""Further transfer sets add `zero_shot_pct_NAME` and `retention_pct_NAME` (`transfer_scalars`)."""

LAYER_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "layer": ColumnMeaning("integer", "", "layer, 1…L"),
    "entropy_nats": ColumnMeaning("number", "nats", "CLS attention entropy, mean over heads"),
    "delta_entropy_pct": _DRIFTS["delta_entropy_pct"],
    "delta_erf95_pct": _DRIFTS["delta_erf95_pct"],
    "delta_gini_pct": _DRIFTS["delta_gini_pct"],
    "cka": ColumnMeaning("number", "0…1", "linear CKA of the block's output to the pretrained"),
    "cka_debiased": ColumnMeaning("number", "≤ 1", "the same with the unbiased HSIC estimator"),
}

HEAD_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "layer": ColumnMeaning("integer", "", "layer, 1…L"),
    "head": ColumnMeaning("integer", "", "head, 1…; NaN where only the mean over heads is known"),
    "entropy_nats": ColumnMeaning("number", "nats", "CLS attention entropy"),
    "erf95": ColumnMeaning("number", "0…1", "smallest share of patches that holds 95 %"),
    "gini": ColumnMeaning("number", "0…1", "attention gini"),
    "pretrained_entropy_nats": ColumnMeaning("number", "nats", "the pretrained head's entropy"),
    "pretrained_erf95": ColumnMeaning("number", "0…1", "the pretrained head's erf@0.95"),
    "pretrained_gini": ColumnMeaning("number", "0…1", "the pretrained head's gini"),
    "cka": LAYER_COLUMNS["cka"],
    "cka_debiased": LAYER_COLUMNS["cka_debiased"],
}

CLASS_COLUMNS: dict[str, ColumnMeaning] = {
    **_KEYS,
    "class": ColumnMeaning("text", "", "class of the main transfer set"),
    "num_images": ColumnMeaning("integer", "images", "images of the class"),
    "pretrained_pct": ColumnMeaning("number", "%", "the pretrained model's accuracy on it"),
    "adapted_pct": ColumnMeaning("number", "%", "the adapted model's, selected epoch"),
    "retention_pct": ColumnMeaning("number", "%", "100 × adapted / pretrained accuracy"),
}

TABLES = {
    "runs": RUN_COLUMNS,
    "history": HISTORY_COLUMNS,
    "layers": HEAD_COLUMNS,
    "classes": CLASS_COLUMNS,
}
"""What a study reads as and exports."""


def typed(frame: pd.DataFrame, columns: dict[str, ColumnMeaning]) -> pd.DataFrame:
    """The frame with these columns first and of these types; missing ones are all unknown."""
    import numpy as np

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
