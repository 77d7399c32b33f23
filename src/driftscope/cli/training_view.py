"""The live view of a training: a row a number, with its course so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from driftscope.cli.study_views import duration
from driftscope.cli.terminal import out
from driftscope.records.live import TrainingStatus

SHOWN = (
    ("train_loss", "training loss", "{:.4g}"),
    ("train_accuracy_pct", "training accuracy", "{:.1f} %"),
    ("val_accuracy_pct", "validation accuracy", "{:.1f} %"),
    ("zero_shot_pct", "zero-shot accuracy", "{:.1f} %"),
    ("retention_pct", "retention", "{:.1f} %"),
    ("embedding_drift", "embedding drift", "{:.4f}"),
    ("cka", "CKA", "{:.4f}"),
    ("cka_debiased", "CKA, debiased", "{:.4f}"),
    ("weight_drift", "weight drift", "{:.5f}"),
    ("text_kl_nats", "text space: KL", "{:.3f} nats"),
    ("delta_entropy_pct", "Δ attention entropy", "{:+.2f} %"),
)
"""Name in the events, words, format."""
_BARS = "▁▂▃▄▅▆▇█"
_COURSE_WIDTH = 32


@contextmanager
def training_view() -> Iterator[TrainingView]:
    """A view of a training that is renewed in place."""
    with Live(console=out, auto_refresh=False) as live:
        yield TrainingView(live)


class TrainingView:
    """Shows one state of a training after the other in the same place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, status: TrainingStatus) -> None:
        """Shows this one."""
        self._live.update(training_text(status), refresh=True)


def training_text(status: TrainingStatus) -> RenderableType:
    """A training's state: where it is, each number's course and latest value, its alerts."""
    parts: list[RenderableType] = [Text(status.title, style="bold"), _where(status)]
    if status.points:
        parts.append(_courses(status.points))
    parts += [Text(f"step {step}: {sentence}", style="yellow") for step, sentence in status.alerts]
    if status.ended:
        parts.append(Text(status.ended, style="red" if "failed" in status.ended else "bold"))
    else:
        parts.append(Text("Ctrl-C ends the view, not the training.", style="dim"))
    return Group(*parts)


def _where(status: TrainingStatus) -> Text:
    if not status.points:
        return Text("nothing seen yet")
    latest = status.points[-1]
    epoch = f"epoch {latest['epoch']:g}" if "epoch" in latest else ""
    epoch += f" of {status.epochs}" if epoch and status.epochs else ""
    step = f"step {latest['step']:g}" if "step" in latest else ""
    ago = f"written {duration(status.age_seconds)} ago"
    return Text(", ".join(part for part in (epoch, step, ago) if part))


def _courses(points: Sequence[dict[str, float]]) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    table.add_column("course", no_wrap=True)
    for heading in ("first", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, words, form in SHOWN:
        values = [point[name] for point in points if name in point]
        if values:
            ends = (form.format(values[0]), form.format(values[-1]))
            table.add_row(words, course(values), *ends)
    return table


def course(values: Sequence[float]) -> str:
    """Numbers as bars between their least and their most, at most 32 of them, the last kept."""
    step = -(-len(values) // _COURSE_WIDTH)
    chosen = values[::-1][::step][::-1]
    least, most = min(chosen), max(chosen)
    if most == least:
        return _BARS[0] * len(chosen)
    scale = (len(_BARS) - 1) / (most - least)
    return "".join(_BARS[round((value - least) * scale)] for value in chosen)
