"""What a form of source is: what it recognises, and what it can ask for while it loads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError


class LoadOther(Protocol):
    """Loads another source than the one that was named."""

    def __call__(self, name: str, like: VisionLanguageModel | None = None) -> VisionLanguageModel:
        """The model of that name, with `like` for what it lacks."""


@dataclass(frozen=True)
class Beside:
    """What a form can ask for while it loads.

    Attributes:
        load: loads what it stands on, by its own name.
        like: the model that it is compared with, which has what many forms lack: a configuration,
            a text tower, a base.
    """

    load: LoadOther
    like: VisionLanguageModel | None

    def base(self, places: Sequence[str], name: str) -> tuple[VisionLanguageModel, tuple[str, ...]]:
        """The first of these places that loads, or a copy of the model that it is compared with.

        Args:
            places: what the form itself names as its base, and where else that may be.
            name: of the form, for what is to be said.

        Raises:
            ModelError: nothing can be loaded, and nothing can stand in.
        """
        reason = f"{name} names no base"
        for place in places:
            try:
                return self.load(place), ()
            except ModelError as error:
                reason = f"the base of {name}, {places[0]}, cannot be loaded"
                why = f": {error}" if place == places[0] else ""
        if self.like is None:
            raise ModelError(f"{reason}{why if places else ''}; give it as ds.load(…, like=BASE)")
        if self.like.is_adapter:
            raise ModelError(
                f"{reason}, and {self.like.source} is an adapter, too, and cannot stand in for it"
            )
        copied = replace(self.like, module=copy.deepcopy(self.like.module))
        return copied, (f"{reason}, so it is read on {self.like.source}",)


class Form(Protocol):
    """One form of source: a file of `sources/` and a row of `SOURCES`."""

    def recognises(self, name: str) -> bool:
        """Whether what the user named is of this form."""

    def load(self, name: str, beside: Beside) -> VisionLanguageModel:
        """The model of that name."""
