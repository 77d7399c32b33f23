"""The authors' released records as our tables: nothing is guessed, what cannot be read is named.

Two kinds are known: the run records of the follow-up study (one JSON a run) and
`controlled_cells.csv`, the cell means of the published matrix, which has no runs behind it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis.tables import StudyTables
from driftscope.config import RunSpec, parse_run_spec
from driftscope.errors import DriftscopeError, RecordError, one_line, shown
from driftscope.files import read_text
from driftscope.stats.change import percent_drift

ORIGIN = "import:"
"""Every imported row's ``origin`` begins with this, followed by the file's name."""

MODEL = "openai/clip-vit-base-patch32"
_MAIN_TRANSFER = "cifar100"
_KINDS = {
    "full_ft": "full_ft",
    "lora_r8": "lora",
    "lora_r8_frozen_proj": "lora",
    "linear_probe": "linear_probe",
    "last_block": "last_block",
}
_METHODS: dict[str, Any] = {
    "lora_r8": {"kind": "lora"},
    "lora_r8_frozen_proj": {"kind": "lora", "train_projection": False},
}
_RUN_ID = re.compile(r"[\w+-][\w.+-]{0,199}", re.ASCII)
"""What can name a run: it becomes the name of a folder."""
_CELL_COLUMNS = (
    "dataset",
    "method",
    "learning_rate",
    "n",
    "target_accuracy_pct",
    "delta_entropy_pct",
    "cifar100_zero_shot_pct",
)
_CELL_METHODS = {"Full FT": "full_ft", "LoRA r=8": "lora_r8"}
_CELL_DATASETS = {"EuroSAT": "eurosat", "Oxford-IIIT Pets": "pets"}


@dataclass(frozen=True)
class Skipped:
    """A record that was not imported.

    Attributes:
        path: the file (and line, for a table).
        reason: what is wrong with it.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """Records as tables.

    Attributes:
        tables: runs, history and layers with the columns of our own studies.
        num_runs: run records read.
        num_cells: cell means read; each is a row of ``tables.runs`` with no seed and its number of
            runs in ``num_runs``.
        skipped: what was not read, and why.
        paths: the file of each run, by run id.
    """

    tables: StudyTables
    num_runs: int
    num_cells: int
    skipped: tuple[Skipped, ...]
    paths: Mapping[str, Path]


def import_records(
    paths: Iterable[Path | str], *, pretrained_zero_shot_pct: float | None = None
) -> Imported:
    """The tables that these files (or the .json and .csv files in and below these folders) hold.

    A file of unknown form, a damaged one, and a run given twice are skipped, each with its reason.

    Args:
        paths: files and folders.
        pretrained_zero_shot_pct: what the pretrained model scores on CIFAR-100, in percent, for
            cell means, whose file doesn't say (the paper's text gives 60.22). Without it their
            retention is unknown.

    Raises:
        RecordError: if a path does not exist.
    """
    runs: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    num_cells = 0
    for path in _files(paths):
        try:
            if path.suffix == ".csv":
                cells, bad_lines = _read_cells(path, pretrained_zero_shot_pct)
                runs += cells
                skipped += bad_lines
                num_cells += len(cells)
                continue
            record = _read_json(path)
            run = run_row(record, path.name)
            if run["run_id"] in seen:
                reason = f"run {run['run_id']!r} was already read from {seen[run['run_id']]}"
                raise RecordError(reason)
            run_spec(record), corrupted_accuracies_pct(record)
            own_history, own_layers = history_rows(record), layer_rows(record)
        except DriftscopeError as error:
            skipped.append(Skipped(str(path), str(error)))
            continue
        seen[run["run_id"]] = str(path)
        runs.append(run)
        history += own_history
        layers += own_layers
    tables = StudyTables(pd.DataFrame(runs), pd.DataFrame(history), pd.DataFrame(layers))
    paths_read = {run: Path(path) for run, path in seen.items()}
    return Imported(tables, len(seen), num_cells, tuple(skipped), paths_read)


