"""What the events and reports of monitors and comparisons hold, typed as the run's record is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from driftscope.errors import RecordError, shown
from driftscope.records.schema import (
    Part,
    RescuedFrom,
    StoredEstimate,
    StoredPrompts,
    TransferScore,
    is_number,
    parse,
)


class Alert(Part):
    """A warning of a monitor."""

    kind: str
    sentence: str
    step: int


class WatchedSet(StoredPrompts):
    """A transfer set that a monitor watches, and what its class prompts are made of."""

    name: str


class MonitorHeader(Part):
    """A monitor's first line: what is watched and against what."""

    pretrained: str | None = None
    transfer: list[WatchedSet] = Field(default_factory=list)


class WorkerSaid(Part):
    """What the worker of a run last said of it, beside the runs of its study."""

    worker: str
    steps_done: Annotated[int, Field(ge=0, lt=2**63)]
    steps_total: Annotated[int, Field(ge=0, lt=2**63)]


class Event(dict[str, Any]):
    """A line of `events.jsonl`: a mapping, most of it numbers by the metric's key.

    A run writes `epoch`, `probe` and `diverged`; a monitor `monitor`, `observation`, `stop`, `end`.
    """

    @property
    def kind(self) -> str:
        """What happened; "" of a line that does not say it."""
        return str(self.get("kind", ""))

    def numbers(self) -> dict[str, float]:
        """The single numbers that were finite, by their names."""
        return {name: value for name, value in self.items() if is_number(value)}

    def doubts(self) -> list[str]:
        """What makes its numbers doubtful: a run's own list, or that of each set of a monitor."""
        found = _listed(self.get("doubts"))
        for key in ("transfer", "retrieval"):
            sets = self.get(key)
            for name, score in sets.items() if isinstance(sets, dict) else ():
                told = _listed(score.get("doubts")) if isinstance(score, dict) else []
                found += [f"{name}: {one}." for one in told]
        estimate = self.get("estimate")
        return found + (_listed(estimate.get("doubts")) if isinstance(estimate, dict) else [])

    def alerts(self) -> list[Alert] | None:
        """The alerts that held; None where nothing was looked for.

        Raises:
            RecordError: they are no alerts.
        """
        found = self.get("alerts")
        if found is None:
            return None
        if not isinstance(found, list):
            raise RecordError(f"the alerts of a {self.kind} are {shown(found)}, not a list")
        return [parse(Alert, one, f"an alert of a {self.kind}") for one in found]


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


class Scalars(Part):
    """The numbers of one observation, or of a comparison, by name."""

    step: int | None = None
    scalars: dict[str, Any]


class ObservedScores(Part):
    """One observation's scores by transfer set; its other numbers are kept as they are."""

    model_config = ConfigDict(extra="allow")

    step: int | None = None
    transfer: dict[str, TransferScore] | None = None
    estimate: StoredEstimate | None = None


class ComparedScore(TransferScore, StoredPrompts):
    """A transfer set of a comparison, and what its class prompts were made of."""

    adapted: TransferScore | None = None


class WatchedOn(Part):
    """What a monitor was given to read, as far as a command names it."""

    pretrained: str | None = None
    probe_images: str | None = None
    transfer: list[WatchedSet] = Field(default_factory=list)
    pool_as_given: str | None = None
    classes_as_given: str | None = None
    images_are_labeled: bool = False
    split_of: str | None = None
    kept_model: str | None = None
    """The folder of the latest model, where the monitor kept one."""


class Report(Part):
    """`report.json` of a comparison or a monitor, as far as it is judged."""

    kind: str = ""
    scalars: dict[str, Any]
    pretrained: str | None = None
    adapted: str | None = None
    images: str | None = None
    pool: str | None = None
    classes: str | None = None
    monitor: dict[str, Any] | None = None
    unmeasured: dict[str, str] = Field(default_factory=dict)
    doubts: list[str] = Field(default_factory=list)
    images_are_labeled: bool = False
    split_of: str | None = None
    rescued_from: RescuedFrom | None = None
    transfer: dict[str, ComparedScore] | None = None
    estimate: StoredEstimate | None = None
    latest: Scalars | None = None
    best: Scalars | None = None
    history: list[ObservedScores] | None = None
