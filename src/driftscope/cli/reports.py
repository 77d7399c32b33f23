"""The reports behind the commands: of one study, of several side by side, in which formats."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftscope.cli.options import refuse_file
from driftscope.cli.sentences import say_what_is_passed_over
from driftscope.errors import ConfigError, RecordError, did_you_mean

if TYPE_CHECKING:
    from driftscope.report.side_by_side import OneStudy

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
    from driftscope.analysis.table import TABLE_FORMATS
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
    from driftscope.analysis import answer_all
    from driftscope.analysis.table import TABLE_FORMATS
    from driftscope.cli import terminal
    from driftscope.opened_study import Study
    from driftscope.report.files import save_study_files
    from driftscope.report.html import write_study_report
    from driftscope.report.style import FORMATS

    study = Study(folder)
    refuse_file(out)
    say_what_is_passed_over(study.folder, study.damaged)
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
    with terminal.err.status("writing tables and figures"):
        paths = save_study_files(
            tables,
            out,
            answers=answers,
            records=records,
            table_formats=[name for name in formats if name in TABLE_FORMATS],
            figure_formats=[name for name in formats if name in FORMATS],
        )
    _say_where(paths)


def write_reports_side_by_side(
    folders: Sequence[Path], out: Path, formats: Sequence[str], command: str
) -> None:
    """Writes one report of several studies, with the difference of two, and says where.

    Raises:
        ConfigError: fewer than two folders, or one given twice.
        RecordError: a folder holds no study, or one without a finished run.
    """
    from driftscope.analysis.difference import study_difference
    from driftscope.analysis.table import TABLE_FORMATS
    from driftscope.cli import terminal
    from driftscope.report.side_by_side import save_side_by_side, write_side_by_side
    from driftscope.report.style import FORMATS

    if len(folders) < 2:
        raise ConfigError(
            f"side by side takes two studies or more; of one: driftscope study report {folders[0]}"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("the same study is given twice; a study does not differ from itself")
    with terminal.err.status("reading the studies"):
        studies = [
            _one_study(letter, folder) for letter, folder in zip(_LETTERS, folders, strict=False)
        ]
        two = [one.study for one in studies]
        difference = study_difference(*two) if len(two) == 2 else None
    out.mkdir(parents=True, exist_ok=True)
    if HTML in formats:
        with terminal.err.status("writing the page"):
            path = write_side_by_side(studies, difference, out / "report.html", command=command)
        typer.echo(f"Report: {terminal.path_text(path)}")
    with terminal.err.status("writing tables and figures"):
        paths = save_side_by_side(
            studies,
            difference,
            out,
            table_formats=[name for name in formats if name in TABLE_FORMATS],
            figure_formats=[name for name in formats if name in FORMATS],
        )
    _say_where(paths)
    if difference is not None:
        typer.echo(difference.sentence)


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _one_study(letter: str, folder: Path) -> OneStudy:
    from driftscope.opened_study import Study
    from driftscope.report.side_by_side import OneStudy

    study = Study(folder)
    say_what_is_passed_over(study.folder, study.damaged)
    tables = study.tables()
    if tables.runs.empty:
        raise RecordError(f"{folder} has no finished run yet")
    return OneStudy(f"{letter} ({folder.resolve().name})", tables, study.records())


def _say_where(paths: Sequence[Path]) -> None:
    from driftscope.cli import terminal

    for place in dict.fromkeys(path.parent for path in paths):
        count = sum(path.parent == place for path in paths)
        typer.echo(f"{place.name.capitalize()}: {count} files in {terminal.path_text(place)}")
