"""Interactive figures: the tables that `figures` draws, as what plotly.js draws in a page.

A plot is plotly's `data` and `layout` as plain values, without what every plot of a page shares
(the look: `templates/plots.js`). Colours of ink and paper are `var(--ink)` and the like, which the
page replaces by those of the theme in force. Texts are escaped: plotly reads tags in them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from driftscope.analysis.tables import LABELS, accuracy_column
from driftscope.analysis.words import interval_text, rate_text, spread_text
from driftscope.metrics import number_text
from driftscope.report.figures import Measure, seed_text, value_text
from driftscope.report.findings_figures import PROBE_COLOURS, PROBE_WORDS, signal_name
from driftscope.report.style import SeriesStyle, method_styles

Plot: TypeAlias = dict[str, Any]

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "p": "pentagon",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
    "*": "star",
}
_NAMED_RUNS = 6
_BESIDE = 0.025
"""How far beside the mean the dots of single runs stand, as a share of the axis."""
_TEXT_MARKS = {"mode": "markers", "hoverinfo": "text"}


def rate_plot(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    measure: Measure,
    styles: Mapping[str, SeriesStyle],
) -> Plot:
    """Mean ± sd of a measure against the learning rate, a line a series, a dot a run.

    Args:
        cells: `grouping.cells_frame`.
        runs: `grouping.with_series` of the finished runs.
        measure: the vertical axis.
        styles: how each series is drawn.
    """
    rates = sorted({float(rate) for rate in cells["learning_rate"]})
    named = runs_of_cells(runs)
    beside = (rates[-1] / rates[0]) ** _BESIDE
    data = _reference(measure, rates)
    for series, style in styles.items():
        mine = cells[cells["series"] == series].dropna(subset=[measure.key])
        dots = runs[runs["series"] == series].dropna(subset=[measure.key])
        dots = dots.sort_values(["learning_rate", "seed"])
        if mine.empty:
            continue
        data.append(
            {
                **_TEXT_MARKS,
                "name": escaped(series),
                "legendgroup": series,
                "x": _numbers(beside * dots["learning_rate"]),
                "y": _numbers(dots[measure.key]),
                "marker": {"color": style.colour, "size": 6, "opacity": 0.5},
                "hovertext": [
                    _lines(
                        f"{row['series']}, rate {rate_text(row['learning_rate'])}",
                        f"{seed_text(row)}: {value_text(row[measure.key], measure)}",
                        f"run {row['run_id']}",
                    )
                    for row in _rows(dots)
                ],
                "customdata": [str(name) for name in dots["run_id"]],
            }
        )
        spread = [_finite(row[f"{measure.key}_sd"]) for row in _rows(mine)]
        data.append(
            {
                **_TEXT_MARKS,
                "mode": "lines+markers",
                "name": escaped(series),
                "legendgroup": series,
                "x": _numbers(mine["learning_rate"]),
                "y": _numbers(mine[measure.key]),
                "error_y": {"array": spread, "color": style.colour, "thickness": 1.2, "width": 3},
                "line": {"color": style.colour, "dash": _dash(style), "width": 2},
                "marker": _marker(style, 9),
                "hovertext": [
                    _lines(
                        f"{series}, rate {rate_text(row['learning_rate'])}",
                        _mean_text(row, measure),
                        named.get((series, float(row["learning_rate"])), ""),
                    )
                    for row in _rows(mine)
                ],
            }
        )
    axis = {"title": "learning rate", "type": "log", "tickvals": rates, "showgrid": False}
    ticks = [rate_text(rate) for rate in rates]
    return _plot(measure.heading, data, {**axis, "ticktext": ticks}, _value_axis(measure))


def trajectory_plot(
    points: pd.DataFrame,
    series: str,
    measure: Measure,
    styles: Mapping[float, SeriesStyle],
) -> Plot:
    """One series over training: every run a thin line, the mean of each rate a thick one.

    Args:
        points: `grouping.run_history_frame`.
        series: which series.
        measure: what is followed.
        styles: how each learning rate is drawn.
    """
    wanted = ["run_id", "learning_rate", "seed", "epoch", "step", measure.key]
    mine = points.loc[points["series"] == series, wanted].dropna(subset=[measure.key])
    time = "step" if mine["step"].notna().all() else "epoch"
    data = _reference(measure, [0.0, float(mine[time].max())])
    for rate, at_rate in mine.groupby("learning_rate"):
        style = styles[float(rate)]  # type: ignore[arg-type]  # the key of a float column
        group = rate_text(float(rate))  # type: ignore[arg-type]
        for _, run in at_rate.groupby("run_id", sort=False):
            data.append(
                {
                    **_TEXT_MARKS,
                    "mode": "lines",
                    "name": group,
                    "legendgroup": group,
                    **_from_start(run[time], run[measure.key], measure),
                    "line": {"color": style.colour, "width": 1},
                    "opacity": 0.45,
                    "hovertext": _BEFORE[: _starts_before(run[time], measure)]
                    + [
                        _lines(
                            f"{series}, rate {group}, {seed_text(row)}",
                            f"{_when(row)}: {value_text(row[measure.key], measure)}",
                            f"run {row['run_id']}",
                        )
                        for row in _rows(run)
                    ],
                    "customdata": [str(run["run_id"].iloc[0])] * (len(run) + 1),
                }
            )
        means = at_rate.groupby(time).agg(
            **{measure.key: (measure.key, "mean"), "num_runs": ("run_id", "nunique")},
            epoch=("epoch", "first"),
            seeds=("seed", _seeds_text),
        )
        data.append(
            {
                **_TEXT_MARKS,
                "mode": "lines+markers",
                "name": group,
                "legendgroup": group,
                **_from_start(means.index, means[measure.key], measure),
                "line": {"color": style.colour, "width": 2},
                "marker": _marker(style, 7),
                "hovertext": _BEFORE[: _starts_before(means.index, measure)]
                + [
                    _lines(
                        f"{series}, rate {group}",
                        f"{_when(row)}: {value_text(row[measure.key], measure)}",
                        f"mean of {row['seeds']}",
                    )
                    for row in _rows(means.reset_index())
                ],
            }
        )
    title = f"{series}: {measure.heading}"
    return _plot(title, data, {"title": time, "showgrid": False}, _value_axis(measure))


def predictor_plot(table: pd.DataFrame, *, title: str = "") -> Plot:
    """Each signal's rank correlation with retention and its interval, final and first probe.

    Args:
        table: rows of one scope of `analysis.predictors`.
        title: what stands above.
    """
    frame = table.assign(
        name=[signal_name(*pair) for pair in zip(table["signal"], table["form"], strict=True)]
    )
    final = frame[frame["probe"] == "final"].sort_values("abs_rho")
    names = list(dict.fromkeys([*final["name"], *frame["name"]]))
    data = []
    for probe, words in reversed(PROBE_WORDS.items()):
        mine = frame[(frame["probe"] == probe) & frame["rho"].notna()]
        if mine.empty:
            continue
        rows = _rows(mine)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "hoverinfo": "text",
                "name": words,
                "legendgroup": words,
                "x": _numbers(mine["rho"]),
                "y": [escaped(row["name"]) for row in rows],
                "marker": {"color": PROBE_COLOURS[probe]},
                "error_x": {
                    "array": [_finite(row["high"] - row["rho"]) for row in rows],
                    "arrayminus": [_finite(row["rho"] - row["low"]) for row in rows],
                    "symmetric": False,
                    "color": "var(--ink)",
                    "thickness": 1,
                    "width": 0,
                },
                "hovertext": [
                    _lines(
                        f"{row['name']}, {words}",
                        f"ρ = {number_text(row['rho'], 2)} "
                        + interval_text(row["low"], row["high"], 2),
                        f"{row['num_cells']:.0f} cells",
                    )
                    for row in rows
                ],
            }
        )
    return _plot(
        title or "Rank correlation with retention",
        data,
        {"title": "Spearman's ρ", "range": [-1.02, 1.02], "zeroline": True},
        {"categoryarray": [escaped(name) for name in names], "showgrid": False},
        height=90 + 34 * len(names),
        barmode="group",
        bargap=0.25,
        showlegend=True,
    )


def frontier_plot(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    title: str = "",
) -> Plot:
    """Target accuracy against retention, a mark a cell; non-dominated cells ringed and joined.

    Args:
        table: rows of one dataset of `analysis.frontier`.
        runs: `grouping.with_series` of that dataset's finished runs, named in the hover texts.
        styles: how each series is drawn.
        title: what stands above.
    """
    accuracy = accuracy_column(table)
    named = runs_of_cells(runs)
    series = list(dict.fromkeys(table["method"]))
    own = {**method_styles(series), **(styles or {})}
    best = table[table["is_on_frontier"]].sort_values(accuracy)
    data: list[dict[str, Any]] = [
        {
            "mode": "lines",
            "x": _numbers(best[accuracy]),
            "y": _numbers(best["retention_pct"]),
            "line": {"color": "var(--muted)", "width": 1},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    for name in series:
        rows = _rows(table[table["method"] == name])
        style = own[name]
        ringed = [bool(row["is_on_frontier"]) for row in rows]
        spreads = {
            axis: {
                "array": [_finite(row.get(f"{key}_sd")) for row in rows],
                "color": style.colour,
                "thickness": 1,
                "width": 0,
            }
            for axis, key in (("error_x", accuracy), ("error_y", "retention_pct"))
        }
        data.append(
            {
                **_TEXT_MARKS,
                "name": escaped(name),
                "legendgroup": name,
                "x": [_finite(row[accuracy]) for row in rows],
                "y": [_finite(row["retention_pct"]) for row in rows],
                **spreads,
                "marker": {
                    "color": style.colour,
                    "symbol": _SYMBOLS[style.marker],
                    "opacity": 1,
                    "size": [12 if on else 9 for on in ringed],
                    "line": {
                        "color": ["var(--ink)" if on else "var(--paper)" for on in ringed],
                        "width": [2 if on else 1 for on in ringed],
                    },
                },
                "hovertext": [
                    _lines(
                        f"{name}, rate {rate_text(row['learning_rate'])}"
                        + (", on the frontier" if row["is_on_frontier"] else ""),
                        f"accuracy {_spread(row, accuracy)} %",
                        f"retention {_spread(row, 'retention_pct')} %",
                        named.get((name, float(row["learning_rate"])), ""),
                    )
                    for row in rows
                ],
            }
        )
    return _plot(
        title or "Accuracy against retention",
        data,
        {"title": f"{LABELS[accuracy]}, %"},
        {"title": "retention, %", "rangemode": "tozero"},
        height=400,
        showlegend=True,
    )


_BEFORE = ["<b>before training</b>"]


def _starts_before(times: Iterable[float], measure: Measure) -> int:
    """1 where a line begins with the pretrained level at time 0, else 0."""
    return int(measure.reference is not None and min(times) > 0)


def _from_start(
    times: Iterable[float], values: Iterable[float], measure: Measure
) -> dict[str, list[float | None]]:
    """A line's points, from the pretrained level on."""
    x, y = _numbers(times), _numbers(values)
    if _starts_before(times, measure):
        return {"x": [0.0, *x], "y": [measure.reference, *y]}
    return {"x": x, "y": y}


