"""What the study commands show: the plan, the status, the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from driftscope.cli.failures import readable, say
from driftscope.cli.terminal import close_table, duration, out
from driftscope.config import run_id
from driftscope.study.plan import wall_seconds
from driftscope.study.status import STATES, StudyStatus

if TYPE_CHECKING:
    import pandas as pd

    from driftscope.analysis import Answer
    from driftscope.analysis.table import Column, Table
    from driftscope.config import StudySpec
    from driftscope.refusals import Outlook
    from driftscope.study import Cell
    from driftscope.study.plan import Estimate

_UNBROKEN = Console(width=10_000, highlight=False, markup=False, emoji=False)
MAX_ROWS = 40
"""Rows of a table of cells or of an answer that are shown; --json has them all."""

FEW_ROWS = 16
"""Of every answer, where all questions are asked at once."""

ANSWERING = (
    *("model", "protocol", "transfer", "matching", "scope", "dataset", "budget_pct", "way"),
    *(
        "pool",
        "method",
        "comparison",
        "learning_rate",
        "outcome",
        "metric",
        "probe",
        "signal",
        "form",
        "rule",
    ),
    *("option", "regularizer", "layer"),
    *("rho", "difference", "low", "high", "p_over_rates", "p_holm", "p_exact", "p_value"),
    *("test_accuracy_pct", "retention_pct", "is_kept", "regret_points", "is_on_frontier"),
    *("most_changed_layer", "largest_delta_entropy_pct", "onset_layer", "onset_epoch"),
    *("sd_over_seeds", "seed_share"),
)
"""Columns of an answer that a narrow terminal keeps, the most important first: what it is of, what
it is."""

GAP, EDGES = 2, 1
"""Blanks behind each column of a table, and before the first."""

LONGEST_WORD = 30
"""Letters of a word that a column is as wide as; a longer one is broken."""


# ---------------------------------------------------------------- plan


def plan_values(
    study: StudySpec,
    cells: Sequence[Cell],
    states: Mapping[str, str],
    cost: Estimate | None,
    workers: int,
    outlook: Outlook,
) -> dict[str, Any]:
    """A plan as JSON holds it, and as `show_plan` shows it."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        found = [states.get(run_id(spec), "waiting") for spec in cell.specs]
        counts: dict[str, int] = {state: found.count(state) for state in STATES}
        rows.append({**cell.labels, "seeds": [spec.seed for spec in cell.specs], **counts})
    num_runs = sum(len(cell.specs) for cell in cells)
    num_done = sum(row["done"] for row in rows)
    return {
        "study": study.name,
        "title": study.title,
        "num_cells": len(cells),
        "num_runs": num_runs,
        "num_done": num_done,
        "num_failed": sum(row["failed"] for row in rows),
        "num_to_run": num_runs - num_done - sum(row["failed"] for row in rows),
        "workers": workers,
        "seconds": None if cost is None else wall_seconds(cost.run_seconds, workers),
        "bytes": None if cost is None else cost.num_bytes,
        "num_samples": 0 if cost is None else cost.num_samples,
        "refusals": [
            {"runs": [run_id(spec) for spec in one.specs], "sentence": one.sentence}
            for one in outlook.refusals
        ],
        "unseen": list(outlook.unseen),
        "cells": rows,
    }


