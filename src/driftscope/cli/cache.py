"""`driftscope cache`: what runs share on disk, and its removal."""

from __future__ import annotations

import typer

from driftscope.cli.sentences import plain_errors

cache_app = typer.Typer(
    help="What runs share on disk: decoded images, readings of pretrained models.",
    no_args_is_help=True,
)


@cache_app.command("list")
@plain_errors
def show() -> None:
    """What is in the cache, where, and how large."""
    from driftscope.cli import terminal
    from driftscope.data.cache import bound_bytes, cache_folder, list_entries
    from driftscope.reference_cache import list_references

    terminal.show_cache(list_entries(), list_references(), cache_folder(), bound_bytes())


@cache_app.command()
@plain_errors
def clear() -> None:
    """Removes everything from the cache; what is needed again is decoded or read again."""
    from driftscope.data.cache import cache_folder
    from driftscope.data.cache import clear as clear_images
    from driftscope.reference_cache import clear_references

    (num_sets, set_bytes), (num_references, reference_bytes) = clear_images(), clear_references()
    typer.echo(
        f"Removed {num_sets} image sets ({set_bytes / 1e6:.1f} MB) and {num_references} readings "
        f"of pretrained models ({reference_bytes / 1e6:.1f} MB) from {cache_folder()}"
    )
