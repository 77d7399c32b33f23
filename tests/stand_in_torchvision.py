"""torchvision's names without torchvision, which does not load beside the CPU build of torch.

They are enough for open_clip and timm to be imported and to build models; no transform works.
"""

from __future__ import annotations

import enum
import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ROOT = "torchvision"


class InterpolationMode(enum.Enum):
    """The one name whose values are asked for at import."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _ROOT:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        def stand_in(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__init__": lambda self, *args, **named: None})

        module.__dict__.update(
            __version__="0.0.0", InterpolationMode=InterpolationMode, __getattr__=stand_in
        )


def install() -> None:
    """Answers every import of torchvision from here on, in this process."""
    # asks for torchvision when first imported, and must not find it
    importlib.import_module("transformers.image_utils")
    sys.meta_path.append(_Finder())
