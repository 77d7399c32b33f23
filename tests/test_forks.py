"""Work on several cores gives what it gives on one; a process that is lost costs nothing."""

from __future__ import annotations

import os
import sys

import pytest

from driftscope import forks
from driftscope.errors import RecordError
from driftscope.forks import spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")


@pytest.fixture
def several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "usable_cores", lambda: 2)
    monkeypatch.setattr(forks, "_may_fork", lambda: True)  # other tests load torch


@pytest.mark.usefixtures("several_cores")
def test_results_come_in_order_from_other_processes() -> None:
    found = list(spread(lambda n: (n * n, os.getpid()), range(5), is_worth_it=True))
    assert [square for square, _ in found] == [0, 1, 4, 9, 16]
    assert os.getpid() not in {process for _, process in found}
    assert {os.getpid()} == set(spread(lambda _: os.getpid(), range(5), is_worth_it=False))


@pytest.mark.usefixtures("several_cores")
def test_a_lost_process_costs_nothing() -> None:
    here = os.getpid()

    def work(number: int) -> int:
        if number == 2 and os.getpid() != here:
            os._exit(9)  # as the system ends what takes too much memory
        return number * number

    assert list(spread(work, range(5), is_worth_it=True)) == [0, 1, 4, 9, 16]


@pytest.mark.usefixtures("several_cores")
def test_an_error_arrives_as_it_was_raised() -> None:
    def work(number: int) -> int:
        raise RecordError(f"run {number} is damaged")

    with pytest.raises(RecordError, match="run 0 is damaged"):
        list(spread(work, range(3), is_worth_it=True))


def test_beside_torch_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "usable_cores", lambda: 2)
    monkeypatch.setitem(sys.modules, "torch", object())
    assert set(spread(lambda _: os.getpid(), range(3), is_worth_it=True)) == {os.getpid()}
