"""What the terminal says while a study runs: seen through a console that writes to memory."""

from __future__ import annotations

import io
from collections.abc import Iterator

import fake_runs
import pytest
from rich.console import Console

from driftscope.config import run_id
from driftscope.executors.schedule import Update
from driftscope.terminal import study as terminal

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


def test_a_lost_worker_is_told_and_is_no_failure(shown: io.StringIO) -> None:
    updates = [Update(ONE, 0), Update(ONE, 0, remark="the worker process ended by signal 9")]
    assert terminal.follow(updates, SPECS, 0) == {}
    assert "lost terrain" in shown.getvalue()
