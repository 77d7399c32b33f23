"""The progress of a run, or of a study: all runs, each worker, what goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

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
from rich.text import Text

from driftscope.cli.terminal import err
from driftscope.config import run_id
from driftscope.study.status import run_words

if TYPE_CHECKING:
    from driftscope.config import RunSpec
    from driftscope.executors.schedule import Update

REST_WIDTH = 50
"""What a row of the progress takes beside the name of its run."""


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
    log = LogLines({run_id(spec): spec.epochs for spec in specs})
    with progress_bars() as bars:
        overall = bars.add_task("all runs", total=len(specs), count="")
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
                log.step(update.run_id, name, update.steps_done, update.steps_total)
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
                else:
                    log.say(f"done {name} ({ended}/{len(specs)} runs)")
                shares[update.run_id] = 1.0
            else:
                begun.pop(update.worker, None)
                bars.reset(worker, total=None, description=name, count="preparing")
                log.say(f"started {name}")
            count = f"{ended}/{len(specs)} runs" + _failed_words(len(failures))
            done, before = (num_done + sum(parts.values()) for parts in (shares, given))
            bars.update(overall, completed=done, count=count, before=before)
        for worker in workers.values():
            bars.remove_task(worker)
    return failures


class LogLines:
    """A line a run and an epoch where there is no terminal, whose bars a log does not show.

    Args:
        epochs: how many each run has, by its id.
    """

    def __init__(self, epochs: Mapping[str, int]) -> None:
        self._epochs = epochs
        self._told: dict[str, int] = {}

    def step(self, run: str, name: str, done: int, total: int) -> None:
        """Says once that an epoch is over."""
        epochs = self._epochs[run]
        epoch = done * epochs // total
        if run not in self._told:  # what a process before this one did was told there
            self._told[run] = (done - 1) * epochs // total
        if epoch > self._told[run]:
            self._told[run] = epoch
            self.say(f"{name}: epoch {epoch}/{epochs}")

    def say(self, line: str) -> None:
        """Prints a line, unless bars show it."""
        if not err.is_terminal:
            err.print(line, soft_wrap=True)


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


def progress_bars() -> Progress:
    """Bars with the name, the count, and the time so far and left of each task."""
    room = max(20, err.width - REST_WIDTH)
    names = Column(max_width=room, no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", table_column=names, markup=False),
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
    err.print(Text(f"\n{len(failures)} of {len(specs)} runs failed:", style="red"))
    for name, why in failures.items():
        err.print(Text(f"  {name}  {names[name]}: {why}"))
    err.print(
        "The same command with --retry-failed tries them again; runs/ID/failure.json tells more.",
        highlight=False,
    )
