"""What a gate shows: a row a limit, and why it was not kept."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from driftscope.cli.terminal import out
from driftscope.gate.judging import Evidence, Verdict

_STYLES = {"passed": "green", "failed": "bold red", "not measured": "bold yellow"}


def show_verdicts(evidence: Evidence, verdicts: Sequence[Verdict], *, confident: bool) -> None:
    """The table of limits and one line of result."""
    table = RichTable(
        title=Text(evidence.what), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("Limit on")
    table.add_column("Asked")
    table.add_column("Measured", justify="right")
    if confident:
        table.add_column("Lower end", justify="right")
    table.add_column("")
    for verdict in verdicts:
        row: list[str | Text] = [
            Text(verdict.title),
            verdict.limit,
            _number(verdict.measured, verdict.unit),
        ]
        if confident:
            is_interval = verdict.judged != verdict.measured
            row.append(_number(verdict.judged, verdict.unit) if is_interval else "")
        table.add_row(*row, Text(verdict.outcome, style=_STYLES[verdict.outcome]))
    out.print(table)
    missed = [verdict for verdict in verdicts if verdict.outcome != "passed"]
    for verdict in missed:
        out.print(Text(f"{verdict.outcome}: {verdict.sentence}"), soft_wrap=True)
    if not missed:
        out.print(
            f"All {len(verdicts)} limits kept." if len(verdicts) > 1 else "The limit is kept."
        )


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.4g}{f' {unit}' if unit else ''}"
