"""What a study will cost: time and disk, from runs that were carried out, short or whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from driftscope.config import RunSpec
from driftscope.records import is_done, read_result
from driftscope.study.folder import StudyFolder

MAX_SAMPLES = 200
"""Runs read at most for an estimate."""


@dataclass(frozen=True)
class Sample:
    """What one run took: seconds apart from training, seconds an epoch, bytes on disk."""

    spec: RunSpec
    fixed_seconds: float
    epoch_seconds: float
    num_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What runs will take in all, one after another; divide by the workers."""

    seconds: float
    num_bytes: int
    num_samples: int


def estimate(todo: Sequence[RunSpec], samples: Sequence[Sample]) -> Estimate | None:
    """Time and disk of runs, from the samples most like each; None without samples."""
    if not samples:
        return None
    likeness = {_kind(sample.spec): sample for sample in samples}
    groups = {kind: [s for s in samples if _kind(s.spec) == kind] for kind in likeness}
    seconds = 0.0
    size = 0.0
    for spec in todo:
        alike = groups.get(_kind(spec), samples)
        seconds += mean(s.fixed_seconds + spec.epochs * s.epoch_seconds for s in alike)
        size += mean(s.num_bytes for s in alike)
    return Estimate(seconds, round(size), len(samples))


def representatives(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """One short run of each kind that costs differently: what a calibration carries out."""
    kinds: dict[tuple[object, ...], RunSpec] = {}
    for spec in specs:
        kinds.setdefault(_kind(spec), spec.model_copy(update={"epochs": 1}))
    return list(kinds.values())


def earlier_samples(folder: StudyFolder, specs: Sequence[RunSpec]) -> list[Sample]:
    """What the finished ones of these runs took."""
    samples: list[Sample] = []
    for spec in specs:
        if len(samples) == MAX_SAMPLES:
            break
        if is_done(folder.run(spec)):
            samples.append(sample(spec, folder.run(spec)))
    return samples


def sample(spec: RunSpec, folder: Path) -> Sample:
    """What a finished run took; where it does not say how long it trained, all of it counts."""
    seconds = read_result(folder)["wall_seconds"]
    training = seconds.get("training", seconds["total"])
    return Sample(
        spec,
        fixed_seconds=seconds["total"] - training,
        epoch_seconds=training / spec.epochs,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _kind(spec: RunSpec) -> tuple[object, ...]:
    return (
        spec.model,
        spec.dataset,
        spec.method.label,
        spec.regularizer_label,
        spec.batch_size,
        spec.train_images,
        spec.transfer,
    )
