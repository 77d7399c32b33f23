"""What the study commands show: the plan, the progress, the status, the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from driftscope.cli.terminal import err, out
from driftscope.config import run_id
from driftscope.study.plan import wall_seconds
from driftscope.study.status import STATES, StudyStatus, run_words

if TYPE_CHECKING:
    import pandas as pd

    from driftscope.analysis import Answer
    from driftscope.config import RunSpec, StudySpec
    from driftscope.executors.schedule import Update
    from driftscope.study import Cell
    from driftscope.study.plan import Estimate

MAX_ROWS = 40
"""Rows of a table of cells or of an answer that are shown; --json has them all."""
REST_WIDTH = 50
"""What a row of the progress takes beside the name of its run."""


# ---------------------------------------------------------------- plan


def plan_values(
    study: StudySpec,
    cells: Sequence[Cell],
    states: Mapping[str, str],
    cost: Estimate | None,
    workers: int,
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
        "cells": rows,
    }


def show_plan(plan: Mapping[str, Any]) -> None:
    """The cells, the number of runs, and what they will take."""
    rows = plan["cells"]
    names = [key for key in rows[0] if key not in (*STATES, "seeds")]
    labels = [{name: row[name] for name in names} for row in rows]
    table = _cells_table(labels)
    states = [state for state in STATES if any(row[state] for row in rows) and state != "waiting"]
    for heading in ("runs", *states):
        table.add_column(heading, justify="right")
    for row in rows[:MAX_ROWS]:
        counts = (len(row["seeds"]), *(row[state] for state in states))
        table.add_row(*map(Text, _varying(row, table)), *map(_or_dot, counts))
    out.print(Text(plan["title"] or plan["study"], style="bold"))
    if shared := _shared(labels):
        out.print(shared)
    out.print(table)
    if plan["num_cells"] > MAX_ROWS:
        out.print(f"… and {plan['num_cells'] - MAX_ROWS} more cells (--json lists all)")
    out.print(
        f"{plan['num_runs']} runs in {plan['num_cells']} cells: {plan['num_done']} done, "
        f"{plan['num_failed']} failed, {plan['num_to_run']} to run."
    )
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


def _cells_table(labels: Sequence[Mapping[str, str]]) -> RichTable:
    """A table with a column for each label that varies."""
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in labels[0]:
        if len({row[name] for row in labels}) > 1:
            table.add_column(name.replace("_", " "), no_wrap=True)
    return table


def _shared(labels: Sequence[Mapping[str, str]]) -> Text:
    """The labels that all cells have in common."""
    pairs = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in labels[0].items()
        if len({row[name] for row in labels}) == 1
    ]
    return Text(f"all cells: {', '.join(pairs)}" if pairs else "", style="dim")


def _varying(row: Mapping[str, str], table: RichTable) -> list[str]:
    headings = {str(column.header) for column in table.columns}
    return [value for name, value in row.items() if name.replace("_", " ") in headings
            and name not in (*STATES, "seeds")]  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def size_text(num_bytes: float) -> str:
    """Bytes in words: 3.2 GB."""
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


def _or_dot(count: int) -> str:
    return str(count) if count else "·"


# ---------------------------------------------------------------- progress of a run of the study


def follow(updates: Iterable[Update], specs: Sequence[RunSpec], num_done: int) -> dict[str, str]:
    """Shows a study's progress until its updates end: all runs, each worker, what goes wrong.

    Returns:
        Why runs failed, by id: those whose failure was told here.
    """
    names = {run_id(spec): run_words(spec) for spec in specs}
    shares: dict[str, float] = {}
    given: dict[str, float] = {}  # shares that took no time here: done before, or not at all
    begun: dict[int, int] = {}  # by worker, the steps of its run that were done before
    failures: dict[str, str] = {}
    ended = num_done
    with _study_bars() as bars:
        overall = bars.add_task("[bold]all runs", total=len(specs), count="")
        workers: dict[int, TaskID] = {}
        for update in updates:
            name = names[update.run_id]
            if update.worker not in workers:
                workers[update.worker] = bars.add_task("", count="")
            worker = workers[update.worker]
            if update.steps_total:
                early = begun.setdefault(update.worker, update.steps_done - 1)
                given.setdefault(update.run_id, early / update.steps_total)
                shares[update.run_id] = update.steps_done / update.steps_total
                bars.update(
                    worker,
                    completed=update.steps_done,
                    total=update.steps_total,
                    count=f"{update.steps_done}/{update.steps_total} steps",
                    before=early,
                )
            elif update.remark is not None:
                bars.console.print(Text.assemble(("lost ", "yellow"), f"{name}: {update.remark}"))
                bars.reset(worker, total=None, description="idle", count="")
            elif update.ended:
                ended += 1
                bars.reset(worker, total=None, description="idle", count="")
                if update.failure is not None:
                    failures[update.run_id] = update.failure
                    left_out = 1.0 - shares.get(update.run_id, 0.0)
                    given[update.run_id] = given.get(update.run_id, 0.0) + left_out
                    why = f"{name}: {update.failure}"
                    bars.console.print(Text.assemble(("failed ", "red"), why))
                shares[update.run_id] = 1.0
            else:
                begun.pop(update.worker, None)
                bars.reset(worker, total=None, description=escape(name), count="preparing")
            count = f"{ended}/{len(specs)} runs" + _failed_words(len(failures))
            done, before = (num_done + sum(parts.values()) for parts in (shares, given))
            bars.update(overall, completed=done, count=count, before=before)
        for worker in workers.values():
            bars.remove_task(worker)
    return failures


def _failed_words(num_failed: int) -> str:
    return f", {num_failed} failed" if num_failed else ""


class _TimeLeft(ProgressColumn):
    """At the mean speed so far, without what was done `before`: a resumed run begins high up.

    rich's own column follows the last thousand updates: of a run on a GPU these are seconds, and
    runs pause for longer to be probed.
    """

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """What is left, as hours, minutes and seconds."""
        done = task.completed - task.fields.get("before", 0)
        if task.total is None or task.elapsed is None or done <= 0:
            return Text("-:--:--", style="progress.remaining")
        seconds = task.elapsed * (task.total - task.completed) / done
        return Text(str(timedelta(seconds=round(seconds))), style="progress.remaining")


def _study_bars() -> Progress:
    room = max(20, err.width - REST_WIDTH)
    names = Column(max_width=room, no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", table_column=names),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TextColumn("left"),
        _TimeLeft(),
        console=err,
    )


def show_failures(failures: Mapping[str, str], specs: Sequence[RunSpec]) -> None:
    """The runs that failed, and what to do about it."""
    if not failures:
        return
    names = {run_id(spec): run_words(spec) for spec in specs}
    err.print(f"\n[red]{len(failures)} of {len(specs)} runs failed:[/red]")
    for name, why in failures.items():
        err.print(Text(f"  {name}  {names[name]}: {why}"))
    err.print(
        "The same command with --retry-failed tries them again; runs/ID/failure.json tells more.",
        highlight=False,
    )


# ---------------------------------------------------------------- status


def show_status(status: StudyStatus) -> None:
    """How far a study is, once."""
    out.print(_status(status))


@contextmanager
def status_view() -> Iterator[StatusView]:
    """A view of the status that is renewed in place."""
    with Live(console=out, auto_refresh=False) as live:
        yield StatusView(live)


class StatusView:
    """Shows one status after the other in the same place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, status: StudyStatus) -> None:
        """Shows this one."""
        self._live.update(_status(status), refresh=True)


