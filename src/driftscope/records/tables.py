"""The tables a study's records make; their columns are documented in `records.columns`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from driftscope.metric import Metric
from driftscope.metrics import METRICS, drifts, first_layer, levels, metric
from driftscope.protocols import ACCURACIES, pretrained_accuracy_key, protocol_of
from driftscope.records.columns import (
    CLASS_COLUMNS,
    DAMAGE_COLUMNS,
    DRIFT_SCALARS,
    HEAD_COLUMNS,
    HISTORY_COLUMNS,
    LAYER_COLUMNS,
    RESCUE_COLUMNS,
    RUN_COLUMNS,
    STRUCTURE_SCALARS,
    transfer_scalars,
    typed,
)
from driftscope.records.folder import RunRecord
from driftscope.records.schema import Point, Signals

if TYPE_CHECKING:
    import pandas as pd

    from driftscope.config import RunSpec


SUBSET_COLUMNS = ["run_id", "subset", "num_images", "signal", "value"]


@dataclass(frozen=True)
class Tables:
    """Everything a study's records say, as tables."""

    runs: pd.DataFrame
    history: pd.DataFrame
    layers: pd.DataFrame
    heads: pd.DataFrame
    subsets: pd.DataFrame
    classes: pd.DataFrame
    rescues: pd.DataFrame
    damage: pd.DataFrame


_TOGETHER = 20_000
"""Rows that are lists of Python's numbers at a time."""


