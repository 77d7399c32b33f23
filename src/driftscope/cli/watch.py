"""`driftscope watch`: a live view of whatever is written to a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftscope.cli.failures import plain_errors

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

    from driftscope.records.live import TrainingStatus
    from driftscope.study import StudyFolder

SECONDS = 2.0
"""Between two looks at the folder."""
_BARS = "▁▂▃▄▅▆▇█"
_COURSE_WIDTH = 32


@plain_errors
def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, a study or a monitor.")],
) -> None:
    """Follow a training or a study live until it is over. Ctrl-C ends the view alone."""
    from driftscope.records import STUDY_FILE
    from driftscope.study import StudyFolder

    try:
        _wait_until_written(folder)
        if (folder / STUDY_FILE).exists():
            watch_study(StudyFolder(folder))
        else:
            _watch_training(folder)
    except KeyboardInterrupt:
        return


def watch_study(folder: StudyFolder) -> None:
    """Shows how far a study is, anew until it is over."""
    from driftscope.cli.study_views import status_view
    from driftscope.cli.terminal import show_in_place
    from driftscope.study.status import study_status

    runs = folder.runs()

    def views() -> Iterator[RenderableType]:
        while True:
            status = study_status(folder, runs)
            yield status_view(status)
            if status.is_over:
                return
            time.sleep(SECONDS)

    show_in_place(views())


def _wait_until_written(folder: Path) -> None:
    """Waits for a folder's first file, so that the view can be opened before the training is."""
    from rich.text import Text

    from driftscope.cli import terminal

    if not _is_empty(folder):
        return
    terminal.err.print(Text(_what_is_awaited(folder)), soft_wrap=True)
    while _is_empty(folder):
        time.sleep(SECONDS)


def _what_is_awaited(folder: Path) -> str:
    """What the view waits for, and a folder of a like name where this one is not there."""
    from driftscope.nearby import neighbour

    told = "waits for the first file of a run, a study or a monitor. Ctrl-C ends this."
    if folder.exists():
        return f"{folder} is empty; driftscope {told}"
    near = neighbour(str(folder))
    meant = f" Did you mean {near}?" if near else ""
    return f"There is no folder {folder} yet; driftscope {told}{meant}"


def _is_empty(folder: Path) -> bool:
    # a leading dot: the lock and the temporary files of a run that is about to begin
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _watch_training(folder: Path) -> None:
    from driftscope.cli.terminal import show_in_place
    from driftscope.records.live import TrainingFollower

    follower = TrainingFollower(folder)
    first = follower.status()  # before the view begins: an unusable folder is a sentence

    def views() -> Iterator[RenderableType]:
        status = first
        while True:
            yield training_view(status)
            if status.ended is not None:
                return
            time.sleep(SECONDS)
            status = follower.status()

    show_in_place(views())


def training_view(status: TrainingStatus) -> RenderableType:
    """A training's state: where it is, each number's course and latest value, its alerts."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(status.title, style="bold"), Text(_where(status))]
    if status.points:
        parts.append(_courses(status.points))
    parts += [Text(f"step {step}: {sentence}", style="yellow") for step, sentence in status.alerts]
    parts += [Text(f"doubtful: {sentence}", style="yellow") for sentence in status.doubts]
    if status.ended:
        parts.append(Text(status.ended, style="red" if "failed" in status.ended else "bold"))
    else:
        parts.append(Text("Ctrl-C ends the view, not the training.", style="dim"))
    return Group(*parts)


def _where(status: TrainingStatus) -> str:
    from driftscope.cli.terminal import duration

    if not status.points:
        return "nothing seen yet"
    latest = status.points[-1]
    epoch = f"epoch {latest['epoch']:g}" if "epoch" in latest else ""
    epoch += f" of {status.epochs}" if epoch and status.epochs else ""
    step = f"step {latest['step']:g}" if "step" in latest else ""
    ago = f"written {duration(status.age_seconds)} ago"
    return ", ".join(part for part in (epoch, step, ago) if part)


def _courses(points: Sequence[dict[str, float]]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    from driftscope.metrics import followed

    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    table.add_column("course", no_wrap=True)
    for heading in ("first", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in followed():
        values = [point[metric.key] for point in points if metric.key in point]
        if values:
            ends = (metric.with_unit(values[0]), metric.with_unit(values[-1]))
            table.add_row(metric.label, bars_of(values), *ends)
    return table


def bars_of(values: Sequence[float]) -> str:
    """Numbers as at most 32 bars between the least and the greatest; the last is always kept."""
    step = -(-len(values) // _COURSE_WIDTH)
    chosen = values[::-1][::step][::-1]
    least, most = min(chosen), max(chosen)
    if most == least:
        return _BARS[0] * len(chosen)
    scale = (len(_BARS) - 1) / (most - least)
    return "".join(_BARS[round((value - least) * scale)] for value in chosen)
