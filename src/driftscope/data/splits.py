"""Which images train, validate, probe and test: fixed by the data seed, apart from the training's.

`leakfree` cuts validation and probe out of the training split, disjoint, and reads the test
split once. `paper` reproduces the publication: validation *is* the test split, and structure
is read on five class-balanced subsets of 200 images of it.

Where images come in groups (a place, a patient), no group is on two sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Generator, Tensor

from driftscope.config import RunSpec
from driftscope.data import EncodedSet, ImageSet, labelled, look
from driftscope.errors import DataError

PAPER_SUBSETS = 5
PAPER_SUBSET_IMAGES = 200
TEST_SHARE = 0.2
"""What is set aside as test split where a dataset has none."""

Indices = Int64[Tensor, " image"]


@dataclass(frozen=True)
class Splits:
    """Indices into the training split (train, val and probe under `leakfree`) and the test split.

    Under `paper`, `held_out_from_test` is true: val and probe point into the test split, and
    `probe` is the five subsets one after the other.
    """

    train: Int64[Tensor, " image"]
    val: Int64[Tensor, " image"]
    probe: Int64[Tensor, " image"]
    test: Int64[Tensor, " image"]
    held_out_from_test: bool
    num_given: int
    """Images of the training split, before any was set aside."""
    probe_subsets: tuple[Indices, ...] = ()
    notes: tuple[str, ...] = ()
    """What was passed over or left out of the images."""

    def hashes(self) -> dict[str, str]:
        """A short hash of each side's indices, for the record."""
        return {side: _hash(getattr(self, side)) for side in ("train", "val", "probe", "test")}

    def probe_positions(self) -> list[list[int]] | None:
        """Where the fixed evaluation subsets stand in `probe`, with all of it last; None without.

        Under `paper` they follow each other.
        """
        if not self.probe_subsets:
            return None
        positions, start = [], 0
        for subset in self.probe_subsets:
            positions.append(list(range(start, start + len(subset))))
            start += len(subset)
        return [*positions, list(range(start))]

    def to_dict(self) -> dict[str, Any]:
        """For the record: each side's size and hash, and the probe images by index."""
        subsets = self.probe_subsets or (self.probe,)
        return {
            "num_images": {
                side: len(getattr(self, side)) for side in ("train", "val", "probe", "test")
            },
            "num_given": self.num_given,
            "hashes": self.hashes(),
            "probe_of": "test" if self.held_out_from_test else "train",
            "notes": list(dict.fromkeys(self.notes)),
            "probe_subsets": [
                {"hash": _hash(subset), "indices": subset.tolist()} for subset in subsets
            ],
        }


def open_train_and_test(
    dataset: str, data_seed: int, *, protocol: str = "leakfree", skip_bad_images: bool = False
) -> tuple[ImageSet, ImageSet]:
    """A dataset's two splits; a set that has one is divided, a fifth of each class for testing.

    Raises:
        DataError: no such dataset, unlabeled, classes that differ or have test images alone, a
            group on both sides; or undivided under the protocol `paper`, which validates on the
            test split that is given.
    """
    found = look(dataset)
    if skip_bad_images:
        found = found.skipping_bad_images()
    train, test = found.open_labelled("train"), found.open_labelled("test")
    labels, class_names = labelled(train)
    test_labels, test_names = labelled(test)
    if class_names != test_names:
        differing = sorted(set(class_names) ^ set(test_names))
        raise DataError(
            f"the splits {train.split} and {test.split} of {dataset} name different classes: "
            f"{', '.join(differing[:5]) or 'the same in another order'}"
        )
    if isinstance(train, EncodedSet) and train.split == test.split:
        if protocol == "paper":
            raise DataError(
                f"protocol 'paper' validates on the test split that a dataset provides, but "
                f"{dataset} provides none; use protocol: leakfree, which sets a fifth of every "
                "class aside, or divide the set into train and test yourself"
            )
        generator = Generator().manual_seed(data_seed)
        groups = _numbered(train.groups)
        chosen = _a_share(labels, groups, TEST_SHARE, generator)
        rest = _without(torch.arange(len(labels)), chosen)
        return train.select(rest), train.select(chosen)
    _refuse_untrained_classes(train, labels, test_labels, class_names)
    _refuse_shared_group(train, test)
    return train, test


