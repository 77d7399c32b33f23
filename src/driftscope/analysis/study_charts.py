"""The figures of a study's runs as charts: against the learning rate, over training, by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from driftscope import limits
from driftscope.analysis.chart import Axis, Chart, Marks, Panel, ends, points
from driftscope.analysis.estimate_charts import estimate_chart
from driftscope.analysis.grouping import (
    PLACE,
    cells_frame,
    class_cells_frame,
    head_cells_frame,
    history_cells_frame,
    is_done,
    run_history_frame,
    with_series,
)
from driftscope.analysis.map_charts import (
    RATE_TITLE,
    LayerScales,
    cka_chart,
    class_chart,
    head_maps_chart,
    layer_chart,
    rows_of,
    seed_count,
)
from driftscope.analysis.table import slug
from driftscope.analysis.tables import StudyTables, accuracy_column
from driftscope.analysis.words import rate_text, seed_text, spread_text
from driftscope.metric import Metric
from driftscope.metrics import METRICS, main_drifts

_NAMED_RUNS = 6


# ---------------------------------------------------------------- of one place


@dataclass(frozen=True)
class PlaceCharts:
    """Everything that is drawn of one place; single runs only where `are_runs_drawn`.

    A chart is made when it is first asked for; None where the runs do not have what is shown.

    Attributes:
        study: whose history, heads and classes are shown (rows of other places are left out).
        place: what `grouping.split_settings` says it is.
        runs: its runs.
        layer_cells: `grouping.layer_cells_frame` of them, may be empty.
        scales: of the maps by layer, one for all places.
    """

    study: StudyTables
    place: Mapping[str, str]
    runs: pd.DataFrame
    layer_cells: pd.DataFrame
    scales: LayerScales

    @property
    def known(self) -> Iterator[Chart]:
        """Those that there are, in the order of the files' names."""
        for kind in (
            "outcomes",
            "drifts",
            "layers_cka",
            "layers",
            "heads",
            "classes",
            "trajectories",
            "estimates",
        ):
            chart: Chart | None = getattr(self, kind)
            if chart is not None:
                yield chart

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell."""
        return cells_frame(self.runs)

    @cached_property
    def class_cells(self) -> pd.DataFrame:
        """One row a cell and class of the transfer set."""
        return class_cells_frame(self.study.classes, self.runs)

    @property
    def has_heads(self) -> bool:
        """Whether the heads of any run are known."""
        heads = self.study.heads
        if "head" not in heads:
            return False
        return bool((heads["run_id"].isin(self.runs["run_id"]) & heads["head"].notna()).any())

    @cached_property
    def outcomes(self) -> Chart | None:
        """What came out, against the learning rate."""
        found = outcome_metrics(self._has_transfer, accuracy_column(self.cells))
        return self._rate_chart("learning_rate", found)

    @cached_property
    def drifts(self) -> Chart | None:
        """The dose response of the representation and the weights."""
        return self._rate_chart("dose_response", drift_metrics(self._has_transfer))

    @cached_property
    def trajectories(self) -> Chart | None:
        """What is followed over training; nothing where no run has two epochs."""
        history = self.study.history
        probes = history_cells_frame(history, self.runs) if len(history) else history
        if probes.empty or probes["epoch"].nunique() < 2:
            return None
        return trajectory_chart(
            self._name("trajectories"),
            probes,
            run_history_frame(history, self.runs),
            self._series(probes),
            known_metrics(followed_metrics(self._has_transfer), probes),
            has_thin_lines=are_runs_drawn(self.study.runs),
        )

    @cached_property
    def layers_cka(self) -> Chart | None:
        """CKA of each layer with the pretrained model, a map a series."""
        cells = self.layer_cells
        if "cka" not in cells or cells["cka"].isna().all():
            return None
        return cka_chart(self._name("layer_cka"), cells, self._series(cells), self.scales.cka)

    @cached_property
    def layers(self) -> Chart | None:
        """The change of each layer's entropy, a map a series."""
        cells, name = self.layer_cells, self._name("layer_entropy")
        return (
            layer_chart(name, cells, self._series(cells), self.scales.entropy)
            if len(cells)
            else None
        )

    @cached_property
    def heads(self) -> Chart | None:
        """The change of each head's entropy, a map a cell."""
        cells = head_cells_frame(self.study.heads, self.runs)
        name = self._name("head_entropy")
        return head_maps_chart(name, cells, self._series(cells)) if len(cells) else None

    @cached_property
    def classes(self) -> Chart | None:
        """What is left of each class, a column a cell."""
        cells, name = self.class_cells, self._name("retention_by_class")
        return class_chart(name, cells, self._series(cells)) if len(cells) else None

    @cached_property
    def estimates(self) -> Chart | None:
        """Each run's retention, estimated against measured."""
        if not are_runs_drawn(self.study.runs):
            return None
        return estimate_chart(self._name("estimates"), self.runs)

    def _rate_chart(self, kind: str, wanted: Iterable[Metric]) -> Chart | None:
        metrics = known_metrics(wanted, self.cells)
        if not metrics:
            return None
        # rows are walked one by one: only with what is drawn, since a run has fifty columns
        keys = ["run_id", "series", "learning_rate", "seed", "num_runs"]
        keys += [one.key for one in metrics]
        done = with_series(self.runs)[is_done(self.runs)].reindex(columns=keys)
        has_dots = are_runs_drawn(self.study.runs)
        return rate_chart(self._name(kind), self.cells, done, metrics, has_dots=has_dots)

    @property
    def _has_transfer(self) -> bool:
        return bool(self.place.get("transfer"))

    def _name(self, kind: str) -> str:
        return f"{kind}_{slug(' '.join(self.place.get(key, '') for key in PLACE))}"

    def _series(self, frame: pd.DataFrame) -> list[str]:
        """The series that have a row in the frame."""
        there = set(frame["series"])
        return [name for name in dict.fromkeys(self.cells["series"]) if name in there]