# ---------------------------------------------------------------- words


def runs_of_cells(runs: pd.DataFrame) -> dict[tuple[str, float], str]:
    """The seeds and run ids of each series and rate, as a hover text names them."""
    named = {}
    for (series, rate), mine in runs.groupby(["series", "learning_rate"], sort=False):
        texts = [f"{seed_text(row)} (run {row['run_id']})" for row in _rows(mine)]
        if len(texts) > _NAMED_RUNS:
            texts = [*texts[:_NAMED_RUNS], f"and {len(texts) - _NAMED_RUNS} more"]
        named[str(series), float(rate)] = "\n".join(texts)  # type: ignore[arg-type]
    return named


def escaped(text: object) -> str:
    """Text that plotly shows as it is: it would take tags for markup."""
    return html.escape(str(text), quote=False)


def _lines(first: str, *more: str) -> str:
    lines = [line for text in more for line in text.splitlines()]
    return "<br>".join([f"<b>{escaped(first)}</b>", *(escaped(line) for line in lines)])


def _mean_text(row: Mapping[str, Any], measure: Measure) -> str:
    text = spread_text(
        row[measure.key], row[f"{measure.key}_sd"], measure.decimals, signed=measure.signed
    )
    return f"{text} {measure.unit}".rstrip()


def _spread(row: Mapping[str, Any], key: str) -> str:
    return spread_text(row[key], row.get(f"{key}_sd", math.nan), 1)