class _Rows:
    """Rows under way, column by column: there are a million, and a mapping takes ten times more."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._count = 0
        self._mappings: list[Mapping[str, Any]] = []
        self._done: list[pd.DataFrame] = []

    def add(
        self, count: int, shared: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]
    ) -> None:
        """So many rows, with what is the same in all and what is each row's own."""
        for name, value in shared.items():
            self._column(name).extend([value] * count)
        for name, values in columns.items():
            self._column(name).extend(values)
        self._count += count
        for values in self._columns.values():
            values.extend([None] * (self._count - len(values)))
        if self._count >= _TOGETHER:
            self._settle()

    def _column(self, name: str) -> list[Any]:
        if name not in self._columns:
            self._columns[name] = [None] * self._count
        return self._columns[name]

    def add_mappings(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of which each has columns of its own."""
        self._mappings += rows
        if len(self._mappings) >= _TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Makes arrays of the lists, which take a quarter of the memory."""
        import pandas as pd

        self._done.append(pd.DataFrame(self._mappings or self._columns))
        self._columns, self._count, self._mappings = {}, 0, []

    def frames(self) -> list[pd.DataFrame]:
        """All rows, given up here."""
        if self._count or self._mappings:
            self._settle()
        done, self._done = self._done, []
        return done


class TableRows:
    """The rows of all tables, gathered from records one at a time."""

    def __init__(self) -> None:
        self._rows = {one.name: _Rows() for one in fields(Tables) if one.name != "heads"}
        self._heads: list[dict[str, Any]] = []

    def add(self, record: RunRecord) -> None:
        """Adds a record's rows."""
        rows = self._rows
        rows["runs"].add_mappings([_run_row(record)])
        rows["history"].add_mappings(_history_rows(record))
        _add_layers(rows["layers"], record)
        self._heads.append(_head_columns(record))
        _add_subsets(rows["subsets"], record)
        _add_classes(rows["classes"], record)
        rescues = record.result.rescues
        rows["rescues"].add_mappings({**_keys(record), **one.model_dump()} for one in rescues)
        rows["damage"].add_mappings(_damage_rows(record))

    def frames(self) -> dict[str, list[pd.DataFrame]]:
        """The rows as frames by table, given up here."""
        heads, self._heads = _head_frames(self._heads), []
        return {name: rows.frames() for name, rows in self._rows.items()} | {"heads": heads}


def tables_of(parts: Iterable[Mapping[str, list[pd.DataFrame]]]) -> Tables:
    """The tables of rows that were gathered in parts, in the parts' order, which give them up."""
    found: dict[str, list[pd.DataFrame]] = {one.name: [] for one in fields(Tables)}
    for part in parts:
        for name, frames in part.items():
            found[name] += frames
            frames.clear()  # so that each is gone once its table is made
    columns = {
        "runs": RUN_COLUMNS,
        "history": HISTORY_COLUMNS,
        "layers": LAYER_COLUMNS,
        "heads": HEAD_COLUMNS,
        "classes": CLASS_COLUMNS,
        "rescues": RESCUE_COLUMNS,
        "damage": DAMAGE_COLUMNS,
    }
    tables = {name: typed(_joined(found.pop(name)), meanings) for name, meanings in columns.items()}
    return Tables(subsets=_joined(found.pop("subsets"), SUBSET_COLUMNS), **tables)


def all_tables(records: Iterable[RunRecord]) -> Tables:
    """All tables in one pass, so that thousands of records need not be in memory at once."""
    rows = TableRows()
    for record in records:
        rows.add(record)
    return tables_of([rows.frames()])


def _joined(frames: list[pd.DataFrame], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Frames one below the other; with these columns, where there are none.

    A column that is unknown in one and a number in another is a number.
    """
    import pandas as pd

    if not frames:
        return pd.DataFrame(columns=[*columns])
    return pd.concat(frames, ignore_index=True).infer_objects()


def _add_classes(rows: _Rows, record: RunRecord) -> None:
    """One row a class of the main transfer set, at the selected epoch."""
    found = record.main_score.per_class
    names = dict.fromkeys(chain.from_iterable(found))
    rows.add(len(found), _keys(record), {name: [row.get(name) for row in found] for name in names})


def _damage_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """One row a group of weights, of a run that was asked where its damage sits."""
    found = record.result.attribution
    for one in found.groups if found else ():
        yield {
            **_keys(record),
            "group": one.name,
            "block": one.block,
            "regained_points": one.regained,
            "lost_points": one.lost,
            "shapley_points": one.shapley,
            "shapley_error_points": one.shapley_error,
        }


def _add_subsets(rows: _Rows, record: RunRecord) -> None:
    """One row a probe subset and signal, at the protocol's reporting point."""
    point = record.structure_point
    for number, subset in enumerate(point.subsets if point else (), start=1):
        signals = {name: value for name, value in subset.items() if name != "num_images"}
        shared = {
            "run_id": record.id, "subset": number, "num_images": subset.get("num_images")
        }  # fmt: skip
        rows.add(len(signals), shared, {"signal": [*signals], "value": [*signals.values()]})


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run. Signals are those of `RunRecord.drift`."""
    import pandas as pd

    return typed(pd.DataFrame([_run_row(record) for record in records]), RUN_COLUMNS)


def history_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run and probe: losses, validation accuracy and every scalar signal."""
    import pandas as pd

    rows = [row for record in records for row in _history_rows(record)]
    return typed(pd.DataFrame(rows), HISTORY_COLUMNS)


def layers_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run and layer (1…L): entropy in nats and the per-layer drifts, as reported."""
    rows = _Rows()
    for record in records:
        _add_layers(rows, record)
    return typed(_joined(rows.frames()), LAYER_COLUMNS)


def heads_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run, layer and head: the readings before and after; the layer's CKA beside."""
    return typed(_joined(_head_frames(_head_columns(record) for record in records)), HEAD_COLUMNS)


def _keys(record: RunRecord) -> dict[str, Any]:
    return {"run_id": record.id, **_cell_and_seed(record.spec)}


def _cell_and_seed(spec: RunSpec) -> dict[str, Any]:
    return {
        "dataset": spec.dataset,
        "method": spec.method.label,
        "learning_rate": spec.learning_rate,
        "seed": spec.seed,
    }


def declared_columns(spec: RunSpec) -> dict[str, Any]:
    """What a run declares, as columns of `runs`, whether it has been carried out or not."""
    return {
        **_cell_and_seed(spec),
        "model": spec.model,
        "method_kind": spec.method.kind,
        "regularizer": spec.regularizer_label,
        "budget_pct": spec.budget and spec.budget.retention_pct,
        "data_seed": spec.data_seed,
        "protocol": spec.protocol,
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "weight_decay": spec.weight_decay,
        "options": spec.options_label,
    }


def _run_row(record: RunRecord) -> dict[str, Any]:
    spec, result = record.spec, record.result
    selected, point, drift = result.selected, record.structure_point, record.drift
    estimate = selected and selected.estimate
    before, after = record.pretrained_score, record.main_score
    main = record.main_transfer or ""
    accuracy = ACCURACIES[protocol_of(main)]
    losses = [event.get("train_loss") for event in record.events if event.kind == "epoch"]
    # Of an imported record's options only those with a column are known. Its splits are not ours,
    # so no seed of ours makes them.
    unknown = {} if record.origin == "run" else {"data_seed": None, "options": None}
    return {
        "run_id": record.id,
        **declared_columns(spec),
        **unknown,
        "status": result.status,
        "origin": record.origin,
        "num_runs": 1,
        "selected_epoch": selected and selected.epoch,
        "train_loss": losses[-1] if losses else None,
        "val_accuracy_pct": selected and selected.val_accuracy_pct,
        "test_accuracy_pct": selected and selected.test_accuracy_pct,
        "test_num_images": selected and selected.test_num_images,
        "transfer": record.main_transfer,
        pretrained_accuracy_key(main): before.accuracy_pct,
        accuracy: after.accuracy_pct,
        "zero_shot_num_images": after.num_images if accuracy == "zero_shot_pct" else None,
        "retention_pct": after.retention_pct,
        "above_chance_pct": after.above_chance_pct,
        "chance_pct": after.chance_pct,
        "ece_pct": after.ece_pct,
        "pretrained_ece_pct": before.ece_pct,
        "doubts": "; ".join(after.doubts) or None,
        "low_90_pct": estimate and estimate.low_90_pct,
        "high_90_pct": estimate and estimate.high_90_pct,
        "text_vocabulary": result.texts,
        **{name: drift and drift.number(name) for name in DRIFT_SCALARS},
        **{name: point and point.reading.mean(name) for name in STRUCTURE_SCALARS},
        **{f"pretrained_{n}": result.pretrained.reading.mean(n) for n in STRUCTURE_SCALARS},
        "trainable_parameters": result.parameters.trainable,
        "total_parameters": result.parameters.total,
        "wall_seconds": result.wall_seconds.total,
        **_further(record),
    }


def _further(record: RunRecord) -> dict[str, Any]:
    """The scores on further transfer sets, and on corrupted test images, by set and corruption."""
    selected = record.result.selected
    if selected is None:
        return {}
    of_sets = {
        name: {"accuracy_pct": one.accuracy_pct, "retention_pct": one.retention_pct}
        for name, one in selected.transfer.items()
    }
    scores = {key: value for key, value in transfer_scalars(of_sets).items() if key not in METRICS}
    corrupted = selected.robustness.items()
    return scores | {f"test_accuracy_pct_{name}": one.accuracy_pct for name, one in corrupted}


def _add_layers(rows: _Rows, record: RunRecord) -> None:
    point = record.structure_point
    if point is None:
        return
    num_layers = _num_layers(point)
    read, changed = _of_layers()
    columns = {
        "layer": range(1, num_layers + 1),
        **{one.key: _by_layer(point.reading, one.field, num_layers) for one in read},
        **{one.key: _by_layer(point.drift, one.layer_field, num_layers) for one in changed},
    }
    rows.add(num_layers, _keys(record), columns)


@cache
def _of_layers() -> tuple[Sequence[Metric], Sequence[Metric]]:
    """What is read of a layer, and what of it changes."""
    return levels("layer"), drifts("layer")


@cache
def _of_heads() -> Sequence[Metric]:
    return levels("head")


def _by_layer(part: Signals, name: str, num_layers: int) -> list[float | None]:
    """Every layer's number; a list ends at the last layer, so the first may have none."""
    known = part.by_layer(name)
    if known is None:
        return [None] * num_layers
    return [None] * (first_layer(len(known), num_layers) - 1) + known[:num_layers]


def _num_layers(point: Point) -> int:
    """Blocks that were read; attention may have been read in the last alone."""
    blocks = point.drift.signal("cka_per_block") or ()
    return max(len(blocks), len(point.reading.entropy))


def _history_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    keys = _keys(record)
    for event in record.events:
        if event.kind in ("epoch", "probe"):
            yield {**keys, "kind": event.kind, **event.numbers()}


def _head_columns(record: RunRecord) -> dict[str, Any]:
    """A record's rows of the heads table, column by column: there are many."""
    import numpy as np

    point = record.structure_point
    if point is None:
        return {}
    after, before = point.reading, record.result.pretrained.reading
    read = {
        name: np.array(values, dtype=np.float64)
        for one in _of_heads()
        for name, reading in ((one.key, after), (f"pretrained_{one.key}", before))
        if (values := reading.signal(one.field))
    }
    if not read:
        return {}
    num_layers, num_heads = _num_layers(point), max(one.shape[1] for one in read.values())
    longest = max(map(len, read.values()))
    layers = range(first_layer(longest, num_layers), num_layers + 1)
    num_rows = len(layers) * num_heads
    of_heads = record.origin == "run"  # imported records hold means over heads
    columns: dict[str, Any] = {name: [value] * num_rows for name, value in _keys(record).items()}
    columns["layer"] = np.repeat(layers, num_heads)
    numbers = np.tile(np.arange(1, num_heads + 1), len(layers))
    columns["head"] = numbers if of_heads else np.full(num_rows, np.nan)
    for one in _of_heads():
        for name in (one.key, f"pretrained_{one.key}"):
            values = np.full((len(layers), num_heads), np.nan)
            if (known := read.get(name)) is not None:  # the last layers and the first heads
                values[len(layers) - len(known) :, : known.shape[1]] = known
            columns[name] = values.ravel()
    for one in (metric("cka"), metric("cka_debiased")):
        similar = _by_layer(point.drift, one.layer_field, num_layers)[-len(layers) :]
        columns[one.key] = np.repeat(np.array(similar, dtype=np.float64), num_heads)
    return columns


def _head_frames(parts: Iterable[dict[str, Any]]) -> list[pd.DataFrame]:
    """The rows of records as one frame; none of no rows."""
    import numpy as np
    import pandas as pd

    filled = [part for part in parts if part]
    columns = {
        name: (
            np.concatenate([part[name] for part in filled])
            if isinstance(filled[0][name], np.ndarray)
            else [value for part in filled for value in part[name]]
        )
        for name in (filled[0] if filled else ())
    }
    return [pd.DataFrame(columns)] if filled else []
