"""What the command line shows: tables, progress, numbers in words. Prints, computes not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from driftscope.analysis.table import Column, Table
    from driftscope.config import RunSpec
    from driftscope.data.cache import CacheEntry
    from driftscope.records import RunRecord
    from driftscope.records.schema import SharedImages
    from driftscope.reference_cache import ReferenceEntry

ESSENTIAL_COLUMNS = frozenset(
    {
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
    }
)
"""Shown on a narrow terminal too; a wide one shows every column."""
WIDE = 130

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def show_cells(records: list[RunRecord]) -> None:
    """One table a setting: a row a cell, mean ± sd over seeds."""
    from driftscope.analysis.grouping import cells_frame, split_settings
    from driftscope.report.tables import report_runs, study_table

    for setting, runs in split_settings(report_runs(records)):
        show_table(study_table(cells_frame(runs), setting))


def show_shared_images(duplicates: Mapping[str, SharedImages]) -> None:
    """Says where a record's duplicates are on two sides: a leak that a score would hide."""
    across = [
        f"{found.num_pairs} in {' and '.join(sides.split('/'))}"
        for sides, found in duplicates.items()
        if "/" in sides
    ]
    if across:
        err.print(f"Equal images on two sides: {', '.join(across)} (result.json lists them)")


def show_comparison(comparison: dict[str, Any]) -> None:
    """The per-layer table and the summary of a comparison."""
    from driftscope.report.tables import comparison_layers, comparison_table

    show_table(comparison_table(comparison_layers(comparison)))
    drift = comparison["drift"]
    summary = RichTable(box=None, show_header=False, pad_edge=False)
    summary.add_row("images read", str(comparison["num_images"]))
    if comparison["skipped_images"]:
        summary.add_row("images skipped", str(len(comparison["skipped_images"])))
    for name, score in comparison["transfer"].items():
        summary.add_row(f"zero-shot on {name}", _zero_shot_text(score))
        if score["unknown_words"]:
            few = ", ".join(score["unknown_words"][:3])
            summary.add_row(
                "", f"{len(score['unknown_words'])} words unknown to the tokenizer, such as {few}"
            )
    for label, key, form in _SUMMARY_ROWS:
        if drift.get(key) is not None:
            summary.add_row(label, form.format(drift[key]))
    stability = comparison["stability"]
    summary.add_row(
        "entropy, spread over subsets",
        f"{100 * stability['entropy_subset_cv']:.2f} % of its mean "
        f"({stability['num_subsets']} subsets of the images)",
    )
    out.print(summary)
    show_probe_sizes(stability["probe_sizes"])


def show_probe_sizes(sizes: list[dict[str, float]]) -> None:
    """The same drift from fewer of the images: what still moves with their number needs more."""
    table = RichTable(title="With fewer images", title_justify="left", header_style="bold")
    for heading in ("Images", "Δ entropy, %", "CKA", "CKA, debiased", "Embedding drift"):
        table.add_column(heading, justify="right")
    for row in sizes:
        table.add_row(
            str(row["num_images"]),
            f"{row['delta_entropy_pct']:+.2f}",
            *(f"{row[name]:.4f}" for name in ("cka", "cka_debiased", "embedding_drift")),
        )
    out.print(table)


_SUMMARY_ROWS = (
    ("embedding drift", "embedding_drift", "{:.4f}  (1 − mean cosine; 0 = unchanged)"),
    ("CKA", "cka", "{:.4f}  (mean over blocks; 1 = unchanged)"),
    ("CKA, debiased", "cka_debiased", "{:.4f}"),
    ("feature distance", "feature_distance", "{:.4f}  (mean ‖f − f₀‖²)"),
    ("weight drift", "weight_drift", "{:.5f}  (‖ΔW‖/‖W₀‖)"),
    (
        "Δ attention entropy",
        "delta_entropy_pct",
        "{:+.2f} %  (says where attention moved, not damage)",
    ),
    ("Δ erf@0.95", "delta_erf95_pct", "{:+.2f} %"),
    ("Δ gini", "delta_gini_pct", "{:+.2f} %"),
    ("Δ head diversity", "delta_head_diversity_pct", "{:+.2f} %"),
    ("Δ rollout entropy", "delta_rollout_entropy_pct", "{:+.2f} %"),
    ("Δ rollout erf@0.95", "delta_rollout_erf95_pct", "{:+.2f} %"),
    ("Δ rollout gini", "delta_rollout_gini_pct", "{:+.2f} %"),
    ("Δ patch-to-patch entropy", "delta_patch_to_patch_entropy_pct", "{:+.2f} %"),
    ("text space: KL", "text_kl_nats", "{:.4f} nats"),
    ("text space: top-1 agreement", "text_top1_agreement_pct", "{:.1f} %"),
    ("text space: random-text logit change", "random_text_logit_change", "{:.3f}"),
)