def _seeds_text(seeds: Iterable[Any]) -> str:
    known = sorted({int(seed) for seed in seeds if seed is not None and seed == seed})
    return f"seed{'' if len(known) == 1 else 's'} {', '.join(str(seed) for seed in known)}"


def _when(row: Mapping[str, Any]) -> str:
    parts = [f"epoch {row['epoch']:.0f}" if _finite(row.get("epoch")) is not None else ""]
    parts += [f"step {row['step']:.0f}" if _finite(row.get("step")) is not None else ""]
    return ", ".join(part for part in parts if part)


# ---------------------------------------------------------------- plotly's words


def _plot(
    title: str,
    data: Sequence[Mapping[str, Any]],
    xaxis: Mapping[str, Any],
    yaxis: Mapping[str, Any],
    height: int = 280,
    **layout: Any,
) -> Plot:
    """`title` stands above the plot as text of the page, so that it can wrap."""
    axes = {"xaxis": _axis(xaxis), "yaxis": _axis(yaxis)}
    return {"title": title, "data": list(data), "layout": {**axes, "height": height, **layout}}


def _axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    title = axis.get("title")
    return {**axis, "title": {"text": title}} if title else dict(axis)


def _value_axis(measure: Measure) -> dict[str, Any]:
    return {"rangemode": "tozero"} if measure.floor == 0 else {}


