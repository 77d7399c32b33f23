"""Several studies beside each other, never pooled; two of them also as a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from driftscope.analysis import StudyTables, grouping
from driftscope.analysis.answer_tables import family_words, measure_with_unit
from driftscope.analysis.chart import Chart
from driftscope.analysis.columns import KNOWN, filled, known
from driftscope.analysis.difference import Difference
from driftscope.analysis.grouping import SETTING, series_labels
from driftscope.analysis.natural_order import by_natural_order
from driftscope.analysis.study_charts import (
    drift_metrics,
    known_metrics,
    outcome_metrics,
    side_by_side_chart,
)
from driftscope.analysis.table import Column, Table, save_tables, short_name, slug
from driftscope.analysis.tables import accuracy_column
from driftscope.files import inner_folder
from driftscope.metrics import METRICS
from driftscope.records import RunRecord
from driftscope.report import tables
from driftscope.report.drawing import draw
from driftscope.report.page import legend, whole_picture, write_page
from driftscope.report.provenance import flattened
from driftscope.report.style import SeriesStyle, method_styles, save_figure

_CELL_FACTS = (
    "spec.dataset",
    "spec.model",
    "spec.protocol",
    "spec.transfer",
    "spec.learning_rate",
    "spec.seed",
    "spec.data_seed",
    "spec.regularizers",
    "spec.epochs",
    "spec.batch_size",
    "spec.weight_decay",
)
"""What tells cells and runs apart, and so is no further difference between cells of one name."""


@dataclass(frozen=True)
class OneStudy:
    """One of the studies: what the page calls it, its tables, its records (none of cell means)."""

    name: str
    study: StudyTables
    records: Sequence[RunRecord]


def write_side_by_side(
    studies: Sequence[OneStudy], difference: Difference | None, out: Path, *, command: str
) -> Path:
    """Writes one page of several studies: the same axes, the cells of each, and a difference.

    Args:
        studies: two or more.
        difference: of the first two, where there are two.
        out: the file, or a folder in which `report.html` is written.
        command: the command line that made it.
    """
    named = _with_common_series(studies)
    styles = method_styles(
        grouping.series_order(pd.concat([n.study.runs for n in named])["method"])
    )
    sections = [
        {
            "heading": _heading(setting),
            "legend": legend(_styles_of(parts, styles), f"s{number}"),
            "rows": [
                whole_picture(chart, f"s{number}-{chart.name}", _words(chart), styles)
                for chart in _charts(setting, parts)
            ],
            "missing_from": [one.name for one in named if one.name not in parts],
            "table": _cells_table(setting, parts),
        }
        for number, (setting, parts) in enumerate(_settings(named), start=1)
    ]
    return write_page(
        "side_by_side.html",
        out,
        title=" beside ".join(one.name for one in studies),
        studies=studies_table(studies),
        sections=sections,
        difference=difference,
        difference_tables=difference_tables(difference) if difference else [],
        specifications=specification_table(studies),
        without_records=[one.name for one in studies if not one.records],
        command=command,
        version=version("driftscope"),
    )


def save_side_by_side(
    studies: Sequence[OneStudy],
    difference: Difference | None,
    out: Path,
    *,
    table_formats: Sequence[str],
    figure_formats: Sequence[str],
) -> list[Path]:
    """The same as files, under `out`/tables and `out`/figures; returns the paths."""
    named = _with_common_series(studies)
    styles = method_styles(
        grouping.series_order(pd.concat([n.study.runs for n in named])["method"])
    )
    settings = _settings(named)
    paths: list[Path] = []
    if table_formats:
        found = [studies_table(studies), specification_table(studies)]
        found += [_cells_table(setting, parts) for setting, parts in settings]
        found += difference_tables(difference) if difference else []
        paths += save_tables(found, out / "tables", table_formats)
    if figure_formats:
        out.mkdir(parents=True, exist_ok=True)
        figures = inner_folder(out, "figures")
        for setting, parts in settings:
            for chart in _charts(setting, parts):
                stem = figures / short_name(f"{chart.name}_{slug(_heading(setting))}")
                paths += save_figure(draw(chart, styles), stem, figure_formats)
    return paths


# ---------------------------------------------------------------- tables


def studies_table(studies: Sequence[OneStudy]) -> Table:
    """One row a study: how many runs and cells, of what."""
    rows = []
    for one in studies:
        runs = one.study.runs
        cells = [len(grouping.cells_frame(part)) for _, part in grouping.split_settings(runs)]
        values = {
            key: ", ".join(sorted(runs[key].dropna().astype(str).unique()))
            for key in grouping.PLACE
            if key in runs
        }
        done = grouping.is_done(runs)
        rows.append(
            {
                "study": one.name,
                "num_runs": int(done.sum()),
                "num_diverged": int((~done).sum()),
                "num_missing": len(one.study.missing),
                "num_cells": sum(cells),
                **values,
            }
        )
    missing = ("num_missing",) if any(row["num_missing"] for row in rows) else ()
    return Table(
        "studies",
        "The studies",
        "",
        known("study", "num_runs", "num_diverged", *missing, "num_cells", "dataset", *SETTING),
        pd.DataFrame(rows),
    )


def specification_table(studies: Sequence[OneStudy]) -> Table:
    """What the studies' specifications and machines differ in, beyond what tells cells apart."""
    facts = [_values(one.records) for one in studies]
    names = list(dict.fromkeys(name for values in facts for name in values))
    rows = [
        {"name": name, **{f"_{at}": ", ".join(values.get(name, {"–": None}))
                          for at, values in enumerate(facts)}}
        for name in names
        if name not in _CELL_FACTS and not name.startswith("spec.method.")
        and len({frozenset(values.get(name, {})) for values in facts}) > 1
    ]  # fmt: skip
    return Table(
        "specifications",
        "What else differs",
        "Values that a study's runs take, where the studies do not take the same. A difference "
        "between cells of one name can come from any of these.",
        (
            Column("name", "What", kind="text"),
            *(Column(f"_{at}", one.name, kind="text") for at, one in enumerate(studies)),
        ),
        pd.DataFrame(rows, columns=["name", *(f"_{at}" for at in range(len(studies)))]),
    )


