"""Tables people read: records grouped into cells, and how each column is written.

Statistics come from `analysis`; only means and standard deviations over the seeds of a cell are
taken here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from driftscope.analysis.columns import filled, known, metric_column
from driftscope.analysis.estimate_charts import ENDS
from driftscope.analysis.grouping import PLACE, with_series
from driftscope.analysis.natural_order import by_natural_order
from driftscope.analysis.table import Column, Table, slug
from driftscope.analysis.tables import accuracy_column
from driftscope.analysis.words import join_words
from driftscope.metric import Metric
from driftscope.metrics import METRICS, drifts, first_layer, main_drifts
from driftscope.records import RunRecord, runs_table
from driftscope.stats.change import percent_drift

# ---------------------------------------------------------------- from records


def report_runs(records: Sequence[RunRecord]) -> pd.DataFrame:
    """`records.runs_table` with the Wilson limits of each run's accuracies beside them."""
    return with_intervals(runs_table(records), records)


def with_intervals(runs: pd.DataFrame, records: Sequence[RunRecord]) -> pd.DataFrame:
    """The runs with the Wilson limits of their accuracies, where a record holds them."""
    limits = {}
    for record in records:
        low, high = record.main_score.wilson_pct or (None, None)
        pretrained_low, pretrained_high = record.pretrained_score.wilson_pct or (None, None)
        limits[record.id] = {
            "zero_shot_low_pct": low,
            "zero_shot_high_pct": high,
            "pretrained_low_pct": pretrained_low,
            "pretrained_high_pct": pretrained_high,
            **test_interval(record),
        }
    if not limits:
        return runs
    return runs.join(pd.DataFrame.from_dict(limits, orient="index", dtype=float), on="run_id")


def run_head_changes(record: RunRecord) -> list[dict[str, float]]:
    """`head_entropy_changes` of a run; none where heads were not read."""
    point, before = record.structure_point, record.result.pretrained.reading.entropy
    if point is None or not before or record.origin != "run":  # imported ones hold means over heads
        return []
    return head_entropy_changes(before, point.reading.entropy)


def test_interval(record: RunRecord) -> dict[str, float | None]:
    """The recorded Wilson limits of a run's test accuracy; nothing of an older or imported run."""
    selected = record.result.selected
    limits = selected.test_wilson_pct if selected else None
    return dict(zip(("test_low_pct", "test_high_pct"), limits, strict=True)) if limits else {}


def head_entropy_changes(
    pretrained: Sequence[Sequence[float]], adapted: Sequence[Sequence[float]]
) -> list[dict[str, float]]:
    """The percent change of each head's mean entropy, as rows layer, head, delta_entropy_pct."""
    return [
        {
            "layer": layer,
            "head": head,
            "delta_entropy_pct": percent_drift(after, before),
        }
        for layer, (befores, afters) in enumerate(zip(pretrained, adapted, strict=True), start=1)
        for head, (before, after) in enumerate(zip(befores, afters, strict=True), start=1)
    ]


# ---------------------------------------------------------------- as people read them

_SPREAD_NOTE = "Mean ± standard deviation over seeds."
_INTERVAL_NOTE = (
    "Small print: the 95 % Wilson interval of one evaluation on n images (mean of its limits over "
    "seeds); it covers the choice of images, not of seeds."
)


