"""`driftscope where`: which weights of an adapted model do the damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.compare import CLASSES, READ
from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import (
    PRINTED,
    After,
    AsJson,
    Before,
    Device,
    opt,
    refuse_full_folder,
    refuse_unfit,
)


@plain_errors
def where(
    pretrained: Before,
    adapted: After,
    pool: Annotated[
        str | None,
        opt("Unlabeled images; retention is estimated from them.", panel=READ),
    ] = None,
    classes: Annotated[str | None, opt(CLASSES, panel=READ)] = None,
    transfer: Annotated[
        str | None,
        opt("In place of a pool a labeled dataset; retention is measured.", panel=READ),
    ] = None,
    max_images: Annotated[
        int, opt("How many images each retention is told by at most.", panel=READ, min=4)
    ] = 200,
    pairs: Annotated[
        int,
        opt(
            "Orders of the groups that the Shapley values are means over, each with its reverse.",
            min=1,
        ),
    ] = 4,
    heads: Annotated[bool, opt("Ask attention heads, too.", "--heads/--no-heads")] = True,
    out: Annotated[
        Path | None, opt("A folder for where.json and the page.", "--out", panel=PRINTED)
    ] = None,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Say which groups of weights do the damage: restored, tuned alone, and by Shapley values."""
    import json

    from driftscope.cli import terminal

    if out is not None:
        refuse_full_folder(out)
    with terminal.err.status("restoring groups of weights"):
        refuse_unfit((pretrained, adapted), (), (transfer,), pool, classes)
        from driftscope.rescuing import where as attribute

        found = attribute(
            pretrained,
            adapted,
            pool,
            classes,
            transfer=transfer,
            max_images=max_images,
            num_pairs=pairs,
            heads=heads,
            device=device,
        )
        if out is not None:
            found.save(out)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    terminal.out.print(found.sentence(), markup=False, style="bold")
    _show(found.to_dict()["groups"])
    if out is not None:
        say(f"Page: {terminal.path_text(out / 'report.html')}")


def _show(groups: list[dict[str, float | str | None]]) -> None:
    from driftscope.cli import terminal

    table = terminal.close_table("Points of retention, from the input to the output")
    table.add_column("Group")
    for heading in ("Shapley", "±", "Regained", "Lost alone"):
        table.add_column(heading, justify="right")
    for one in groups:
        keys = ("shapley", "shapley_error", "regained", "lost")
        table.add_row(str(one["name"]), *(_points(one[key]) for key in keys))
    terminal.out.print(table)


def _points(value: float | str | None) -> str:
    return "–" if value is None else f"{float(value):.1f}"