def difference_tables(difference: Difference) -> list[Table]:
    """The common cells, the cells of one study only, the runs whose seed the other lacks."""
    frame = difference.table
    if len(frame):
        frame = frame.assign(
            measure_label=frame["measure"].map(measure_with_unit),
            outcome=["identical" if same else "" for same in frame["is_identical"]],
        )
    setting = tuple(one for one in known(*SETTING) if len(frame) and frame[one.key].nunique() > 1)
    family = difference.family
    adjusted = f" {family_words(family)}" if family.get("num_tests") else ""
    left_out = "".join(f" Left out: {exclusion}." for exclusion in difference.excluded)
    common = Table(
        "difference",
        "B minus A, cell by cell",
        "Mean ± sample standard deviation over the seeds that both have, and so is the difference, "
        "with its 95 % interval (paired t); where they share no seed, over each one's own "
        f"(Welch's t).{adjusted} Identical: to the last bit.{left_out}",
        (
            *setting,
            *known("dataset", "series", "learning_rate"),
            Column("measure_label", "Of", kind="text"),
            Column("mean_a", "A", kind="measure"),
            Column("mean_b", "B", kind="measure"),
            Column("num_pairs", "n (shared seeds)", kind="count"),
            replace(
                KNOWN["difference"],
                heading="B − A",
                explanation="",
                signed=True,
                interval=("low", "high"),
            ),
            Column("outcome", "", kind="text"),
            *known("p_value", "p_holm", "p_sign_flip", "p_sign_flip_floor"),
        ),
        frame,
    )
    found = [common] if len(frame) else []
    alone = (("only_in_a", "Cells of A only", difference.only_a),
             ("only_in_b", "Cells of B only", difference.only_b))  # fmt: skip
    for name, title, cells in alone:
        if len(cells):
            found.append(_alone_table(name, title, cells, "num_runs"))
    if len(difference.unpaired):
        title = "Runs of common cells whose seed the other study lacks"
        found.append(_alone_table("unpaired_runs", title, difference.unpaired, "seed"))
    return found


