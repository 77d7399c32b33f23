"""`driftscope cache`: what runs share on disk, and its removal."""

from __future__ import annotations

from datetime import datetime

import typer

from driftscope.cli.failures import plain_errors, say

cache_app = typer.Typer(
    help="List or clear what runs share on disk: decoded images, readings of pretrained models.",
    no_args_is_help=True,
)


@cache_app.command("list", epilog="Example: driftscope cache list")
@plain_errors
def show() -> None:
    """Show what is in the cache, where it is, and how large."""
    from rich.table import Table as RichTable

    from driftscope.cli import terminal
    from driftscope.data.cache import bound_bytes, cache_folder, list_entries
    from driftscope.reference_cache import list_references

    entries, references = list_entries(), list_references()
    table = RichTable(title=f"Cache in {cache_folder()}", title_justify="left", header_style="bold")
    for heading in ("Images of", "Count", "Size, px", "MB", "Last used"):
        table.add_column(heading, justify="left" if heading == "Images of" else "right")
    for entry in entries:
        megabytes, used = _megabytes(entry.num_bytes), _day_and_time(entry.last_used)
        count, size = f"{entry.num_images:,}", str(entry.image_size)
        table.add_row(entry.label, count, size, megabytes, used)
    terminal.out.print(table)
    reference_bytes = sum(one.num_bytes for one in references)
    if references:
        terminal.out.print(
            f"Readings of pretrained models: {len(references)}, {_megabytes(reference_bytes)} MB, "
            f"last used {_day_and_time(references[0].last_used)}"
        )
    total = sum(one.num_bytes for one in entries) + reference_bytes
    terminal.out.print(
        f"{_megabytes(total)} MB; at most {bound_bytes() / 1e9:g} GB of images, "
        "and a tenth of that of readings"
    )


@cache_app.command(epilog="Example: driftscope cache clear")
@plain_errors
def clear() -> None:
    """Remove everything from the cache. What is needed again is decoded or read again."""
    from driftscope.data.cache import cache_folder
    from driftscope.data.cache import clear as clear_images
    from driftscope.reference_cache import clear_references

    (num_sets, set_bytes), (num_references, reference_bytes) = clear_images(), clear_references()
    say(
        f"Removed {num_sets} image sets ({_megabytes(set_bytes)} MB) and {num_references} readings "
        f"of pretrained models ({_megabytes(reference_bytes)} MB) from {cache_folder()}"
    )


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f}"


def _day_and_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
