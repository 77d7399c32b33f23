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
        if (folder / STUDY_FILE).exists():
            from driftscope.study import StudyFolder

            watch_study(StudyFolder(folder))
        else:
            _watch_training(folder)
    except KeyboardInterrupt:
        return


def _watch_training(folder: Path) -> None:
    from driftscope.records.live import training_status
    from driftscope.terminal.training import training_view

    status = training_status(folder)  # before the view begins: an unusable folder is a sentence
    with training_view() as view:
        while True:
            view.update(status)
            if status.ended is not None:
                return
            time.sleep(WATCH_SECONDS)
            status = training_status(folder)
