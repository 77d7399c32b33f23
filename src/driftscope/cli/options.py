"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.errors import DataError

MACHINE, PRINTED = "Machine", "Output"
"""Panels of the help."""

OutFolder = Annotated[
    Path, typer.Option("--out", help="The folder to write to.", rich_help_panel=PRINTED)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print everything as JSON.", rich_help_panel=PRINTED)
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Such as cpu or cuda:0. By default CUDA where there is any.", rich_help_panel=MACHINE
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs at the same time. By default as many as cores, memory or GPUs allow.",
        rich_help_panel=MACHINE,
    ),
]


def refuse_file(out: Path) -> None:
    """Raises `DataError` where an output folder is a file."""
    if out.is_file():
        raise DataError(f"the output {out} is a file; give a folder with --out")


def refuse_study_or_run(out: Path) -> None:
    """Raises `DataError` where a report would be written into the folder of a study or a run."""
    from driftscope.records import SPEC_FILE, STUDY_FILE

    refuse_file(out)
    for file in (STUDY_FILE, SPEC_FILE):
        if (out / file).exists():
            raise DataError(
                f"{out} holds a study or a run (it has {file}); give another folder with --out"
            )
