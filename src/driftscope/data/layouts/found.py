"""What one look at a place found: everything after reads this, and nothing looks again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope.data.address import (
    EVERYWHERE,
    WHOLE,
    Address,
    choose_split,
    fitting_splits,
    split_kind,
)
from driftscope.data.encoded import EncodedSet
from driftscope.data.names import NamesFile, benchmark_words, read_names, read_templates
from driftscope.data.procedural import ProceduralSet
from driftscope.data.prompts import plain_words
from driftscope.errors import DataError, told_as
from driftscope.suites import member_of

Opened = EncodedSet | ProceduralSet


@dataclass(frozen=True)
class Found:
    """A place, recognised.

    Attributes:
        address: what the user named.
        layout: in a word, such as `class folders`.
        splits: each split's name, with what the layout's `open_split` needs of it.
        open_split: opens one of them.
        options: the address options that mean something in this layout, besides those everywhere.
        passed_over: what lies there and is not read.
        doubts: what may make a number of it mean something else.
        folder: where names and templates may lie beside the images; None for none.
    """

    address: Address
    layout: str
    splits: Mapping[str, Any]
    open_split: Callable[[Found, str], Opened]
    options: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    folder: Path | None = None

    def open(self, asked: str) -> Opened:
        """The split that is asked for, as far as it can be read.

        Raises:
            DataError: no such split, or what the layout says of it.
        """
        return self._opened(choose_split(asked, self.splits, self.address))

    def open_labelled(self, asked: str) -> Opened:
        """As `open`; where that split hides its labels, the next that may stand for it."""
        first = self.open(asked)
        if isinstance(first, ProceduralSet):
            return first
        if first.labels is not None:
            first = first.by_file()
            is_meant = first.split in (asked, WHOLE) or split_kind(first.split) == asked
            if is_meant or "split" in self.address.options:
                return first
            said = f"it has no split {asked}, so {first.split} is read"
            return replace(first, notes=(*first.notes, said))
        for name in fitting_splits(asked, self.splits, self.address):
            if name != first.split and (other := self._opened(name)).labels is not None:
                said = f"the split {first.split} has no labels, so {name} is scored on"
                assert isinstance(other, EncodedSet)
                return replace(other, notes=(*other.notes, said))
        return first

    def skipping_bad_images(self) -> Found:
        """The same, of which images that cannot be read are left out and counted."""
        return replace(self, address=self.address.with_defaults({"bad": "skip"}))

    def _opened(self, split: str) -> Opened:
        with told_as(DataError, f"cannot read {self.address.place}"):
            images = self.open_split(self, split)
        if isinstance(images, ProceduralSet):
            return images
        images = replace(
            images,
            notes=(*images.notes, *self.passed_over),
            doubts=(*images.doubts, *self.doubts),
        )
        images = self._with_names(images).with_its_white()
        return images.only_readable() if "bad" in self.address.options else images

    def _with_names(self, images: EncodedSet) -> EncodedSet:
        """With the words and templates that lie beside the images or that the user names."""
        options = self.address.options
        names: NamesFile | None = None
        if (given := options.get("names")) is not None:
            names = read_names(Path(given))
        elif self.folder is not None:
            names = NamesFile.beside(self.folder)
        if images.class_names is not None:
            place = "/".join(Path(self.address.place).parts[-2:])
            known = benchmark_words(place, images.class_names)
            images = replace(images, words={**known, **images.words})
            if known:
                first, word = next(iter(known.items()))
                said = f"its class names are known, and told in words: {first} as {word}"
                images = replace(images, notes=(*images.notes, said))
        if names is not None and (classes := images.class_names) is not None:
            words = names.words_of(classes, must_fit=given is not None)
            words = plain_words(words) if given is None else words
            asked_for = frozenset(words if given is not None else ())
            images = replace(images, words={**images.words, **words}, given_words=asked_for)
            if not words and not {*classes} <= {*names.in_order, *names.by_class.values()}:
                said = f"{names.path.name} names none of its classes, and is passed over"
                images = replace(images, notes=(*images.notes, said))
        elif given is not None:
            raise DataError(f"{self.address.place} has no classes that ?names={given} could name")
        templates = read_templates(options.get("templates"), self.folder)
        if not templates and (member := member_of(self.address.place)):
            templates = member.templates
        return replace(images, templates=templates) if templates else images

    def checked(self) -> Found:
        """Itself.

        Raises:
            DataError: an option that means nothing here.
        """
        article = "an" if self.layout[0] in "aeiou" else "a"
        kind = f"read as {article} {self.layout}" if self.layout else "such a place"
        self.address.refuse_options(kind, but=(*self.options, *EVERYWHERE))
        return self