def run_row(record: Mapping[str, Any], file_name: str) -> dict[str, Any]:
    """A follow-up record as a row of the runs table.

    The follow-up keeps ratios; the table keeps percent. Its protocol is leakage-free, and its final
    readings are those of the selected epoch.

    Raises:
        RecordError: if a value is missing, of the wrong type, or impossible.
    """
    config = _part(record, "config", dict)
    final = _part(record, "final", dict)
    method = _part(config, "method", str)
    if method not in _KINDS:
        raise RecordError(f"unknown method {method!r}; known are {', '.join(sorted(_KINDS))}")
    transfers = _part(record, "transfer", dict)
    transfer = _part(transfers, _MAIN_TRANSFER, dict)
    epochs = _part(record, "history", list)
    parameters = _part(record, "parameters", dict)
    return {
        "run_id": _run_id(record),
        "dataset": _part(config, "dataset", str),
        "model": _part(config, "model_name", str),
        "method": method,
        "method_kind": _KINDS[method],
        "learning_rate": _number(config, "lr", low=0.0),
        "seed": _part(config, "seed", int),
        "data_seed": nan,
        "protocol": "leakfree",
        "epochs": _part(config, "epochs", int),
        "batch_size": _part(config, "batch_size", int),
        "weight_decay": _number(config, "weight_decay", low=0.0),
        "status": "diverged" if _part(record, "diverged", bool) else "done",
        "origin": ORIGIN + file_name,
        "selected_epoch": _part(record, "selected_epoch", int),
        "train_loss": _number(_epoch(epochs, -1), "train_loss"),
        "val_accuracy_pct": _share_pct(record, "best_val_acc"),
        "test_accuracy_pct": _share_pct(record, "test_acc"),
        "transfer": _MAIN_TRANSFER,
        "pretrained_zero_shot_pct": _share_pct(transfer, "pretrained"),
        "zero_shot_pct": _share_pct(transfer, "accuracy"),
        "zero_shot_num_images": _part(transfer, "n_images", int),
        "retention_pct": 100 * _number(transfer, "retention", low=0.0),
        **_drift(final),
        "trainable_parameters": _part(parameters, "trainable", int),
        "total_parameters": _part(parameters, "total", int),
        "wall_seconds": _number(record, "runtime_seconds", low=0.0),
        "num_runs": 1,
    }


def run_spec(record: Mapping[str, Any]) -> RunSpec:
    """A follow-up record's run as we would declare it; its images are those that it counts.

    Raises:
        DriftscopeError: as `run_row`, or no run can be so.
    """
    row, config = run_row(record, ""), _part(record, "config", dict)
    splits = _part(config, "splits", dict) if "splits" in config else {}
    return parse_run_spec(
        {
            **{name: row[name] for name in ("model", "dataset", "learning_rate", "seed")},
            **{name: row[name] for name in ("protocol", "epochs", "batch_size", "weight_decay")},
            "method": _METHODS.get(row["method"], row["method"]),
            **{f"{part}_images": splits[part] for part in ("train", "val", "probe", "test")
               if part in splits},
            "transfer": list(transfer_scores(record)),
            "transfer_images": row["zero_shot_num_images"],
        },
        str(row["run_id"]),
    )  # fmt: skip