def show_plan(plan: Mapping[str, Any]) -> None:
    """The cells, the number of runs, and what they will take."""
    from driftscope.analysis.words import counted

    rows = plan["cells"]
    labels = [{k: v for k, v in row.items() if k not in (*STATES, "seeds")} for row in rows]
    counts = [
        {"runs": len(row["seeds"]), **{s: row[s] for s in STATES if s != "waiting"}} for row in rows
    ]
    out.print(Text(plan["title"] or plan["study"], style="bold"))
    out.print(_cells_view(labels, counts))
    out.print(
        f"{counted(plan['num_runs'], 'run')} in {counted(plan['num_cells'], 'cell')}: "
        f"{plan['num_done']} done, "
        f"{plan['num_failed']} failed, {plan['num_to_run']} to run."
    )
    for refusal in plan["refusals"]:
        runs = counted(len(refusal["runs"]), "run")
        say(f"Would fail, {runs}: {readable(refusal['sentence'])}", err=True)
    if plan["unseen"]:
        out.print(Text(_not_checked(plan["unseen"])))
    if plan["seconds"] is None:
        out.print(
            "No estimate of time and disk yet: --calibrate measures one short run of each kind; "
            "--out names a folder with finished runs."
        )
        return
    at_a_time = "one at a time" if plan["workers"] == 1 else f"{plan['workers']} at a time"
    out.print(
        f"About {duration(plan['seconds'])} with {at_a_time}, and {size_text(plan['bytes'])} "
        f"on disk (from {plan['num_samples']} measured runs)."
    )


def _not_checked(names: Sequence[str]) -> str:
    """Why what may be on the hub is not checked, and how it would be."""
    from driftscope.analysis.words import join_words

    is_one = len(names) == 1
    them = "it" if is_one else "them"
    return (
        f"Not checked: {join_words(names)} {'is' if is_one else 'are'} not on this disk, and a "
        f"plan downloads nothing; name a folder that holds {them} to have {them} checked before "
        "the first run."
    )


def status_view(status: StudyStatus) -> RenderableType:
    """How far a study is: in all, what runs, what failed, cell by cell."""
    if not status.cells:
        return Text(f"{status.title}: no runs, means of cells alone")
    summary = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count)
    left = status.seconds_left
    about = f"; about {duration(left)} left" if left else ""
    parts: list[RenderableType] = [
        Text(status.title, style="bold"),
        f"{status.num_runs} runs: {summary}{about}",
    ]
    parts += [
        Text(
            f"  {sign.worker}: {words}, {100 * sign.share:.0f} % of its steps "
            f"(sign of life {sign.age_seconds:.0f} s ago)"
        )
        for words, sign in status.running
    ]
    parts += [Text(f"  failed: {words}: {why}", style="red") for words, why in status.failures]
    # the table last: a view that is renewed in place is cut at the terminal's foot
    cells = status.cells
    parts.append(_cells_view([cell.labels for cell in cells], [cell.counts for cell in cells]))
    return Group(*parts)


def _cells_view(
    labels: Sequence[Mapping[str, str]], counts: Sequence[Mapping[str, int]]
) -> RenderableType:
    """A row a cell: the labels that vary, the counts that are not all zero. The rest above it."""
    varying = [name for name in labels[0] if len({row[name] for row in labels}) > 1]
    same = [f"{_words(k)} {value}" for k, value in labels[0].items() if k not in varying]
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in varying:
        table.add_column(_words(name), no_wrap=True)
    shown = [name for name in counts[0] if any(row[name] for row in counts)]
    for name in shown:
        table.add_column(name, justify="right")
    for label, count in list(zip(labels, counts, strict=True))[:MAX_ROWS]:
        numbers = (str(count[name]) if count[name] else "·" for name in shown)
        table.add_row(*(Text(label[name]) for name in varying), *numbers)
    parts: list[RenderableType] = [table]
    if same:
        parts.insert(0, Text(f"all cells: {', '.join(same)}", style="dim"))
    if len(labels) > MAX_ROWS:
        parts.append(f"… and {len(labels) - MAX_ROWS} more cells (--json lists all)")
    return Group(*parts)


def _words(name: str) -> str:
    return name.replace("_", " ")


def size_text(num_bytes: float) -> str:
    """Bytes in words: 3.2 GB."""
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


# ---------------------------------------------------------------- answers


