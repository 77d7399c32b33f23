"""What the terminal says while a study runs: seen through a console that writes to memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import fake_runs
import pytest
from rich.console import Console, RenderableType

from driftscope.cli import progress as terminal
from driftscope.cli import study_views
from driftscope.cli import terminal as consoles
from driftscope.cli.study_views import status_view
from driftscope.config import run_id
from driftscope.executors.schedule import Update
from driftscope.study.folder import SignOfLife
from driftscope.study.status import STATES, CellStatus, StudyStatus

SPECS = [fake_runs.spec(seed) for seed in (1, 2, 3)]
ONE, TWO, THREE = map(run_id, SPECS)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A terminal of 100 columns on which every state stays to be read."""
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "err", console)
    return text


def screen_after(shown: io.StringIO, *updates: Update, num_done: int = 0) -> str:
    # the view is drawn on a timer; a remark above it draws it at once
    terminal.follow([*updates, Update(ONE, 0, remark="drawn")], SPECS, num_done)
    return shown.getvalue()


def test_a_row_says_what_each_worker_does_and_only_ended_runs_are_counted(
    shown: io.StringIO,
) -> None:
    begun = [Update(TWO, 1), Update(ONE, 0)]
    screen = screen_after(shown, *begun, Update(ONE, 0, 9, 10), Update(TWO, 1, 8, 10))
    assert "0/3 runs" in screen
    assert "1/3 runs" not in screen  # though nine tenths and eight tenths are more than one
    assert "seed 2" in screen
    assert "8/10 steps" in screen
    preparing = screen_after(shown, Update(THREE, 1), num_done=1)
    assert "preparing" in preparing
    assert "1/3 runs" in preparing


def test_failures_are_told_as_they_come_word_for_word_and_counted(shown: io.StringIO) -> None:
    why = "ValueError: shapes [2, 3] and [/work/x] differ"  # no markup of the terminal's
    one, two = [Update(ONE, 0), Update(ONE, 0, failure=why)], [Update(TWO, 0, done=True)]
    assert terminal.follow([*one, *two], SPECS, 0) == {ONE: why}
    text = " ".join(shown.getvalue().split())
    assert f"failed terrain full_ft 1e-3 seed 1: {why}" in text
    assert "2/3 runs, 1 failed" in text


def test_the_time_left_follows_what_was_done_here_and_not_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, now = io.StringIO(), [0.0]
    options: dict[str, Any] = {"width": 100, "force_terminal": True, "color_system": None}
    console = Console(file=text, get_time=lambda: now[0], **options)
    monkeypatch.setattr(terminal, "err", console)

    def updates() -> Iterator[Update]:
        yield Update(ONE, 0)
        yield Update(ONE, 0, 51, 100)  # half of it was done before
        now[0] = 10.0
        yield Update(ONE, 0, 60, 100)
        yield Update(TWO, 1, remark="drawn")

    terminal.follow(updates(), SPECS, num_done=0)
    *_, last = text.getvalue().split("drawn")
    assert "0:00:40" in last  # ten steps took ten seconds
    assert "0:04:00" in last  # and 240 are left of all


def test_a_watched_study_is_cut_at_its_table_and_not_at_what_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = io.StringIO()
    options: dict[str, Any] = {"force_terminal": True, "color_system": None}
    monkeypatch.setattr(consoles, "out", Console(file=text, width=100, height=24, **options))
    counts = {**dict.fromkeys(STATES, 0), "failed": 1, "running": 1, "waiting": 28}
    labels = [{"dataset": "terrain", "learning_rate": f"{rate}e-4"} for rate in range(30)]
    status = StudyStatus(
        title="A study",
        counts=counts,
        cells=[CellStatus(one, {**counts, "waiting": 1}) for one in labels],
        running=[("terrain lora seed 1", SignOfLife(ONE, "host:1", 3, 10, 1.0))],
        failures=[("terrain lora seed 2", "ValueError: no")],
        seconds_left=60.0,
    )

    def views() -> Iterator[RenderableType]:
        yield status_view(status)
        screens.append(text.getvalue())  # what is seen before the view ends

    screens: list[str] = []
    consoles.show_in_place(views())
    (screen,) = screens
    assert "29e-4" not in screen  # the table is too long
    for words in ("about 60 s left", "host:1", "ValueError: no"):
        assert words in screen


def test_a_lost_worker_is_told_and_is_no_failure(shown: io.StringIO) -> None:
    updates = [Update(ONE, 0), Update(ONE, 0, remark="the worker process ended by signal 9")]
    assert terminal.follow(updates, SPECS, 0) == {}
    assert "lost terrain" in shown.getvalue()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["owner/model"], "Not checked: owner/model is not on this disk, and a plan downloads"),
        (["a/b", "c/d"], "Not checked: a/b and c/d are not on this disk, and a plan downloads"),
    ],
)
def test_a_plan_says_once_why_a_name_of_the_hub_is_not_checked_and_what_to_give(
    monkeypatch: pytest.MonkeyPatch, names: list[str], words: str
) -> None:
    text = io.StringIO()
    monkeypatch.setattr(study_views, "out", Console(file=text, width=300))
    counts = dict.fromkeys((*STATES, "num_done", "num_failed", "num_to_run"), 0)
    cells = [{"dataset": "terrain", "seeds": [0], **dict.fromkeys(STATES, 0)}]
    plan = {"study": "s", "title": "", "cells": cells, "num_runs": 1, "num_cells": 1, **counts}
    study_views.show_plan({**plan, "refusals": [], "unseen": names, "seconds": None})
    told = text.getvalue()
    assert words in told
    assert "name a folder that holds" in told
    assert [told.count(name) for name in names] == [1] * len(names)