def _zero_shot_text(score: dict[str, Any]) -> str:
    before, after = (
        f"{side['accuracy_pct']:.1f} % [{side['wilson_low_pct']:.1f}–{side['wilson_high_pct']:.1f}]"
        for side in (score["pretrained"], score["adapted"])
    )
    retention = score["retention_pct"]
    kept = "retention undefined (pretrained score is 0)" if retention is None else ""
    kept = kept or f"retention {retention:.1f} %"
    tower = "" if score["adapted_text_tower"] == "the pretrained one" else ", own text tower"
    return f"{before} → {after}, n = {score['adapted']['num_images']}: {kept}{tower}"


def show_table(table: Table) -> None:
    """One of the report's tables, as wide as the terminal allows."""
    shown = [
        column for column in table.columns if out.width >= WIDE or column.key in ESSENTIAL_COLUMNS
    ]
    rich_table = RichTable(
        title=table.title,
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1) if out.width >= WIDE else 0,
        pad_edge=False,
    )
    for column in shown:
        side: JustifyMethod = "right" if column.is_number else "left"
        heading = column.heading if out.width >= WIDE else column.heading.replace(" ", "\n")
        rich_table.add_column(heading, justify=side, overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(_cell(column, row) for column in shown))
    out.print(rich_table)


def _cell(column: Column, row: dict[str, Any]) -> str:
    """A cell with its small print below; close-set on a narrow terminal, so that nothing wraps."""
    text, detail = column.text(row), column.detail(row).replace(", ", "\n")
    if out.width < WIDE:
        text = text.replace("\u00a0±\u00a0", "±")
    return text + (f"\n[dim]{detail}[/dim]" if detail else "")


@contextmanager
def run_progress(spec: RunSpec) -> Iterator[Progress]:
    """The bar of a single run."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    ) as progress:
        progress.add_task(f"{spec.method.label} at {spec.learning_rate:g}", total=None)
        yield progress


def show_cache(
    entries: Sequence[CacheEntry],
    references: Sequence[ReferenceEntry],
    folder: Path,
    bound_bytes: int,
) -> None:
    """The cached image sets, the latest used first, and what is kept of pretrained models."""
    table = RichTable(title=f"Cache in {folder}", title_justify="left", header_style="bold")
    for heading in ("Images of", "Count", "Size, px", "MB", "Last used"):
        table.add_column(heading, justify="left" if heading == "Images of" else "right")
    for entry in entries:
        megabytes, used = _megabytes([entry]), _day_and_time(entry.last_used)
        count, size = f"{entry.num_images:,}", str(entry.image_size)
        table.add_row(entry.label, count, size, megabytes, used)
    out.print(table)
    if references:
        out.print(
            f"Readings of pretrained models: {len(references)}, {_megabytes(references)} MB, "
            f"last used {_day_and_time(references[0].last_used)}"
        )
    out.print(
        f"{_megabytes([*entries, *references])} MB; at most {bound_bytes / 1e9:g} GB of images, "
        "and a tenth of that of readings"
    )


def _megabytes(entries: Sequence[CacheEntry | ReferenceEntry]) -> str:
    return f"{sum(entry.num_bytes for entry in entries) / 1e6:.1f}"


def _day_and_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def path_text(path: Path) -> str:
    """A path as the user can paste it: relative where it is below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