def are_runs_drawn(runs: pd.DataFrame) -> bool:
    """Whether a study's figures show each run beside the means; of thousands none could be seen."""
    return len(runs) <= limits.PAGE_RUNS.value


def outcome_metrics(has_transfer: bool, accuracy: str = "test_accuracy_pct") -> list[Metric]:
    """Shown against the learning rate first: accuracy, what was kept, and CKA.

    Args:
        has_transfer: whether zero-shot ability was measured.
        accuracy: which accuracy is known of the cells (`analysis.tables.accuracy_column`).
    """
    kept = ["retention_pct"] if has_transfer else []
    return [METRICS[key] for key in (accuracy, *kept, "cka")]


def drift_metrics(has_transfer: bool) -> list[Metric]:
    """The dose response of embeddings, weights and attention, and of what plug-ins measure."""
    shown = outcome_metrics(has_transfer)
    return [one for one in main_drifts("run") if one not in shown]


def followed_metrics(has_transfer: bool) -> list[Metric]:
    """What is followed over training: retention, CKA, entropy drift, what plug-ins measure."""
    keys = (*(["retention_pct"] if has_transfer else []), "cka", "delta_entropy_pct")
    added = [one for one in main_drifts("run", "epoch") if one.plug_in]
    return [*map(METRICS.__getitem__, keys), *added]


def known_metrics(metrics: Iterable[Metric], frame: pd.DataFrame) -> list[Metric]:
    """Those of which the frame holds a value."""
    return [one for one in metrics if one.key in frame and frame[one.key].notna().any()]


# ---------------------------------------------------------------- against the learning rate


def rate_chart(
    name: str,
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    metrics: Sequence[Metric],
    *,
    rates: Sequence[float] = (),
    has_dots: bool = True,
) -> Chart:
    """A panel a metric: mean ± sd against the learning rate (log), a line a series, a dot a run.

    Args:
        name: the chart's name.
        cells: `grouping.cells_frame`.
        runs: `grouping.with_series` of the same finished runs.
        metrics: the panels, from the left; each known in `cells`.
        rates: the ticks of the horizontal axis; by default the cells' own rates.
        has_dots: whether each run is a dot.
    """
    ticks = tuple(rates) or tuple(sorted({float(rate) for rate in cells["learning_rate"]}))
    named = runs_of_cells(runs)
    dots = runs if has_dots else runs.iloc[:0]
    panels = tuple(_rate_panel(cells, dots, metric, ticks, named) for metric in metrics)
    series = tuple(dict.fromkeys(cells["series"]))
    return Chart(name, (panels,), series, column_names=tuple(one.heading for one in metrics))


def side_by_side_chart(
    name: str, parts: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], metric: Metric
) -> Chart:
    """One metric against the learning rate, a panel a study, all on the same two axes.

    Args:
        name: the chart's name.
        parts: by what stands above the panel, the cells and runs as `rate_chart` takes them.
        metric: what is shown.
    """
    rates = sorted({float(rate) for cells, _ in parts.values() for rate in cells["learning_rate"]})
    charts = [rate_chart(name, *part, [metric], rates=rates) for part in parts.values()]
    return Chart(
        name,
        (tuple(panel for chart in charts for panel in chart.flat),),
        tuple(dict.fromkeys(series for chart in charts for series in chart.legend)),
        row_names=(metric.heading,),
        column_names=tuple(parts),
        shares_y="row",
    )


