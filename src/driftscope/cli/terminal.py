"""What several commands print: tables, views that are renewed in place, paths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from driftscope.cli.failures import end_if_unread
from driftscope.errors import plain

if TYPE_CHECKING:
    from driftscope.analysis.advice import Advice
    from driftscope.analysis.table import Column, Table
    from driftscope.records import RunRecord

ESSENTIAL_COLUMNS = (
    "series",
    "learning_rate",
    "num_diverged",
    "test_accuracy_pct",
    "zero_shot_pct",
    "retention_pct",
    "delta_entropy_pct",
    "cka",
    "layer",
    "entropy_pretrained_nats",
    "entropy_adapted_nats",
    "intruder_dimensions",
)
"""Shown on a narrow terminal too; a wide one shows every column."""
WIDE = 130


class PlainConsole(Console):
    """A console that strings only write to: none is markup, or commands the terminal.

    `Text` has styles; the console's own commands go past what is rendered.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What a renderable shows, with pictures of control characters; no table's word is cut."""
        for column in renderable.columns if isinstance(renderable, RichTable) else ():
            column.overflow = "fold"
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)

    def on_broken_pipe(self) -> None:
        """Ends without a word."""
        self.quiet = True
        end_if_unread()
        super().on_broken_pipe()


out = PlainConsole()
err = PlainConsole(stderr=True)


def show_cells(records: list[RunRecord]) -> None:
    """One table a setting: a row a cell, mean ± sd over seeds."""
    from driftscope.analysis.grouping import cells_frame, split_settings
    from driftscope.analysis.summaries import training_notes
    from driftscope.analysis.zero_shot import doubts_of
    from driftscope.report.tables import report_runs, study_table

    for setting, runs in split_settings(report_runs(records)):
        show_table(study_table(cells_frame(runs), setting))
    said = dict.fromkeys(doubt for record in records for doubt in doubts_of(record.scores()))
    for doubt in said:
        out.print(Text(f"doubtful: {doubt}", style="yellow"))
    for note in training_notes(records):
        out.print(Text(note, style="yellow"))


def show_table(table: Table) -> None:
    """One of the report's tables, as wide as the terminal allows."""
    is_wide = out.width >= WIDE
    shown = [one for one in table.columns if is_wide or one.key in ESSENTIAL_COLUMNS]
    rich_table = RichTable(
        title=Text(table.title),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1) if is_wide else 0,
        pad_edge=False,
    )
    for column in shown:
        side: JustifyMethod = "right" if column.is_number else "left"
        heading = column.heading if is_wide else column.heading.replace(" ", "\n")
        rich_table.add_column(Text(heading), justify=side, overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(cell_text(column, row, is_wide=is_wide) for column in shown))
    out.print(rich_table)


def close_table(title: str, caption: str | None = None) -> RichTable:
    """A table of numbers whose columns stand close, so that no heading is cut at 80 columns."""
    return RichTable(
        title=Text(title),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def cell_text(column: Column, row: dict[str, Any], *, is_wide: bool) -> Text:
    """A cell with its small print below; close-set on a narrow terminal, so that nothing wraps."""
    text, detail = column.text(row), column.detail(row).replace(", ", "\n")
    if not is_wide:
        text = text.replace("\u00a0±\u00a0", "±")
    cell = Text(text)
    return cell.append(f"\n{detail}", style="dim") if detail else cell


def show_advice(advice: Iterable[Advice]) -> None:
    """What to do: each verdict, and its steps below it."""
    for one in advice:
        out.print(Text(f"\n{one.verdict}", style="bold"))
        show_steps(one)


def show_steps(advice: Advice) -> None:
    """The next steps, a line each; commands stay whole, to be copied."""
    for step in advice.steps:
        out.print(Text(f"- {step}"), soft_wrap=True)


def show_in_place(views: Iterable[RenderableType]) -> None:
    """Shows one view after the other in the same place."""
    with Live(console=out, auto_refresh=False) as live:
        for view in views:
            live.update(view, refresh=True)


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def path_text(path: Path) -> str:
    """A path as the user can paste it: relative where it is below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
