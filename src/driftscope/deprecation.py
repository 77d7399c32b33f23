"""Old names go on working for one version; each says once what it is now called."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=Callable[..., Any])

_said: set[str] = set()


class RenamedWarning(FutureWarning):
    """An old name is used. A `FutureWarning`, because Python shows those by default."""


def renamed(old: str, new: str) -> None:
    """Warns, once a process for each old name, that `old` is now called `new`.

    The warning points at the caller's line.
    """
    if old in _said:
        return
    _said.add(old)
    sentence = f"{old} is now {new}; {old} goes on working in this version"
    warnings.warn(sentence, RenamedWarning, stacklevel=_frames_of_driftscope() + 1)


def renamed_keywords(**new_names: str) -> Callable[[C], C]:
    """Lets a function take old keywords for new ones: `@renamed_keywords(old="new")`.

    Raises:
        TypeError: (when the function is called) both the old keyword and the new one are given.
    """

    def decorate(function: C) -> C:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{old} is the old name of {new}; give {new} alone")
                renamed(f"{name}({old}=…)", f"{name}({new}=…)")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        wrapped.renamed_keywords = new_names  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return decorate


def _frames_of_driftscope() -> int:
    """How many of the innermost frames, this one left out, are this package's own."""
    depth, frame = 0, sys._getframe(1)
    while frame.f_globals.get("__name__", "").split(".")[0] == "driftscope" and frame.f_back:
        depth, frame = depth + 1, frame.f_back
    return depth
