"""`driftscope watch`: a live view of whatever is written to a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.sentences import plain_errors
from driftscope.cli.study import WATCH_SECONDS, watch_study


@plain_errors
def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, a study or a monitor.")],
) -> None:
    """A live view of a training or a study, until it is over; Ctrl-C ends the view alone."""
    from driftscope.records import STUDY_FILE

    try:
        _wait_until_written(folder)
        if (folder / STUDY_FILE).exists():
            from driftscope.study import StudyFolder

            watch_study(StudyFolder(folder))
        else:
            _watch_training(folder)
    except KeyboardInterrupt:
        return


def _wait_until_written(folder: Path) -> None:
    """So that the view can be opened before the training is: a folder's first file ends it."""
    from driftscope.cli import terminal

    if not _is_empty(folder):
        return
    with terminal.err.status(f"nothing in {folder} yet; waiting (Ctrl-C ends this)"):
        while _is_empty(folder):
            time.sleep(WATCH_SECONDS)


def _is_empty(folder: Path) -> bool:
    # a leading dot: the lock and the temporary files of a run that is about to begin
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _watch_training(folder: Path) -> None:
    from driftscope.cli.training_view import training_view
    from driftscope.records.live import training_status

    status = training_status(folder)  # before the view begins: an unusable folder is a sentence
    with training_view() as view:
        while True:
            view.update(status)
            if status.ended is not None:
                return
            time.sleep(WATCH_SECONDS)
            status = training_status(folder)
