"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.errors import DataError

OutFolder = Annotated[Path, typer.Option("--out", help="Where everything is written.")]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0; by default CUDA where there is any.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at a time; by default what cores, memory or GPUs allow."),
]


def refuse_file(out: Path) -> None:
    """Raises `DataError` where an output folder is a file."""
    if out.is_file():
        raise DataError(f"the output {out} is a file; give a folder with --out")
