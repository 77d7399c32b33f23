"""`driftscope schema`: the JSON schema of a spec or a report, for editors and other programs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.failures import plain_errors
from driftscope.cli.options import PRINTED, opt, print_or_write


class Described(StrEnum):
    """What has a schema."""

    RUN = "run"
    STUDY = "study"
    REPORT = "report"


@plain_errors
def schema(
    of: Annotated[
        Described, typer.Argument(help="A run's YAML, a study's YAML, or a report.json.")
    ],
    out: Annotated[
        Path | None, opt("A file to write it to, instead of printing it.", "--out", panel=PRINTED)
    ] = None,
) -> None:
    """Print the JSON schema of a spec or a report, by which editors complete and check it."""
    from driftscope.schemas import SCHEMAS

    print_or_write(json.dumps(SCHEMAS[of](), indent=1, ensure_ascii=False) + "\n", out)