def _reference(measure: Measure, ends: Sequence[float]) -> list[dict[str, Any]]:
    """The pretrained model's level as a dashed line."""
    if measure.reference is None or not ends:
        return []
    first, last = min(ends), max(ends)
    return [
        {
            "mode": "lines",
            "x": [first, last],
            "y": [measure.reference] * 2,
            "line": {"color": "var(--muted)", "dash": "5px,4px", "width": 1},
            "hoverinfo": "skip",
        }
    ]


def _marker(style: SeriesStyle, size: int) -> dict[str, Any]:
    return {
        "color": style.colour,
        "symbol": _SYMBOLS[style.marker],
        "size": size,
        "line": {"color": "var(--paper)", "width": 1},
    }


def _dash(style: SeriesStyle) -> str:
    """Matplotlib's dashes, which are in widths of the line, in pixels."""
    if isinstance(style.line, str):
        return "solid"
    return ",".join(f"{2 * length:g}px" for length in style.line[1])


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _numbers(values: Iterable[Any]) -> list[float | None]:
    """Numbers as JSON takes them, to six digits: none can be seen finer."""
    known = [_finite(float(value)) for value in values]
    return [None if value is None else float(f"{value:.6g}") for value in known]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(key): frame[key].tolist() for key in frame.columns}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
