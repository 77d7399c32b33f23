"""What the report commands share: which formats, and one study's report in all of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.options import refuse_file
from driftscope.errors import ConfigError, did_you_mean

HTML = "html"
ALL = "all"
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        help="html (a page), csv, md, tex (tables), svg, pdf, png (figures), or all; "
        "several with commas between.",
    ),
]


def chosen_formats(text: str) -> list[str]:
    """The formats named, each once.

    Raises:
        ConfigError: there is no such format, or none is named.
    """
    from driftscope.report.columns import TABLE_FORMATS
    from driftscope.report.style import FORMATS

    known = [HTML, *TABLE_FORMATS, *FORMATS]
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in (*known, ALL):
            raise ConfigError(f"unknown format {name!r}: {did_you_mean(name, [*known, ALL])}")
    if not named:
        raise ConfigError(f"--format names nothing; valid: {', '.join([*known, ALL])}")
    return known if ALL in named else [name for name in known if name in named]


def write_reports(folder: Path, out: Path, formats: Sequence[str]) -> None:
    """Writes a study's report in these formats and says where."""
    from driftscope import terminal
    from driftscope.analysis import answer_all
    from driftscope.errors import RecordError
    from driftscope.report.columns import TABLE_FORMATS
    from driftscope.report.files import save_study_files
    from driftscope.report.html import write_study_report
    from driftscope.report.style import FORMATS
    from driftscope.results import Study

    study = Study(folder)
    refuse_file(out)
    with terminal.err.status("asking the study's questions"):
        tables, records = study.tables(), study.records()
        if tables.runs.empty:
            raise RecordError("there is nothing to report: the study has no finished run yet")
        answers = answer_all(tables)
    out.mkdir(parents=True, exist_ok=True)
    if HTML in formats:
        with terminal.err.status("writing the page"):
            path = write_study_report(
                tables,
                records,
                out / "report.html",
                title=study.spec.title or study.spec.name,
                command=f"driftscope study report {shlex.quote(str(folder))}",
                answers=answers,
            )
        typer.echo(f"Report: {terminal.path_text(path)}")
    of_tables = [name for name in formats if name in TABLE_FORMATS]
    of_figures = [name for name in formats if name in FORMATS]
    if not of_tables and not of_figures:
        return
    with terminal.err.status("writing tables and figures"):
        paths = save_study_files(
            tables,
            out,
            answers=answers,
            records=records,
            table_formats=of_tables,
            figure_formats=of_figures,
        )
    for place in dict.fromkeys(path.parent for path in paths):
        count = sum(path.parent == place for path in paths)
        typer.echo(f"{place.name.capitalize()}: {count} files in {terminal.path_text(place)}")
