"""`driftscope card`: the section of a model card that says what fine-tuning has kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.options import PRINTED, opt, print_or_write
from driftscope.cli.sentences import plain_errors


@plain_errors
def card(
    report: Annotated[
        Path, typer.Argument(help="The folder that `driftscope compare` wrote, or its report.json.")
    ],
    out: Annotated[
        Path | None, opt("A file to write it to, instead of printing it.", "--out", panel=PRINTED)
    ] = None,
) -> None:
    """Write the section of a model card that says what fine-tuning has kept, as Markdown."""
    from driftscope import __version__
    from driftscope.analysis.model_card import model_card
    from driftscope.schemas import read_comparison

    print_or_write(model_card(read_comparison(report), __version__), out)