def _status(status: StudyStatus) -> RenderableType:
    if not status.cells:
        return Text(f"{status.title}: no runs, means of cells alone")
    labels = [cell.labels for cell in status.cells]
    table = _cells_table(labels)
    states = [state for state in STATES if status.counts[state]]
    for state in states:
        table.add_column(state, justify="right")
    for cell in status.cells[:MAX_ROWS]:
        counts = (_or_dot(cell.counts[state]) for state in states)
        table.add_row(*map(Text, _varying(cell.labels, table)), *counts)
    summary = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count)
    left = status.seconds_left
    about = f"; about {duration(left)} left" if left else ""
    # the table last: a view that is renewed in place is cut at the terminal's foot
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
    parts += [_shared(labels), table]
    if len(status.cells) > MAX_ROWS:
        parts.append(f"… and {len(status.cells) - MAX_ROWS} more cells (--json lists all)")
    return Group(*parts)


# ---------------------------------------------------------------- answers


def show_answer(answer: Answer) -> None:
    """A question's answer: the sentence, the numbers, what was left out."""
    out.print(f"\n[bold]{answer.question.replace('_', ' ')}[/bold]")
    out.print(Text(answer.words))
    if answer.is_answered and not answer.table.empty:
        out.print(_frame(answer.table))
        out.print(f"[dim]units: {answer.num_units} {answer.unit}[/dim]")
    for exclusion in answer.excluded:
        out.print(Text(f"left out: {exclusion}", style="dim"))


def _frame(frame: pd.DataFrame) -> RichTable:
    """The columns that say something and fit; the rest is counted below."""
    telling = [name for name in frame.columns if frame[name].astype(str).nunique() > 1]
    texts = {
        str(name): [_cell(value) for value in frame[name].head(MAX_ROWS)]
        for name in telling or list(frame.columns)
    }
    shown: list[str] = []
    room = out.width - 1
    for name, values in texts.items():
        room -= max(len(text) for text in (name, *values)) + 3
        if shown and room < 0:
            break
        shown.append(name)
    table = RichTable()
    for name in shown:
        table.add_column(name, no_wrap=True)
    for row in zip(*(texts[name] for name in shown), strict=True):
        table.add_row(*row)
    more = [f"{len(frame) - MAX_ROWS} more rows"] if len(frame) > MAX_ROWS else []
    more += [f"{len(texts) - len(shown)} more columns"] if len(texts) > len(shown) else []
    if more:
        table.caption = f"{' and '.join(more)}: --json"
    return table


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
