"""What a blend is found and chosen by, apart from what it is measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from driftscope.data.duplicates import found_among
from driftscope.data.rows import PixelRows, PixelSource
from driftscope.errors import ModelError
from driftscope.estimate import Pool
from driftscope.transfer.classification import LabelledSet

_LEAST_MEASURED = 100
"""So many images or half of a set must be left, so that what they measure is worth telling."""


def pool_apart(pool: Pool, benchmark: LabelledSet) -> Pool:
    """The pool without the images of a labeled set.

    Raises:
        ModelError: hardly anything is left.
    """
    left = _left_of(pool.pixels, benchmark.image_sets().values())
    if len(left) < 4:
        count = len(pool.pixels)
        raise ModelError(
            f"{count - len(left)} of the pool's {count} images are also of the transfer set "
            f"{benchmark.name}, so a rescue would be judged by what it was searched on; give "
            "another pool, more pool_images or fewer transfer_images"
        )
    return replace(pool, pixels=PixelRows.of(pool.pixels).select(left))


def measured_apart(benchmark: LabelledSet, pool: Pool) -> LabelledSet:
    """The labeled set without the images of the pool; with a doubt where too few would be left."""
    left, count = _left_of(benchmark.pixels, [pool.pixels]), len(benchmark.pixels)
    num_shared = count - len(left)
    if not num_shared:
        return benchmark
    if len(left) < min(_LEAST_MEASURED, count / 2):
        return _doubted(benchmark, num_shared, pool.name)
    note = f"{num_shared:,} of its {count:,} images are in the pool, too, and are left out"
    return replace(
        benchmark,
        pixels=PixelRows.of(benchmark.pixels).select(left),
        labels=benchmark.labels[left],
        notes=(*benchmark.notes, note),
    )


def _left_of(images: PixelSource, others: Iterable[PixelSource]) -> list[int]:
    """Positions of the images that are not among the others."""
    shared = set(found_among(images, others))
    return [place for place in range(len(images)) if place not in shared]


def _doubted(benchmark: LabelledSet, num_shared: int, pool: str) -> LabelledSet:
    doubt = (
        f"{num_shared:,} of the {len(benchmark.pixels):,} images of {benchmark.name} are in the "
        f"pool {pool}, too, and the blend was found and chosen by that, so what it keeps of others "
        "may be less; give another pool or transfer set"
    )
    return replace(benchmark, doubts=(*benchmark.doubts, doubt))
