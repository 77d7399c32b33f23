"""`driftscope export-model` and `driftscope import`: what leaves and what comes in as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import OutFolder, refuse_full_folder, refuse_missing


@plain_errors
def export_model(
    adapted: Annotated[str, typer.Argument(help="A run folder, a PEFT adapter, or any model.")],
    out: OutFolder,
) -> None:
    """Write an adapted model as a plain model folder that transformers loads."""
    refuse_full_folder(out)
    refuse_missing((adapted,))
    from driftscope.adapt import export_merged
    from driftscope.files import followed
    from driftscope.sources import load

    export_merged(load(adapted), followed(out))
    say(f"Written: {out}")


@plain_errors
def import_records(
    files: Annotated[list[Path], typer.Argument(help="Records, or folders of records.")],
    out: OutFolder,
    pretrained_zero_shot_pct: Annotated[
        float | None,
        typer.Option(help="The pretrained model's zero-shot accuracy, which cell means lack."),
    ] = None,
) -> None:
    """Make a study folder of other people's records, to be read like any other study."""
    from driftscope.study.import_command import import_study

    imported = import_study(files, out, pretrained_zero_shot_pct=pretrained_zero_shot_pct)
    for skipped in imported.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}", err=True)
    say(
        f"{imported.num_runs} runs and {imported.num_cells} cell means imported, "
        f"{len(imported.skipped)} skipped: {out}"
    )