def show_answer(answer: Answer, *, wide: bool = False, most: int = MAX_ROWS) -> None:
    """A question's answer: the sentence, the numbers, what was left out.

    Args:
        answer: the answer.
        wide: whether every column and row is printed, on lines as long as they need to be.
        most: how many rows are printed otherwise.
    """
    from driftscope.analysis.answer_tables import answer_tables

    out.print(Text(f"\n{_words(answer.question)}", style="bold"))
    out.print(Text(answer.words))
    if answer.is_answered and not answer.table.empty:
        table = answer_tables(answer)[0]
        if wide:
            _print_columns(table.columns, table.rows, _UNBROKEN)
        else:
            rows = table.rows[:most]
            shown, alike = _fitting(table, rows)
            _print_columns(shown, rows, out)
            if alike:
                out.print(Text(f"all rows shown: {', '.join(alike)}", style="dim"))
            _say_what_is_left(len(table.rows) - len(rows), len(table.columns) - len(shown))
        out.print(Text(f"units: {answer.num_units} {answer.unit}", style="dim"))
    for exclusion in answer.excluded:
        out.print(Text(f"left out: {exclusion}", style="dim"))


def _fitting(table: Table, rows: Sequence[dict[str, Any]]) -> tuple[list[Column], list[str]]:
    """The columns that have room, those that answer first; what all rows have alike, in words."""
    texts = {one.key: {one.text(row) for row in rows} for one in table.columns}
    telling = [one for one in table.columns if len(rows) == 1 or len(texts[one.key]) > 1]
    alike = [
        f"{one.heading} {text}"
        for one in table.columns
        if one not in telling and one.kind == "text" and one.key in (*ANSWERING, "baseline")
        for text in texts[one.key] - {"–", ""}
    ]
    ranked = sorted(
        telling,
        key=lambda one: ANSWERING.index(one.key) if one.key in ANSWERING else len(ANSWERING),
    )
    room = out.width - EDGES
    shown: set[str] = set()
    for column in ranked:
        least, whole = _widths(column, rows)
        needed = GAP + (least if column.key in ANSWERING else whole)
        if needed <= room:
            shown.add(column.key)
            room -= needed
    return [one for one in telling if one.key in shown], alike


def _widths(column: Column, rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How narrow a column can be without a broken word, and how wide it would like to be."""
    texts = [column.text(row) for row in rows]
    heading = max(map(len, column.heading.split()))
    whole = max([heading, *map(len, texts)])
    if column.is_number:
        return whole, whole
    words = [len(word) for text in texts for word in text.split(" ")]
    return min(max([heading, *words]), LONGEST_WORD), whole


def _print_columns(
    columns: Sequence[Column], rows: Sequence[dict[str, Any]], console: Console
) -> None:
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    widths = dict(enumerate(_shared_room(columns, rows) if console is out else []))
    for number, column in enumerate(columns):
        if column.is_number:
            heading = column.heading if console is not out else column.heading.replace(" ", "\n")
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, overflow="fold", width=widths.get(number))
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns))
    console.print(table)


def _shared_room(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[int]:
    """The columns' widths on the terminal: the widest give way, down to their longest word."""
    both = [_widths(column, rows) for column in columns]
    least, widths = [narrow for narrow, _ in both], [wide for _, wide in both]
    while sum(widths) + GAP * len(widths) > out.width - EDGES:
        spare = [wide - narrow for wide, narrow in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= 1
    return widths


def _say_what_is_left(num_rows: int, num_columns: int) -> None:
    counts = ((num_rows, "rows"), (num_columns, "columns"))
    more = [
        f"{count} more {what if count > 1 else what[:-1]}" for count, what in counts if count > 0
    ]
    if more:
        out.print(Text(f"{' and '.join(more)}: --wide prints them", style="dim"))


def show_calibration_errors(errors: pd.DataFrame) -> None:
    """How far forecasts are off on what was left out; the chosen signals come first."""
    table = close_table("Error on what was left out")
    table.add_column("Signals")
    for heading in ("Mean, points", "Worst, points", "90 % interval holds", "Runs"):
        table.add_column(heading, justify="right")
    for row in errors.itertuples():
        numbers = (f"{row.mean_error_pct:.1f}", f"{row.worst_error_pct:.1f}")
        table.add_row(str(row.signals), *numbers, f"{row.covered_pct:.0f} %", str(row.num_runs))
    out.print(table)