def _rate_panel(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    metric: Metric,
    ticks: tuple[float, ...],
    named: Mapping[tuple[str, float], str],
) -> Panel:
    marks, told = [], []
    for series, mine in cells.dropna(subset=[metric.key]).groupby("series", sort=False):
        dots = runs[runs["series"] == series].dropna(subset=[metric.key])
        if len(dots):
            marks.append(_dots(dots.sort_values(["learning_rate", "seed"]), str(series), metric))
        rows = rows_of(mine.sort_values("learning_rate"))
        marks.append(
            Marks(
                points(row["learning_rate"] for row in rows),
                points(row[metric.key] for row in rows),
                "line",
                str(series),
                y_ends=ends(mine[metric.key], mine[f"{metric.key}_sd"]),
                hover=tuple(_cell_text(row, metric, named) for row in rows),
            )
        )
        values = (
            f"{metric.text(row[metric.key])} at {rate_text(row['learning_rate'])}" for row in rows
        )
        told.append(f"{series}: {', '.join(values)}")
    return Panel(
        metric.key,
        metric.heading,
        Axis(RATE_TITLE, scale="log", ticks=ticks),
        Axis(metric=metric.key),
        tuple(marks),
        level=metric.unchanged,
        words=f"{metric.heading} against the learning rate. {'; '.join(told)}.",
    )


def _dots(runs: pd.DataFrame, series: str, metric: Metric) -> Marks:
    """A dot a run."""
    return Marks(
        points(runs["learning_rate"]),
        points(runs[metric.key]),
        "dots",
        series,
        hover=tuple(_run_text(row, metric) for row in rows_of(runs)),
        run_ids=tuple(str(name) for name in runs["run_id"]) if "run_id" in runs else (),
        is_single=True,
    )


def _run_text(row: Mapping[str, Any], metric: Metric, when: str = "") -> str:
    """What is told of one run's dot, with its seed and id."""
    name = f"{row['series']}, rate {rate_text(row['learning_rate'])}"
    seed, value = seed_text(row), metric.with_unit(row[metric.key])
    told = (f"{name}, {seed}", f"{when}: {value}") if when else (name, f"{seed}: {value}")
    return _lines(*told, _run_name(row))


def _cell_text(
    row: Mapping[str, Any], metric: Metric, named: Mapping[tuple[str, float], str]
) -> str:
    """What is told of a cell's mean, with its spread and its runs."""
    series, rate = row["series"], float(row["learning_rate"])
    return _lines(
        f"{series}, rate {rate_text(rate)}",
        f"{spread_of(row, metric)} {metric.unit}".rstrip(),
        named.get((series, rate), seed_count(row["num_runs"])),
    )


# ---------------------------------------------------------------- over training


def trajectory_chart(
    name: str,
    probes: pd.DataFrame,
    points_of_runs: pd.DataFrame,
    series: Sequence[str],
    metrics: Sequence[Metric],
    *,
    has_thin_lines: bool = True,
) -> Chart:
    """A row a series, a column a metric: every run a thin line, the mean of each rate a thick one.

    Lines start at the pretrained level, at step 0. The panels of a metric share its axis.

    Args:
        name: the chart's name.
        probes: `grouping.history_cells_frame`.
        points_of_runs: `grouping.run_history_frame`.
        series: the rows, from above; each known in `probes`.
        metrics: the columns, from the left; each known in `probes`.
        has_thin_lines: whether each run is a line.
    """
    rates = sorted({float(rate) for rate in probes["learning_rate"]})
    time = "step" if probes["step"].notna().all() else "epoch"
    spans = {one.key: _span(points_of_runs[one.key], one) for one in metrics}
    return Chart(
        name,
        tuple(
            tuple(
                _trajectory_panel(
                    probes[probes["series"] == one],
                    points_of_runs[points_of_runs["series"] == one],
                    one,
                    metric,
                    time,
                    spans[metric.key],
                    has_thin_lines,
                )
                for metric in metrics
            )
            for one in series
        ),
        tuple(rate_text(rate) for rate in rates),
        "rates",
        row_names=tuple(series),
        column_names=tuple(metric.heading for metric in metrics),
        shares_y="column",
        legend_title=RATE_TITLE,
    )


