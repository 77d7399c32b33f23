"""Options and arguments that several commands have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope.errors import DataError, one_line, shown

MACHINE, PRINTED = "Machine", "Output"
"""Panels of the help."""


def opt(meaning: str, *names: str, panel: str | None = None, **more: Any) -> Any:
    """An option with its meaning and its panel of the help."""
    return typer.Option(*names, help=meaning, rich_help_panel=panel, **more)


Before = Annotated[
    str,
    typer.Argument(
        help="The model before fine-tuning: mini, a hub id, a folder, a file of weights or "
        "open_clip:NAME:FILE."
    ),
]
After = Annotated[
    str,
    typer.Argument(
        help="The model after: a folder, a PEFT adapter, a run's folder, a hub id, a file of "
        "weights or open_clip:NAME:FILE."
    ),
]
OutFolder = Annotated[Path, opt("The folder to write to.", "--out", panel=PRINTED)]
AsJson = Annotated[bool, opt("Print everything as JSON.", "--json", panel=PRINTED)]
Device = Annotated[
    str | None, opt("Such as cpu or cuda:0. By default CUDA where there is any.", panel=MACHINE)
]
_WORKERS = "Runs at the same time. By default as many as cores, memory or GPUs allow."
Workers = Annotated[int | None, opt(_WORKERS, panel=MACHINE, min=1)]


def refuse_unfit(
    models: Iterable[str],
    images: Iterable[str | None] = (),
    labeled: Iterable[str | None] = (),
    pool: str | None = None,
    classes: str | None = None,
) -> None:
    """Refuses places that are not there, and then what `early.refuse_unfit` refuses of the rest.

    Arguments and errors are those of that function; sets that were not given are None.
    """
    of_models, of_images, of_labeled = ([*filter(None, one)] for one in (models, images, labeled))
    refuse_missing(of_models, (*of_images, *of_labeled, pool), classes)
    from driftscope import early  # imports torch

    early.refuse_unfit(of_models, of_images, of_labeled, pool, classes)


def refuse_missing(
    models: Iterable[str], images: Iterable[str | None] = (), classes: str | None = None
) -> None:
    """Refuses places that are not there, before any library is loaded.

    Raises:
        ModelError, DataError: a name can only be a place, and nothing is there.
    """
    from driftscope.nearby import (
        refuse_missing_images,
        refuse_missing_model,
        refuse_missing_names,
    )

    for model in models:
        refuse_missing_model(model)
    for name in filter(None, images):
        refuse_missing_images(name)
    if classes is not None:
        refuse_missing_names(classes)


def refuse_file(out: Path) -> None:
    """Raises `DataError` where an output folder is a file."""
    if out.is_file():
        raise DataError(f"the output {out} is a file; give a folder with --out")


def print_or_write(text: str, out: Path | None) -> None:
    """Prints a text, or writes it to the file that --out names; errors as for `write_text`."""
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text, "--out")


def write_text(path: Path, text: str, option: str) -> None:
    """Writes a file that an option names, whole, and the folders above it; a link is followed.

    Raises:
        DataError: it cannot be written.
    """
    from driftscope.files import followed, write_whole

    file = followed(path)
    if file.is_dir():
        raise DataError(f"{option} {path} is a folder; give a file, such as {path / 'FILE'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{option} {path} cannot be written ({one_line(error)}); give a file in a "
            "folder that you may write to"
        ) from None


def refuse_full_folder(out: Path) -> None:
    """Refuses a place where a model cannot be written, before any work is done for it.

    Raises:
        DataError: something is there, nobody may write there, or its path is no text.
    """
    from driftscope.files import check_writable, followed

    try:
        os.path.realpath(out).encode()  # libraries in Rust take no other
    except UnicodeEncodeError:
        raise DataError(
            f"the path of --out {shown(str(out))} is not UTF-8, and a model's files cannot be "
            "written under it; give another folder"
        ) from None
    try:
        if out.exists() and (out.is_file() or any(out.iterdir())):
            raise DataError(f"{out} is not empty; give a new folder with --out")
        check_writable(followed(out))
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({one_line(error)}); give a folder that you may write to "
            "with --out"
        ) from None


def refuse_study_or_run(out: Path, kind: str | None = None) -> None:
    """Refuses a folder in which a report would take the place of something else.

    Args:
        out: the folder.
        kind: of the `report.json` that is to be written; None for none.

    Raises:
        RecordError: it is the folder of a study or a run, or another report is there.
    """
    from driftscope.records.report_place import refuse_others_place

    refuse_file(out)
    refuse_others_place(out, kind)