def transfer_scores(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By transfer set, the main one first: both accuracies and the retention in percent, images.

    Raises:
        RecordError: as `run_row`.
    """
    transfers = _part(record, "transfer", dict)
    names = sorted(transfers, key=lambda name: (name != _MAIN_TRANSFER, name))
    return {
        name: {
            "pretrained_accuracy_pct": _share_pct(one, "pretrained"),
            "accuracy_pct": _share_pct(one, "accuracy"),
            "retention_pct": 100 * _number(one, "retention", low=0.0),
            "num_images": _part(one, "n_images", int),
        }
        for name in names
        for one in (_part(transfers, name, dict),)
    }


def corrupted_accuracies_pct(record: Mapping[str, Any]) -> dict[str, float]:
    """By corruption, the accuracy on the corrupted test images; {} where none was measured.

    Raises:
        RecordError: a value is none.
    """
    found = record.get("corruption_acc") or {}
    return {name: _share_pct(found, name) for name in _part({"found": found}, "found", dict)}


def history_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A follow-up record's epochs as rows of the history table.

    Retention along the way was tracked on fewer CIFAR-100 images than at the end, so its last value
    is not the run's.
    """
    keys = _keys(record)
    epochs = _part(record, "history", list)
    steps = _part(_part(record, "config", dict), "steps_per_epoch", int)
    rows = []
    for index in range(len(epochs)):
        epoch = _epoch(epochs, index)
        number = _part(epoch, "epoch", int)
        rows.append(
            {
                **keys,
                "epoch": number,
                "step": number * steps,
                "train_loss": _number(epoch, "train_loss"),
                "train_accuracy_pct": (
                    _share_pct(epoch, "train_acc") if "train_acc" in epoch else nan
                ),
                "val_accuracy_pct": _share_pct(epoch, "val_acc"),
                **_drift(epoch),
                "retention_pct": 100 * _number(epoch, "transfer_track_retention", low=0.0),
            }
        )
    return rows


def layer_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A follow-up record's final per-layer readings as rows of the layers table, layers from 1.

    Its CKA is of the outputs of blocks 1…L, as ours is; ERF and Gini drifts are computed from the
    readings before and after.
    """
    keys = _keys(record)
    final = _part(record, "final", dict)
    after = _part(final, "attention", dict)
    before = _part(_part(record, "baseline", dict), "attention", dict)
    entropy = _numbers(after, "entropy_per_layer")
    columns = {
        "delta_entropy_pct": _numbers(final, "delta_entropy_per_layer_pct"),
        "delta_erf95_pct": _percent_change(before, after, "erf95_per_layer"),
        "delta_gini_pct": _percent_change(before, after, "gini_per_layer"),
        "cka": _numbers(final, "cka_per_layer"),
        "entropy_nats": entropy,
    }
    for name, values in {**columns, "baseline": _numbers(before, "entropy_per_layer")}.items():
        if len(values) != len(entropy):
            raise RecordError(f"{name} has {len(values)} layers and the entropy {len(entropy)}")
    return [
        {**keys, "layer": layer + 1, **{name: values[layer] for name, values in columns.items()}}
        for layer in range(len(entropy))
    ]


def _read_cells(path: Path, pretrained: float | None) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """The published matrix's cell means: rows without a seed, each standing for ``num_runs`` runs.

    Accuracy is the best validation accuracy over epochs, of the paper's protocol.
    """
    try:
        frame = pd.read_csv(io.StringIO(read_text(path)), dtype=str)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise RecordError(f"not a readable table: {one_line(error)}") from error
    missing = [name for name in _CELL_COLUMNS if name not in frame]
    if missing:
        raise RecordError(f"a table of unknown form: it lacks the columns {', '.join(missing)}")
    rows, skipped = [], []
    for line, values in enumerate(frame.to_dict(orient="records"), start=2):
        try:
            cell = {str(key): value for key, value in values.items()}
            rows.append(_cell_row(cell, path.name, pretrained))
        except RecordError as error:
            skipped.append(Skipped(f"{path}, line {line}", str(error)))
    return rows, skipped


def _cell_row(
    values: Mapping[str, Any], file_name: str, pretrained: float | None
) -> dict[str, Any]:
    dataset, method = str(values["dataset"]), str(values["method"])
    if dataset not in _CELL_DATASETS or method not in _CELL_METHODS:
        raise RecordError(f"unknown dataset or method: {dataset!r}, {method!r}")
    try:
        numbers = {name: float(values[name]) for name in _CELL_COLUMNS[2:]}
    except (TypeError, ValueError) as error:
        raise RecordError(f"not a number: {error}") from error
    if not all(isfinite(number) for number in numbers.values()):
        raise RecordError("a number is missing")
    name = _CELL_METHODS[method]
    rate = str(values["learning_rate"])
    return {
        "run_id": f"cell_{_CELL_DATASETS[dataset]}_{name}_lr{rate}",
        "dataset": _CELL_DATASETS[dataset],
        "model": MODEL,
        "method": name,
        "method_kind": _KINDS[name],
        "learning_rate": numbers["learning_rate"],
        "seed": nan,
        "protocol": "paper",
        "status": "done",
        "origin": ORIGIN + file_name,
        "val_accuracy_pct": numbers["target_accuracy_pct"],
        "transfer": _MAIN_TRANSFER,
        "pretrained_zero_shot_pct": nan if pretrained is None else pretrained,
        "zero_shot_pct": numbers["cifar100_zero_shot_pct"],
        "retention_pct": (
            100 * numbers["cifar100_zero_shot_pct"] / pretrained if pretrained else nan
        ),
        "delta_entropy_pct": numbers["delta_entropy_pct"],
        "num_runs": int(numbers["n"]),
    }


def _files(paths: Iterable[Path | str]) -> list[Path]:
    files: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix in {".json", ".csv"})
        elif path.exists():
            files.append(path)
        else:
            raise RecordError(f"There is no record {path}; give files or a folder of them.")
    return files


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"not readable as JSON: {one_line(error)}") from error
    if not isinstance(record, dict) or "config" not in record or "final" not in record:
        raise RecordError("not a run record: it has no 'config' and 'final'")
    return record


def _run_id(record: Mapping[str, Any]) -> str:
    name: str = _part(record, "run_id", str)
    if not _RUN_ID.fullmatch(name):
        raise RecordError(f"the run id {shown(name)} is not made of letters, digits and _.+-")
    return name


def _keys(record: Mapping[str, Any]) -> dict[str, Any]:
    config = _part(record, "config", dict)
    return {
        "run_id": _run_id(record),
        "dataset": _part(config, "dataset", str),
        "method": _part(config, "method", str),
        "learning_rate": _number(config, "lr", low=0.0),
        "seed": _part(config, "seed", int),
    }


def _drift(reading: Mapping[str, Any]) -> dict[str, float]:
    return {
        "delta_entropy_pct": _number(reading, "delta_entropy_pct"),
        "delta_erf95_pct": _number(reading, "delta_erf95_pct"),
        "delta_gini_pct": _number(reading, "delta_gini_pct"),
        "cka": _number(reading, "cka_mean", low=0.0, high=1.0),
        "embedding_drift": _number(reading, "embedding_drift", low=0.0, high=2.0),
        "weight_drift": _number(reading, "weight_drift_rel", low=0.0),
    }


def _part(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    is_bool_for_int = kind is int and isinstance(value, bool)
    if not isinstance(value, kind) or is_bool_for_int:
        raise RecordError(f"{name!r} is missing or no {kind.__name__}: {shown(value)}")
    return value


def _number(
    record: Mapping[str, Any], name: str, *, low: float = -1e12, high: float = 1e12
) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -inf < value < inf:
        raise RecordError(f"{name!r} is missing or no finite number: {shown(value)}")
    # A hair's breadth: CKA of a model with itself comes out as 1.0000001 in single precision.
    if not low - 1e-5 <= value <= high + 1e-5:
        raise RecordError(f"{name!r} must lie between {low:g} and {high:g}, got {shown(value)}")
    return float(value)


def _share_pct(record: Mapping[str, Any], name: str) -> float:
    return 100 * _number(record, name, low=0.0, high=1.0)


def _numbers(record: Mapping[str, Any], name: str) -> list[float]:
    values = _part(record, name, list)
    return [_number({name: value}, name) for value in values]


def _percent_change(
    before: Mapping[str, Any], after: Mapping[str, Any], name: str
) -> Sequence[float]:
    old, new = _numbers(before, name), _numbers(after, name)
    if len(old) != len(new) or 0.0 in old:
        raise RecordError(f"{name!r} of the baseline does not fit that of the end")
    return [percent_drift(b, a) for a, b in zip(old, new, strict=True)]


def _epoch(epochs: Sequence[Any], index: int) -> Mapping[str, Any]:
    if not epochs or not isinstance(epochs[index], dict):
        raise RecordError("'history' holds no epochs")
    epoch: Mapping[str, Any] = epochs[index]
    return epoch
