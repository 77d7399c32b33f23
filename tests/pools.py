"""A pool without workers: runs are carried out in the process that asks for them."""

from __future__ import annotations

from pathlib import Path

from driftscope.config import RunSpec
from driftscope.executors.schedule import News
from driftscope.executors.work import RUN_ONE, carry_out


class InThisProcess:
    """A pool of one slot, without workers of its own: no process is started, nothing imported.

    It takes the options of a `LocalPool`, in whose place it stands, and needs none of them.
    """

    num_workers = 1

    def __init__(self, *_: object, run_one: str = RUN_ONE, **__: object) -> None:
        self.run_one = run_one
        self.outcomes: list[News] = []
        self.started: list[Path] = []

    def free_slots(self) -> list[int]:
        return [] if self.outcomes else [0]

    def start(self, slot: int, spec: RunSpec, folder: Path) -> None:
        self.started.append(folder)
        values = spec.model_dump(mode="json")
        outcome = carry_out(values, self.place_of(folder), run_one=self.run_one, device="cpu")
        self.outcomes = [News(slot, *outcome)]

    def place_of(self, folder: Path) -> Path:
        return folder

    def wait(self, timeout: float | None) -> list[News]:
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def close(self) -> None:
        pass
