"""`driftscope cache`: the decoded images that are kept on disk, and their removal."""

from __future__ import annotations

import typer

from driftscope.cli.sentences import plain_errors

cache_app = typer.Typer(help="Decoded images that runs share on disk.", no_args_is_help=True)


@cache_app.command("list")
@plain_errors
def show() -> None:
    """What is in the cache, where, and how large."""
    from driftscope import terminal
    from driftscope.data.cache import bound_bytes, cache_folder, list_entries

    terminal.show_cache(list_entries(), cache_folder(), bound_bytes())


@cache_app.command()
@plain_errors
def clear() -> None:
    """Removes everything from the cache; what is needed again is decoded again."""
    from driftscope.data.cache import cache_folder
    from driftscope.data.cache import clear as clear_cache

    entries, num_bytes = clear_cache()
    typer.echo(f"Removed {entries} entries, {num_bytes / 1e6:.1f} MB, from {cache_folder()}")