def make_splits(
    spec: RunSpec,
    train_labels: Int64[Tensor, " image"],
    test_labels: Int64[Tensor, " image"],
    *,
    class_names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Splits:
    """The splits of a spec; the same for every method, rate and training seed.

    Args:
        spec: the counts, the protocol, the data seed, whether classes are balanced.
        train_labels: the training split's class indices.
        test_labels: the test split's.
        class_names: for error sentences.
        groups: which training images belong together.

    Raises:
        DataError: more images asked for than there are, in all or of a class.
    """
    highest = max((int(one.max()) for one in (train_labels, test_labels) if len(one)), default=0)
    names = tuple(class_names or map(str, range(highest + 1)))
    pick = _Picker(spec, names, Generator().manual_seed(spec.data_seed))
    if spec.protocol == "paper":
        return _paper(spec, train_labels, test_labels, pick)
    return _leakfree(spec, train_labels, test_labels, _numbered(groups), pick)


def evaluation_subsets(
    labels: Int64[Tensor, " image"],
    class_names: Sequence[str],
    generator: Generator,
    *,
    count: int = PAPER_SUBSETS,
    size: int = PAPER_SUBSET_IMAGES,
) -> tuple[Indices, ...]:
    """Class-balanced subsets, each without repetition, drawn independently of each other.

    Raises:
        DataError: a class has too few images; the sentence names it and the count.
    """
    everything = torch.arange(len(labels))
    quota = size // len(class_names)
    for label, name in enumerate(class_names):
        available = int((labels == label).sum())
        if available < quota:
            raise DataError(
                f"the class {name!r} has {available} images, but a class-balanced subset of {size} "
                f"takes {quota} of each of {len(class_names)} classes"
            )
    return tuple(_balanced(everything, labels, size, generator) for _ in range(count))


def balanced_subset(
    labels: Int64[Tensor, " image"], count: int | None, seed: int = 0
) -> Int64[Tensor, " image"]:
    """`count` images as evenly over classes as they fill, always the same; all for None.

    Not the first so many: a folder's images come class by class.
    """
    if count is not None and count < 1:
        raise DataError(f"{count} images of a dataset were asked for; give 1 or more")
    generator = Generator().manual_seed(seed)
    return _balanced(torch.arange(len(labels)), labels, count or len(labels), generator)


# ---------------------------------------------------------------- the protocols


@dataclass(frozen=True)
class _Picker:
    """Draws sides one after the other from what is left."""

    spec: RunSpec
    class_names: Sequence[str]
    generator: Generator

    def held_out(
        self, pool: Indices, labels: Tensor, count: int, groups: Tensor | None
    ) -> tuple[Indices, Indices]:
        """A side of `count` images, and the pool that is left for the others."""
        if groups is not None:
            pool, rest = self._whole_groups(pool, labels, count, groups)
            return self._draw(pool, labels[pool], count), rest
        side = self._draw(pool, labels[pool], count)
        return side, _without(pool, side)

    def at_most(self, pool: Indices, labels: Tensor, count: int | None) -> Indices:
        """All of a pool, or `count` as evenly over classes as they fill."""
        return _balanced(pool, labels[pool], count or len(pool), self.generator)

    def _draw(self, pool: Indices, labels: Tensor, count: int) -> Indices:
        if self.spec.balanced:
            return _balanced(pool, labels, count, self.generator)
        order = torch.randperm(len(pool), generator=self.generator)[:count]
        return pool[order].sort().values

    def _whole_groups(
        self, pool: Indices, labels: Tensor, count: int, groups: Tensor
    ) -> tuple[Indices, Indices]:
        """Groups in random order until they can fill the side; and the images of the others."""
        present = torch.unique(groups[pool])
        quota = count // len(self.class_names) if self.spec.balanced else 0
        have = torch.zeros(len(self.class_names), dtype=torch.int64)
        taken: list[int] = []
        for place in torch.randperm(len(present), generator=self.generator).tolist():
            if int(have.sum()) >= count and bool((have >= quota).all()):
                break
            group = int(present[place])
            taken.append(group)
            members = pool[groups[pool] == group]
            have += torch.bincount(labels[members], minlength=len(self.class_names))
        inside = torch.isin(groups[pool], torch.tensor(taken, dtype=torch.int64))
        return pool[inside], pool[~inside]


def _leakfree(
    spec: RunSpec, train_labels: Tensor, test_labels: Tensor, groups: Tensor | None, pick: _Picker
) -> Splits:
    needed = spec.val_images + spec.probe_images + 1
    if len(train_labels) < needed:
        raise DataError(
            f"{spec.dataset} has {len(train_labels)} training images, but {spec.val_images} for "
            f"validation and {spec.probe_images} for the probe set leave none to train on; "
            "lower val_images or probe_images"
        )
    if spec.balanced:
        _refuse_unfilled_class(spec, train_labels, pick.class_names)
    everything = torch.arange(len(train_labels))
    probe, rest = pick.held_out(everything, train_labels, spec.probe_images, groups)
    val, rest = pick.held_out(rest, train_labels, spec.val_images, groups)
    train = pick.at_most(rest, train_labels, spec.train_images)
    test = pick.at_most(torch.arange(len(test_labels)), test_labels, spec.test_images)
    if groups is not None:
        _refuse_too_few_groups(spec, train, val, probe, groups)
    return Splits(train, val, probe, test, held_out_from_test=False, num_given=len(train_labels))


def _paper(spec: RunSpec, train_labels: Tensor, test_labels: Tensor, pick: _Picker) -> Splits:
    everything = torch.arange(len(test_labels))
    if len(everything) < PAPER_SUBSET_IMAGES:
        raise DataError(
            f"protocol 'paper' reads structure on subsets of {PAPER_SUBSET_IMAGES} test images, "
            f"but {spec.dataset} has {len(everything)}; use protocol: leakfree"
        )
    subsets = evaluation_subsets(test_labels, pick.class_names, pick.generator)
    train = pick.at_most(torch.arange(len(train_labels)), train_labels, spec.train_images)
    return Splits(
        train,
        everything,
        torch.cat(subsets),
        everything,
        held_out_from_test=True,
        num_given=len(train_labels),
        probe_subsets=subsets,
    )


def _refuse_unfilled_class(spec: RunSpec, labels: Tensor, class_names: Sequence[str]) -> None:
    probe, val = (count // len(class_names) for count in (spec.probe_images, spec.val_images))
    for label, name in enumerate(class_names):
        available = int((labels == label).sum())
        if available < probe + val + 1:
            raise DataError(
                f"the class {name!r} of {spec.dataset} has {available} training images, but "
                f"{probe} for the probe set, {val} for validation and 1 to train on are needed; "
                "lower probe_images or val_images, or set balanced: false to draw them without "
                "regard to class"
            )


def _refuse_too_few_groups(
    spec: RunSpec, train: Tensor, val: Tensor, probe: Tensor, groups: Tensor
) -> None:
    sides = {"validation": (val, spec.val_images), "the probe set": (probe, spec.probe_images)}
    for side, (images, wanted) in sides.items():
        if len(images) < wanted or not len(train):
            raise DataError(
                f"{spec.dataset} has {len(torch.unique(groups))} groups, too few for {wanted} "
                f"images of groups of its own for {side} and some to train on; lower val_images "
                "or probe_images"
            )


def _refuse_untrained_classes(
    train: ImageSet, train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str]
) -> None:
    """Raises `DataError` where test images are of classes that nothing is trained on."""
    trained, tested = set(train_labels.tolist()), set(test_labels.tolist())
    if untrained := sorted(tested - trained):
        shown = ", ".join(repr(class_names[label]) for label in untrained[:3])
        unused = [repr(class_names[label]) for label in sorted(trained - tested)[:3]]
        raise DataError(
            f"{len(untrained)} of the {len(tested)} classes of {train.name}'s test images have no "
            f"training images: {shown}{', …' if len(untrained) > 3 else ''}; leave their test "
            "images out"
            + (f", or spell them as in training ({', '.join(unused)}, …)" if unused else "")
        )


def _refuse_shared_group(train: ImageSet, test: ImageSet) -> None:
    if not isinstance(train, EncodedSet) or not isinstance(test, EncodedSet):
        return
    shared = sorted(set(train.groups or ()) & set(test.groups or ()))
    if shared:
        raise DataError(
            f"{len(shared)} groups of {train.name} are in both the {train.split} and the "
            f"{test.split} split, such as {shared[0]!r}; a test on them would not be one of new "
            "groups"
        )


# ---------------------------------------------------------------- drawing


def _balanced(pool: Tensor, labels: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` of the pool, as evenly over classes as they fill, in index order.

    Every class gives its n-th image before any gives its (n+1)-th; which images of a class,
    and which classes give the odd ones, is random.
    """
    if count >= len(pool):
        return pool
    shuffled = torch.randperm(len(pool), generator=generator)
    shuffled_labels = labels[shuffled]
    by_class = torch.argsort(shuffled_labels, stable=True)
    counts = torch.bincount(shuffled_labels)
    starts = (counts.cumsum(0) - counts)[shuffled_labels[by_class]]
    rank_in_class = torch.empty(len(pool), dtype=torch.int64)
    rank_in_class[by_class] = torch.arange(len(pool)) - starts
    first = torch.argsort(rank_in_class, stable=True)[:count]
    return pool[shuffled[first]].sort().values


def _a_share(
    labels: Tensor, groups: Tensor | None, share: float, generator: Generator
) -> Int64[Tensor, " image"]:
    """A share of every class, at least one image; or whole groups until they are that share."""
    if groups is not None:
        order = torch.randperm(int(groups.max()) + 1, generator=generator)
        sizes = torch.bincount(groups)[order].cumsum(0)
        num_taken = 1 + int((sizes < share * len(labels)).sum())
        return torch.isin(groups, order[:num_taken]).nonzero().flatten()
    chosen = []
    for label in torch.unique(labels):
        of_class = (labels == label).nonzero().flatten()
        order = torch.randperm(len(of_class), generator=generator)
        chosen.append(of_class[order[: max(1, round(share * len(of_class)))]])
    return torch.cat(chosen).sort().values


def _numbered(groups: Sequence[str] | None) -> Int64[Tensor, " image"] | None:
    if groups is None:
        return None
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    return torch.tensor([numbers[group] for group in groups])


def _without(pool: Tensor, taken: Tensor) -> Tensor:
    return pool[~torch.isin(pool, taken)]


def _hash(indices: Tensor) -> str:
    return hashlib.blake2b(indices.numpy().tobytes(), digest_size=6).hexdigest()
