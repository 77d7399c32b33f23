"""What a study will cost: time and disk, from runs that were carried out, short or whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

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
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        for likeness in _likenesses(sample.spec):
            groups.setdefault(likeness, []).append(sample)
    means = {
        likeness: (
            fmean(sample.fixed_seconds for sample in alike),
            fmean(sample.epoch_seconds for sample in alike),
            fmean(sample.num_bytes for sample in alike),
        )
        for likeness, alike in groups.items()
    }
    seconds = 0.0
    size = 0.0
    for spec in todo:
        fixed, epoch, num_bytes = next(
            means[likeness] for likeness in _likenesses(spec) if likeness in means
        )
        seconds += fixed + spec.epochs * epoch
        size += num_bytes
    return Estimate(seconds, round(size), len(samples))


def representatives(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """One short run of each kind that costs differently: what a calibration carries out."""
    kinds: dict[tuple[object, ...], RunSpec] = {}
    for spec in specs:
        kinds.setdefault(_kind(spec), spec.model_copy(update={"epochs": 1}))
    return list(kinds.values())


def earlier_samples(folder: StudyFolder, specs: Iterable[RunSpec]) -> list[Sample]:
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


def _likenesses(spec: RunSpec) -> tuple[tuple[object, ...], ...]:
    """By what runs cost alike, from the closest to the loosest; the last holds of any two."""
    task = (spec.model, spec.dataset, spec.train_images)
    return _kind(spec), (*task, spec.method.kind), task, ()


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
