"""Whether a report may be written into a folder, or would overwrite somebody else's."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from driftscope.errors import RecordError
from driftscope.files import read_bytes
from driftscope.limits import EVENTS_MB
from driftscope.records.file_names import REPORT_FILE, SPEC_FILE, STUDY_FILE
from driftscope.records.json_files import read_json

_PAGE = "report.html"
STUDY_PAGES = ("study report", "studies side by side")
RUN_PAGES = ("one run",)
_KIND_OF_PAGE = re.compile(rb'<p class="brand">driftscope <span>([^<]*)</span>')
"""What every page of ours says of its kind, at its head."""


def refuse_others_report(
    folder: Path, kind: str | None, pages: Collection[str] = STUDY_PAGES
) -> None:
    """Refuses a folder whose report the next one is not the successor of.

    Args:
        folder: where `report.html` is to be written.
        kind: of the `report.json` beside it, such as `comparison`; None where there is to be none.
        pages: where there is to be none, the kinds of page whose place the next one may take.

    Raises:
        RecordError: a report of another kind, or one that is not driftscope's, is there.
    """
    file, page = folder / REPORT_FILE, folder / _PAGE
    if file.exists():
        is_successor, found = kind is not None and _kind_of(file) == kind, file
    else:
        is_successor, found = kind is None and _kind_of_page(page) in pages, page
    if found.exists() and not is_successor:
        raise RecordError(
            f"{found} is there already and is no report of this kind, and it would be "
            "overwritten; give another folder"
        )


def refuse_others_place(folder: Path, kind: str | None) -> None:
    """Refuses what `refuse_others_report` does, and the folder of a study or a run.

    Those have a page of their own, which `study report` writes.

    Raises:
        RecordError: it is such a folder, or another report is there.
    """
    for file in (STUDY_FILE, SPEC_FILE):
        if (folder / file).exists():
            raise RecordError(
                f"{folder} holds a study or a run (it has {file}), and this report has no place "
                "there; give another folder"
            )
    refuse_others_report(folder, kind)


def _kind_of(file: Path) -> object:
    try:
        return read_json(file).get("kind")
    except RecordError:
        return None


def _kind_of_page(page: Path) -> str | None:
    try:
        said = _KIND_OF_PAGE.search(read_bytes(page, EVENTS_MB))
    except OSError:
        return None
    return said and said[1].decode(errors="replace")
