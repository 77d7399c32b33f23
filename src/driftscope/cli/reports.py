"""The reports behind the commands: of one study, or of several side by side."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from driftscope.cli.failures import say, say_what_a_study_lacks
from driftscope.cli.options import PRINTED, opt, refuse_file, refuse_study_or_run
from driftscope.errors import ConfigError, RecordError, did_you_mean

if TYPE_CHECKING:
    from driftscope.analysis import StudyTables
    from driftscope.opened_study import Study

HTML = "html"
ALL = "all"
_FORMATS = (
    "html (a page), csv, md, tex (tables), svg, pdf, png (figures), or all. "
    "Separate several with commas."
)
Formats = Annotated[str, opt(_FORMATS, "--format", panel=PRINTED)]


def chosen_formats(text: str) -> tuple[bool, list[str], list[str]]:
    """Whether a page is wanted, then the formats of tables and of figures.

    Raises:
        ConfigError: there is no such format, or none is named.
    """
    from driftscope.analysis.table import TABLE_FORMATS
    from driftscope.report.style import FORMATS

    known = [HTML, *TABLE_FORMATS, *FORMATS, ALL]
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in known:
            raise ConfigError(f"unknown format {name!r}: {did_you_mean(name, known)}")
    if not named:
        raise ConfigError(f"--format names nothing; valid: {', '.join(known)}")
    wanted = set(known if ALL in named else named)
    return (
        HTML in wanted,
        [name for name in TABLE_FORMATS if name in wanted],
        [name for name in FORMATS if name in wanted],
    )


def write_report(folder: Path, out: Path, form: str) -> None:
    """Writes the report of a study, or of a run that belongs to none, and says where."""
    from driftscope.cli import terminal
    from driftscope.records import is_run
    from driftscope.records.report_place import RUN_PAGES, STUDY_PAGES, refuse_others_report

    formats = chosen_formats(form)
    refuse_file(out)
    is_of_run = is_run(folder)
    if out != folder:
        refuse_others_report(out, None, RUN_PAGES if is_of_run else STUDY_PAGES)
    if is_of_run:
        _write_run_report(folder, out, formats)
        return
    with terminal.err.status("reading the study"):
        study, tables = _finished(folder)
    with _set_apart():
        _write_report(study, tables, out, formats)


def _write_run_report(folder: Path, out: Path, formats: tuple[bool, list[str], list[str]]) -> None:
    """Raises `ConfigError` where tables or figures are asked for: those are of a study."""
    from driftscope.cli import terminal
    from driftscope.records import RESULT_FILE, load_run
    from driftscope.report.lone_run import write_run_page

    _, *of_studies = formats
    if any(of_studies):
        named = ", ".join(name for listed in of_studies for name in listed)
        raise ConfigError(
            f"{folder} is one run, which has a page alone and no files of {named}: give --format "
            f"{HTML}, or the folder of a study"
        )
    record = load_run(folder)
    if record.is_changed:
        terminal.err.print(
            f"{folder / RESULT_FILE} was changed after it was written (its digest differs), and "
            "is shown as it is now",
            style="yellow",
            markup=False,
        )
    say(f"Report: {terminal.path_text(write_run_page(record, out))}")


def _write_report(
    study: Study, tables: StudyTables, out: Path, formats: tuple[bool, list[str], list[str]]
) -> None:
    from driftscope.analysis import answer_all
    from driftscope.cli import terminal
    from driftscope.report.files import save_study_files
    from driftscope.report.html import write_study_report

    with_page, table_formats, figure_formats = formats
    with terminal.err.status("asking the study's questions"):
        records, answers = study.outlines(), answer_all(tables)
    out.mkdir(parents=True, exist_ok=True)
    if with_page:
        with terminal.err.status("writing the page"):
            path = write_study_report(
                tables,
                records,
                out / "report.html",
                title=study.spec.title or study.spec.name,
                command=f"driftscope study report {shlex.quote(str(study.folder.root))}",
                answers=answers,
            )
        say(f"Report: {terminal.path_text(path)}")
    with terminal.err.status("writing tables and figures"):
        paths = save_study_files(
            tables,
            out,
            answers=answers,
            records=records,
            table_formats=table_formats,
            figure_formats=figure_formats,
        )
    _say_where(paths)


@contextmanager
def _set_apart() -> Iterator[None]:
    """What has been read stays to the end: no collection in the block looks at it again.

    In thousands of records that is millions of values.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def write_side_by_side_report(folders: Sequence[Path], out: Path, form: str) -> None:
    """Writes one report of several studies, with the difference of two, and says where.

    Raises:
        ConfigError: a folder is given twice.
        RecordError: a folder holds no study, or one without a finished run.
    """
    from driftscope.analysis.difference import study_difference
    from driftscope.cli import terminal
    from driftscope.report.side_by_side import OneStudy, save_side_by_side, write_side_by_side

    with_page, table_formats, figure_formats = chosen_formats(form)
    refuse_study_or_run(out)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("the same study is given twice; a study does not differ from itself")
    with terminal.err.status("reading the studies"):
        studies = []
        for letter, folder in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", folders, strict=False):
            study, tables = _finished(folder)
            name = f"{letter} ({folder.resolve().name})"
            studies.append(OneStudy(name, tables, study.records()))
        two = [one.study for one in studies]
        difference = study_difference(*two) if len(two) == 2 else None
    out.mkdir(parents=True, exist_ok=True)
    if with_page:
        named = shlex.join(map(str, folders))
        command = f"driftscope study report {named} --out {shlex.quote(str(out))}"
        with terminal.err.status("writing the page"):
            path = write_side_by_side(studies, difference, out / "report.html", command=command)
        say(f"Report: {terminal.path_text(path)}")
    with terminal.err.status("writing tables and figures"):
        paths = save_side_by_side(
            studies, difference, out, table_formats=table_formats, figure_formats=figure_formats
        )
    _say_where(paths)
    if difference is not None:
        say(difference.sentence)


def _finished(folder: Path) -> tuple[Study, StudyTables]:
    """A study and its tables; raises `RecordError` where no run has finished."""
    from driftscope.opened_study import Study

    study = Study(folder)
    say_what_a_study_lacks(study)
    tables = study.tables()
    if tables.runs.empty:
        raise RecordError(f"there is nothing to report: {folder} has no finished run yet")
    return study, tables


def _say_where(paths: Sequence[Path]) -> None:
    from driftscope.cli import terminal

    for place in dict.fromkeys(path.parent for path in paths):
        count = sum(path.parent == place for path in paths)
        say(f"{place.name.capitalize()}: {count} files in {terminal.path_text(place)}")