def _alone_table(name: str, title: str, frame: pd.DataFrame, key: str) -> Table:
    columns = known("study", *SETTING, "dataset", "series", "learning_rate", key)
    return Table(name, title, "", filled(columns, frame), frame)


def _cells_table(setting: Mapping[str, str], parts: Mapping[str, pd.DataFrame]) -> Table:
    """The study's main table with the study as first column; each row is one study's cell."""
    frames = [grouping.cells_frame(runs).assign(study=name) for name, runs in parts.items()]
    together = pd.concat(frames, ignore_index=True)
    table = tables.study_table(together, setting)
    rows = by_natural_order(together, ["series", "learning_rate", "study"])
    return Table(
        table.name,
        f"The cells of each study: {_heading(setting)}",
        f"{table.note} No row pools two studies.",
        (KNOWN["study"], *table.columns),
        rows,
    )


# ---------------------------------------------------------------- shared


def _with_common_series(studies: Sequence[OneStudy]) -> list[OneStudy]:
    """The studies with methods named over all of them: what differs between two is in the name."""
    together = pd.concat([one.study.runs.assign(_study=one.name) for one in studies])
    together["method"] = series_labels(together)
    return [
        OneStudy(
            one.name,
            one.study.with_runs(together[together["_study"] == one.name].drop(columns="_study")),
            one.records,
        )
        for one in studies
    ]


def _settings(studies: Sequence[OneStudy]) -> list[tuple[dict[str, str], dict[str, pd.DataFrame]]]:
    """Each setting and, by study, its runs."""
    found: dict[tuple[str, ...], tuple[dict[str, str], dict[str, pd.DataFrame]]] = {}
    for one in studies:
        for setting, runs in grouping.split_settings(
            tables.with_intervals(one.study.runs, one.records)
        ):
            key = tuple(setting.values())
            found.setdefault(key, (setting, {}))[1][one.name] = runs
    return [found[key] for key in sorted(found)]


def _charts(setting: Mapping[str, str], parts: Mapping[str, pd.DataFrame]) -> Iterator[Chart]:
    """A chart of each metric that some study has."""
    drawn = {
        name: (grouping.cells_frame(runs), with_series[grouping.is_done(with_series)])
        for name, runs in parts.items()
        for with_series in [grouping.with_series(runs)]
    }
    cells = pd.concat([cells for cells, _ in drawn.values()])
    has_transfer = bool(setting.get("transfer"))
    metrics = [
        *outcome_metrics(has_transfer, accuracy_column(cells)),
        *drift_metrics(has_transfer),
    ]
    for metric in known_metrics(metrics, cells):
        known = {name: part for name, part in drawn.items() if known_metrics([metric], part[0])}
        yield side_by_side_chart(metric.key, known, metric)


def _words(chart: Chart) -> str:
    """The panels in words: the range of each study's means."""
    metric = METRICS[chart.name]
    ranges = []
    for name, panel in zip(chart.column_names, chart.panels[0], strict=True):
        means = [
            float(value)
            for one in panel.marks
            for value in one.y
            if not one.is_single and isinstance(value, int | float)
        ]
        ranges.append(f"{name} from {metric.text(min(means))} to {metric.text(max(means))}")
    return (
        f"{metric.heading} against the learning rate, a panel a study on the same axes: "
        f"{'; '.join(ranges)}. The numbers are in the table below."
    )


def _styles_of(
    parts: Mapping[str, pd.DataFrame], styles: Mapping[str, SeriesStyle]
) -> dict[str, SeriesStyle]:
    there = {name for runs in parts.values() for name in runs["method"]}
    return {name: style for name, style in styles.items() if name in there}


def _heading(setting: Mapping[str, str]) -> str:
    names = [setting.get(key, "") for key in ("dataset", "model", "protocol", "transfer")]
    return ", ".join(name for name in names if name)


def _values(records: Sequence[RunRecord]) -> dict[str, dict[str, None]]:
    """Every value that a study's runs take of each fact, in order; values as text."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        facts = {"spec": record.result.spec, "environment": record.result.environment.facts()}
        for name, value in flattened(facts).items():
            found.setdefault(name, {})[value] = None
    return found
