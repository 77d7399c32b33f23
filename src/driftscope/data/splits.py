"""Which images train, validate, probe and test: fixed by the data seed, apart from the training's.

`leakfree` cuts validation and probe out of the training split, disjoint, and reads the test
split once. `paper` reproduces the publication: validation *is* the test split, and structure
is read on five class-balanced subsets of 200 images of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Generator, Tensor

from driftscope.config import RunSpec
from driftscope.errors import DataError

PAPER_SUBSETS = 5
PAPER_SUBSET_IMAGES = 200


@dataclass(frozen=True)
class Splits:
    """Indices into the training split (train, val and probe under `leakfree`) and the test split.

    Under `paper`, `held_out_from_test` is true: val and probe point into the test split.
    """

    train: Int64[Tensor, "image"]
    val: Int64[Tensor, "image"]
    probe: Int64[Tensor, "image"]
    test: Int64[Tensor, "image"]
    held_out_from_test: bool

    def hashes(self) -> dict[str, str]:
        """A short hash of each side's indices, for the record."""
        return {
            side: hashlib.blake2b(getattr(self, side).numpy().tobytes(), digest_size=6).hexdigest()
            for side in ("train", "val", "probe", "test")
        }


def make_splits(
    spec: RunSpec, train_labels: Int64[Tensor, "image"], test_labels: Int64[Tensor, "image"]
) -> Splits:
    """The splits of a spec; the same for every method, rate and training seed.

    Raises:
        DataError: more images asked for than there are.
    """
    generator = Generator().manual_seed(spec.data_seed)
    if spec.protocol == "paper":
        return _paper(spec, train_labels, test_labels, generator)
    return _leakfree(spec, train_labels, test_labels, generator)


def _leakfree(
    spec: RunSpec, train_labels: Tensor, test_labels: Tensor, generator: Generator
) -> Splits:
    needed = spec.val_images + spec.probe_images + 1
    if len(train_labels) < needed:
        raise DataError(
            f"{spec.dataset} has {len(train_labels)} training images, but {spec.val_images} for "
            f"validation and {spec.probe_images} for the probe set leave none to train on; "
            "lower val_images or probe_images"
        )
    everything = torch.arange(len(train_labels))
    probe = _balanced(everything, train_labels, spec.probe_images, generator)
    rest = _without(everything, probe)
    val = _balanced(rest, train_labels[rest], spec.val_images, generator)
    rest = _without(rest, val)
    train = _balanced(rest, train_labels[rest], spec.train_images or len(rest), generator)
    test = _balanced(
        torch.arange(len(test_labels)),
        test_labels,
        spec.test_images or len(test_labels),
        generator,
    )
    return Splits(train, val, probe, test, held_out_from_test=False)


def _paper(
    spec: RunSpec, train_labels: Tensor, test_labels: Tensor, generator: Generator
) -> Splits:
    everything = torch.arange(len(test_labels))
    if len(everything) < PAPER_SUBSET_IMAGES:
        raise DataError(
            f"protocol 'paper' reads structure on subsets of {PAPER_SUBSET_IMAGES} test images, "
            f"but {spec.dataset} has {len(everything)}; use protocol: leakfree"
        )
    subsets = [
        _balanced(everything, test_labels, PAPER_SUBSET_IMAGES, generator)
        for _ in range(PAPER_SUBSETS)
    ]
    train = _balanced(
        torch.arange(len(train_labels)),
        train_labels,
        spec.train_images or len(train_labels),
        generator,
    )
    return Splits(train, everything, torch.cat(subsets), everything, held_out_from_test=True)


def _balanced(pool: Tensor, labels: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` of the pool, as evenly over classes as they fill, in index order.

    Every class gives its n-th image before any gives its (n+1)-th; which images of a class,
    and which classes give the odd ones, is random.
    """
    if count >= len(pool):
        return pool
    shuffled = torch.randperm(len(pool), generator=generator)
    shuffled_labels = labels[shuffled]
    rank_in_class = torch.zeros(len(pool), dtype=torch.int64)
    for label in torch.unique(shuffled_labels):
        of_class = shuffled_labels == label
        rank_in_class[of_class] = torch.arange(int(of_class.sum()))
    first = torch.argsort(rank_in_class, stable=True)[:count]
    return pool[shuffled[first]].sort().values


def _without(pool: Tensor, taken: Tensor) -> Tensor:
    return pool[~torch.isin(pool, taken)]