def _is_known(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and bool(frame[name].notna().any())


def study_table(cells: pd.DataFrame, setting: Mapping[str, str]) -> Table:
    """The study's main table: one row a cell, accuracy, zero-shot ability, drift."""
    columns = [
        *known("series", "learning_rate"),
        metric_column("num_runs", "finished runs of the cell"),
        *(known("num_diverged") if cells["num_diverged"].any() else ()),
        # where no test accuracy is known, as of the publication's cells
        *outcome_columns(setting, with_validation=accuracy_column(cells) == "val_accuracy_pct"),
    ]
    keys = ("dataset", "model", "protocol")
    where = ", ".join(part for part in map(setting.get, keys) if part)
    has_spread = bool(cells["num_runs"].gt(1).any()) and _is_known(cells, "retention_pct_sd")
    has_interval = _is_known(cells, "zero_shot_low_pct")
    is_one_run = cells["num_runs"].sum() == 1
    return Table(
        name=f"cells_{setting_slug(setting)}",
        title=f"{'The run' if is_one_run else 'Every cell of the study'}: {where}",
        note=" ".join([_SPREAD_NOTE] * has_spread + [_INTERVAL_NOTE] * has_interval),
        columns=filled(columns, cells),
        frame=cells,
    )


def outcome_columns(
    setting: Mapping[str, str], *, with_validation: bool = False
) -> tuple[Column, ...]:
    """What came out of a run or cell: accuracy, zero-shot ability, the main drifts."""
    transfer = setting.get("transfer") or "transfer set"
    target = setting.get("dataset", "the target")
    return (
        metric_column(
            "test_accuracy_pct",
            f"accuracy on {target} after adaptation",
            interval=("test_low_pct", "test_high_pct"),
            count="test_num_images",
        ),
        *([metric_column("val_accuracy_pct", "at the selected epoch")] if with_validation else []),
        metric_column(
            "zero_shot_pct",
            f"accuracy on {transfer} without training on it",
            interval=("zero_shot_low_pct", "zero_shot_high_pct"),
            count="zero_shot_num_images",
        ),
        metric_column("retention_pct"),
        *(metric_column(one.key) for one in main_drifts("run")),
    )


def runs_list(runs: pd.DataFrame) -> Table:
    """Every run with its id, seed, selected epoch and outcome."""
    several = [key for key in PLACE[1:] if key in runs and runs[key].nunique() > 1]
    measured = ("test_accuracy_pct", "retention_pct", *(one.key for one in main_drifts("run")))
    columns = (
        *known("run_id", "dataset", *several, "series", "learning_rate", "seed", "status"),
        Column("selected_epoch", "Epoch", "the selected epoch", kind="count"),
        *(metric_column(key, "") for key in (*measured, *ENDS, "wall_seconds")),
    )
    frame = with_series(runs)
    frame = by_natural_order(frame, ["dataset", "series", "learning_rate", "seed"])
    note = _images_note(frame)
    return Table("runs", "Every run", note, filled(columns, frame), frame.reset_index(drop=True))


def _images_note(runs: pd.DataFrame) -> str:
    """Of how many images the runs' test accuracies are, by dataset where that differs."""
    if not _is_known(runs, "test_num_images"):
        return ""
    known = runs.dropna(subset=["test_num_images"])
    counts = {
        str(dataset): " or ".join(f"{count:,.0f}" for count in sorted(mine.unique()))
        for dataset, mine in known.groupby("dataset")["test_num_images"]
    }
    if len({*counts.values()}) == 1:
        return f"Each test accuracy is of {next(iter(counts.values()))} images."
    listed = join_words(f"{count} images on {dataset}" for dataset, count in counts.items())
    return f"Each test accuracy is of {listed}."


LAYER_COLUMNS = (
    Column("layer", "Layer", kind="count"),
    *(metric_column(one.key, "") for one in drifts("layer")),
)
"""What is read of each layer."""


def layers_list(layer_cells: pd.DataFrame, setting: Mapping[str, str]) -> Table:
    """The numbers behind the layer heatmaps: one row a cell and layer."""
    columns = (*known("series", "learning_rate", "num_runs"), *LAYER_COLUMNS)
    title = f"Layer by layer: {setting['dataset']}, {setting['model']}"
    name = f"layers_{setting_slug(setting)}"
    return Table(name, title, _SPREAD_NOTE, filled(columns, layer_cells), layer_cells)


def run_layers(layers: pd.DataFrame) -> Table:
    """One run layer by layer, of `records.layers_table`."""
    return Table("layers", "Layer by layer", "", filled(LAYER_COLUMNS, layers), layers)


_CLASS_NOTE = (
    "A class has few images: read single classes as hints. No retention where the pretrained model "
    "got none right."
)
FLOW_COLUMNS = (
    *known("class"), Column("taken_for", "Now taken for", kind="text"), *known("num_images")
)  # fmt: skip
"""Where images went that the pretrained model had right."""
CLASS_COLUMNS = known("class", "num_images", "pretrained_pct", "adapted_pct", "retention_pct")
"""What is read of each class of a transfer set."""


def classes_list(class_cells: pd.DataFrame, setting: Mapping[str, str]) -> Table:
    """Retention class by class: one row a cell and class of the transfer set."""
    return Table(
        f"classes_{setting_slug(setting)}",
        f"Class by class: {setting['transfer']} after {setting['dataset']}, {setting['model']}",
        f"Mean ± standard deviation over seeds, at the selected epoch. {_CLASS_NOTE}",
        (*known("series", "learning_rate", "num_runs"), *CLASS_COLUMNS),
        class_cells,
    )


def heads_table(heads: pd.DataFrame) -> Table:
    """The numbers behind a layer × head map."""
    columns = (LAYER_COLUMNS[0], *known("head", "delta_entropy_pct"))
    return Table("heads", "Head by head", "", columns, heads)


def compared_metrics() -> list[Metric]:
    """What a comparison shows of each layer: every drift that has layers, and the intruders."""
    return [*drifts("layer"), METRICS["intruder_dimensions"]]


def comparison_table(layers: pd.DataFrame) -> Table:
    """Two models layer by layer: entropies, their changes, CKA."""
    columns = (
        Column("layer", "Layer", "transformer block, from the input up", kind="count"),
        *(metric_column(one.key) for one in compared_metrics()),
        Column("entropy_pretrained_nats", "Entropy before, nats", decimals=3),
        Column("entropy_adapted_nats", "Entropy after, nats", decimals=3),
    )
    return Table("layers", "Layer by layer", "", filled(columns, layers), layers)


def comparison_layers(comparison: Mapping[str, Any]) -> pd.DataFrame:
    """One row a layer of a `compare` result: entropies of both models and every layer drift."""
    drift = comparison["drift"]
    entropies = {
        f"entropy_{side}_nats": _layer_means(entropy)
        for side in ("pretrained", "adapted")
        if (entropy := comparison[f"reading_{side}"]["entropy"])
    }
    per_layer = {one.key: drift.get(one.layer_field) for one in compared_metrics()}
    per_layer["intruder_dimensions"] = comparison.get("intruder_dimensions_per_layer")
    measured = {name: values for name, values in per_layer.items() if isinstance(values, list)}
    num_layers = max(map(len, {**entropies, **measured}.values()))
    columns = {
        name: [None] * (first_layer(len(values), num_layers) - 1) + values
        for name, values in {**entropies, **measured}.items()
    }
    return pd.DataFrame({"layer": range(1, num_layers + 1), **columns})


def _layer_means(entropy: Sequence[Sequence[float]]) -> list[float]:
    return [sum(heads) / len(heads) for heads in entropy]


def compared_classes(transfer: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Of every transfer set of a comparison: what is left of each class, and where images went."""
    found = []
    for name, score in transfer.items():
        rows = pd.DataFrame(score.get("per_class") or [])
        flows = pd.DataFrame((score.get("flows") or {}).get("lost_to") or [])
        if len(rows):
            title = f"Class by class on {name}, the least kept first"
            found.append(Table(f"classes_{slug(name)}", title, _CLASS_NOTE, CLASS_COLUMNS, rows))
        if len(flows):
            title = f"What was right before and is wrong now on {name}, the most images first"
            found.append(Table(f"flows_{slug(name)}", title, "", FLOW_COLUMNS, flows))
    return found


def fewer_images(comparison: Mapping[str, Any]) -> Table:
    """The main numbers of a comparison from fewer images: which of them depend on how many."""
    rows = pd.DataFrame(comparison["stability"]["probe_sizes"])
    columns = tuple(metric_column(str(key), "") for key in rows)
    return Table("fewer_images", "The same from fewer images", "", columns, rows)


def setting_slug(setting: Mapping[str, str]) -> str:
    """What tells a setting's files from those of another, such as 'terrain_mini_leakfree'."""
    return slug(" ".join(setting.get(key, "") for key in PLACE))