def _trajectory_panel(
    means: pd.DataFrame,
    runs: pd.DataFrame,
    series: str,
    metric: Metric,
    time: str,
    span: tuple[float, float] | None,
    has_thin_lines: bool,
) -> Panel:
    marks = []
    by_rate = dict(list(runs.dropna(subset=[metric.key]).groupby("learning_rate")))
    for rate, mean in means.dropna(subset=[metric.key]).groupby("learning_rate"):
        name = rate_text(float(rate))  # type: ignore[arg-type]  # the key of a float column
        own = by_rate[rate]
        for run_id, run in own.groupby("run_id", sort=False) if has_thin_lines else ():
            told = [_run_text(row, metric, _when(row)) for row in rows_of(run)]
            marks.append(_path(run, metric, time, name, told, run_id=str(run_id)))
        seeds = _seeds_text(own["seed"])
        told = [
            _lines(
                f"{series}, rate {name}",
                f"{_when(row)}: {metric.with_unit(row[metric.key])}",
                f"mean of {seeds}" if seeds else seed_count(row["num_runs"]),
            )
            for row in rows_of(mean)
        ]
        marks.append(_path(mean, metric, time, name, told))
    return Panel(
        f"{series} {metric.key}",
        f"{series}: {metric.heading}",
        Axis(time),
        Axis(metric=metric.key, limits=span),
        tuple(marks),
        level=metric.unchanged,
        words=f"{metric.heading} of {series} over training, one line a learning rate.",
    )


def _span(values: pd.Series[Any], metric: Metric) -> tuple[float, float] | None:
    """What one metric's panels all show, so that equal slopes are equal changes."""
    known = [one for one in (*points(values), metric.unchanged) if one is not None]
    if min(known) == max(known):
        return None
    room = 0.05 * (max(known) - min(known))
    return min(known) - room, max(known) + room


def _path(
    rows: pd.DataFrame,
    metric: Metric,
    time: str,
    name: str,
    told: Sequence[str],
    *,
    run_id: str = "",
) -> Marks:
    """A line over training, from the pretrained level on where that is known."""
    x, y = points(rows[time]), points(rows[metric.key])
    if metric.unchanged is not None and min(at for at in x if at is not None) > 0:
        x, y, told = (0.0, *x), (metric.unchanged, *y), ("before training", *told)
    ids = (run_id,) * len(x) if run_id else ()
    return Marks(x, y, "line", name, hover=tuple(told), run_ids=ids, is_single=bool(run_id))


# ---------------------------------------------------------------- along one axis


def profile_chart(
    name: str, rows: pd.DataFrame, metrics: Sequence[Metric], along: str = "layer"
) -> Chart:
    """A panel a metric: its value at each layer (or step) as a line with its points."""
    panels = []
    where = "over the steps" if along == "step" else f"at each {along}"
    for metric in metrics:
        known = rows.dropna(subset=[metric.key])
        x, y = points(known[along]), points(known[metric.key])
        if along == "step" and metric.unchanged is not None and min(known[along]) > 0:
            x, y = (0.0, *x), (metric.unchanged, *y)
        told = ", ".join(
            f"{metric.text(value)} at {along} {at:.0f}" for at, value in zip(x, y, strict=True)
        )
        panels.append(
            Panel(
                metric.key,
                metric.heading,
                Axis(along),
                Axis(metric=metric.key),
                (Marks(x, y, name="lora"),),
                level=metric.unchanged,
                words=f"{metric.heading} {where}: {told}.",
            )
        )
    return Chart(name, (tuple(panels),), column_names=tuple(one.heading for one in metrics))


# ---------------------------------------------------------------- words


def runs_of_cells(runs: pd.DataFrame) -> dict[tuple[str, float], str]:
    """The seeds and run ids of each series and rate, as a text tells them."""
    named = {}
    for (series, rate), mine in runs.groupby(["series", "learning_rate"], sort=False):
        first = rows_of(mine.head(_NAMED_RUNS))
        texts = [f"{seed_text(row)} ({_run_name(row)})".replace(" ()", "") for row in first]
        if len(mine) > _NAMED_RUNS:
            texts.append(f"and {len(mine) - _NAMED_RUNS} more")
        named[str(series), float(rate)] = "\n".join(texts)  # type: ignore[arg-type]
    return named


def spread_of(row: Mapping[str, Any], metric: Metric) -> str:
    """A cell's mean of a metric ± its sd."""
    sd = row.get(f"{metric.key}_sd", math.nan)
    return spread_text(row[metric.key], sd, metric.decimals, signed=metric.signed)


def _run_name(row: Mapping[str, Any]) -> str:
    return f"run {row['run_id']}" if row.get("run_id") else ""


def _seeds_text(seeds: Iterable[Any]) -> str:
    known = sorted({int(seed) for seed in seeds if seed is not None and seed == seed})
    if not known:
        return ""
    return f"seed{'' if len(known) == 1 else 's'} {', '.join(str(seed) for seed in known)}"


def _when(row: Mapping[str, Any]) -> str:
    """'epoch 3, step 120', as far as both are known."""
    known = [key for key in ("epoch", "step") if points([row.get(key)]) != (None,)]
    return ", ".join(f"{key} {row[key]:.0f}" for key in known)


def _lines(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
