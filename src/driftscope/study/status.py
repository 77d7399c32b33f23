"""How far a study is, read from its folder alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from driftscope.config import RunSpec
from driftscope.study.folder import ALIVE_SECONDS, SignOfLife, State, StudyFolder
from driftscope.study.matrix import cells, value_text
from driftscope.study.plan import earlier_samples, estimate, wall_seconds

STATES: tuple[State, ...] = ("done", "failed", "running", "interrupted", "waiting")


@dataclass(frozen=True)
class CellStatus:
    """A cell and how many of its runs are in which state."""

    labels: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        title: the study's.
        counts: runs by state.
        cells: the same by cell.
        running: what workers do at this moment, with the run in words.
        failures: (run in words, why).
        seconds_left: what is left, if as many runs at a time go on as do now; None if unknown.
    """

    title: str
    counts: dict[str, int]
    cells: list[CellStatus]
    running: list[tuple[str, SignOfLife]]
    failures: list[tuple[str, str]]
    seconds_left: float | None

    @property
    def num_runs(self) -> int:
        """All declared runs."""
        return sum(self.counts.values())

    @property
    def is_over(self) -> bool:
        """Whether every run has ended, well or not."""
        return self.counts["done"] + self.counts["failed"] == self.num_runs

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "num_runs": self.num_runs, "is_over": self.is_over}


def study_status(folder: StudyFolder, runs: Mapping[str, RunSpec]) -> StudyStatus:
    """Reads how far a study is; takes no lock and disturbs no worker.

    Args:
        folder: the study's.
        runs: its runs by id, as `StudyFolder.runs` tells them.
    """
    study = folder.study()
    states = folder.states(runs)
    of_spec = {id(spec): states[name] for name, spec in runs.items()}  # imported ones may be equal
    running = [
        (run_words(runs[sign.run_id]), sign)
        for sign in folder.signs_of_life()
        if sign.run_id in runs
        and sign.age_seconds < ALIVE_SECONDS
        and states[sign.run_id] == "running"
    ]
    return StudyStatus(
        title=study.title or study.name,
        counts=_counts(states.values()),
        cells=[
            CellStatus(cell.labels, _counts(of_spec[id(spec)] for spec in cell.specs))
            for cell in cells(list(runs.values()))
        ],
        running=running,
        failures=[(run_words(runs[name]), why) for name, why in folder.failures(runs).items()],
        seconds_left=_seconds_left(folder, runs, states, [sign for _, sign in running]),
    )


def run_words(spec: RunSpec) -> str:
    """A run in a few words."""
    regularized = "" if spec.regularizer_label == "none" else f"  {spec.regularizer_label}"
    name = f"{spec.dataset}  {spec.method.label}  {value_text(spec, 'learning_rate')}{regularized}"
    return f"{name}  seed {spec.seed}"


def _counts(states: Iterable[State]) -> dict[str, int]:
    counted = Counter(states)
    return {state: counted[state] for state in STATES}


def _seconds_left(
    folder: StudyFolder,
    runs: Mapping[str, RunSpec],
    states: dict[str, State],
    signs: Sequence[SignOfLife],
) -> float | None:
    left = [name for name in runs if states[name] not in ("done", "failed")]
    if not left:
        return 0.0
    shares = {sign.run_id: sign.share for sign in signs}
    left.sort(key=lambda name: name not in shares)  # what runs now ends first
    cost = estimate([runs[name] for name in left], earlier_samples(folder, runs.values()))
    if cost is None or not signs:
        return None
    pairs = zip(left, cost.run_seconds, strict=True)
    return wall_seconds((s * (1 - shares.get(name, 0.0)) for name, s in pairs), len(signs))
