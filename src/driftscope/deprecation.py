"""Old names go on working for one version and say so; a wrong keyword is told the nearest."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, TypeVar

from driftscope.errors import ConfigError, did_you_mean

C = TypeVar("C", bound=Callable[..., Any])

_said: set[str] = set()


class KeywordError(ConfigError, TypeError):
    """A function is called with a keyword that it does not have; also what Python raises then."""


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


def moved(module: str, **homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of an old module: `moved(__name__, name="module that has it now")`."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = homes[name]
        renamed(f"{module}.{name}", f"{home}.{name}")
        return getattr(import_module(home), name)

    return find


def keywords(**new_names: str) -> Callable[[C], C]:
    """Lets a function or class take old keywords for new ones: `@keywords(old="new")`.

    A keyword that it does not have at all is answered with the nearest one that it has.

    Raises:
        KeywordError: (when it is called) there is no such keyword, or both the old and the new one
            are given.
    """

    def decorate(callee: C) -> C:
        if isinstance(callee, type):
            callee.__init__ = decorate(callee.__init__)  # type: ignore[misc]
            return callee
        name = callee.__qualname__.removesuffix(".__init__")
        shape = signature(callee)
        known = [one for one in shape.parameters if one != "self"]
        needed = [n for n in known if shape.parameters[n].default is Parameter.empty]
        shown = ", ".join(needed or known)

        @functools.wraps(callee)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise KeywordError(f"{old} is the old name of {new}; give {new} alone")
                renamed(f"{name}({old}=…)", f"{name}({new}=…)")
                kwargs[new] = kwargs.pop(old)
            for given in kwargs:
                if given not in known:
                    raise KeywordError(f"{name} takes no {given!r}: {did_you_mean(given, known)}")
            try:
                shape.bind(*args, **kwargs)
            except TypeError as error:
                raise KeywordError(
                    f"{name}: {error}; it {'needs' if needed else 'takes'} {shown}"
                ) from None
            return callee(*args, **kwargs)

        wrapped.renamed_keywords = new_names  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return decorate


def _frames_of_driftscope() -> int:
    """How many of the innermost frames, this one left out, are this package's own."""
    depth, frame = 0, sys._getframe(1)
    while frame.f_globals.get("__name__", "").split(".")[0] == "driftscope" and frame.f_back:
        depth, frame = depth + 1, frame.f_back
    return depth
