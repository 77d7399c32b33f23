"""What a study will cost: time and disk, from runs that were carried out, short or whole."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from driftscope.config import RunSpec
from driftscope.errors import RecordError
from driftscope.records import is_done, read_result
from driftscope.study.folder import StudyFolder

MAX_SAMPLES = 200
"""Runs read for an estimate at most: each kind of run has an equal share."""
_COSTS_NOTHING = frozenset(
    {
        *("learning_rate", "seed", "data_seed", "epochs", "weight_decay", "warmup_fraction"),
        *("clip_norm", "horizontal_flip", "decay_norms_and_biases", "label_smoothing"),
        *("templates", "class_words", "balanced", "corruption_severity"),
    }
)
"""What of a spec makes an epoch neither longer nor shorter, as far as a plan is concerned."""


@dataclass(frozen=True)
class Sample:
    """What one run took: seconds apart from training, seconds an epoch, bytes on disk."""

    spec: RunSpec
    fixed_seconds: float
    epoch_seconds: float
    num_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What runs will take: each of them, in their order, and on disk in all."""

    run_seconds: tuple[float, ...]
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
    seconds = []
    size = 0.0
    for spec in todo:
        fixed, epoch, num_bytes = next(
            means[likeness] for likeness in _likenesses(spec) if likeness in means
        )
        seconds.append(fixed + spec.epochs * epoch)
        size += num_bytes
    return Estimate(tuple(seconds), round(size), len(samples))


def wall_seconds(run_seconds: Iterable[float], workers: int) -> float:
    """How long runs take that workers fetch in order, each its next when it has ended one."""
    busy_until = [0.0] * workers
    for seconds in run_seconds:
        heapq.heapreplace(busy_until, busy_until[0] + seconds)
    return max(busy_until)


def representatives(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """One short run of each kind that costs differently: what a calibration carries out."""
    kinds: dict[tuple[object, ...], RunSpec] = {}
    for spec in specs:
        if _kind(spec) not in kinds:
            kinds[_kind(spec)] = spec.model_copy(update={"epochs": 1, "probe_at": _cadence(spec)})
    return list(kinds.values())


def earlier_samples(folder: StudyFolder, specs: Iterable[RunSpec]) -> list[Sample]:
    """What finished runs took: runs of these specs, and runs of an earlier declaration.

    At most `MAX_SAMPLES` runs are read: the first runs of each kind, and if there are more kinds
    than that, kinds at equal distances.
    """
    of_kind = [(_kind(spec), spec, folder.run(spec)) for spec in specs]
    if folder.is_declared:
        earlier = [(spec, place) for place, spec in folder.specs(folder.undeclared())]
        of_kind += [(_kind(spec), spec, place) for spec, place in earlier]
    kinds = list(dict.fromkeys(kind for kind, *_ in of_kind))
    wanted = set(kinds[:: max(1, -(-len(kinds) // MAX_SAMPLES))])
    share = max(1, MAX_SAMPLES // max(1, len(wanted)))
    taken: Counter[tuple[object, ...]] = Counter()
    samples: list[Sample] = []
    for kind, spec, place in of_kind:
        if kind in wanted and taken[kind] < share and is_done(place):
            with suppress(RecordError):  # a damaged one tells nothing
                samples.append(sample(spec, place))
                taken[kind] += 1
    return samples


def sample(spec: RunSpec, folder: Path) -> Sample:
    """What a finished run took; where it does not say how long it trained, all of it counts."""
    seconds = read_result(folder).wall_seconds
    training = seconds.total if seconds.training is None else seconds.training
    return Sample(
        spec,
        fixed_seconds=seconds.total - training,
        epoch_seconds=training / spec.epochs,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _likenesses(spec: RunSpec) -> tuple[tuple[object, ...], ...]:
    """By what runs cost alike, from the closest to the loosest; the last holds of any two."""
    task = (spec.model, spec.dataset, spec.train_images)
    return _kind(spec), (*task, spec.method.kind), task, ()


def _kind(spec: RunSpec) -> tuple[object, ...]:
    deciding = (name for name in RunSpec.model_fields if name not in _COSTS_NOTHING)
    values = {name: getattr(spec, name) for name in deciding}
    return tuple({**values, "probe_at": _cadence(spec)}.values())


def _cadence(spec: RunSpec) -> object:
    """How often a run is probed; a few steps listed are no cadence, and may lie past one epoch."""
    return "epoch" if isinstance(spec.probe_at, tuple) else spec.probe_at
