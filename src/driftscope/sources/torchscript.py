"""The weights in a TorchScript archive, such as OpenAI's, without running it.

`torch.jit.load` runs what the archive's classes say is to be done when they are read, and an
archive can say that a file is to be written. So the archive is read as what it is: a zip with the
tensors' bytes, a pickle that says where they belong, and the classes' source, which names the
parameters. Nothing that the pickle names is looked up: a class of the archive becomes a stand-in
that keeps its attributes.
"""

from __future__ import annotations

import ast
import io
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from driftscope.errors import shown

_CLASS = re.compile(
    r"^class (?P<name>\w+)\(Module\):\n"
    r"  __parameters__ = (?P<parameters>\[.*\])\n"
    r"  __buffers__ = (?P<buffers>\[.*\])\n",
    re.MULTILINE,
)
_STORAGES = {
    ("torch", f"{name}Storage"): dtype
    for name, dtype in {
        "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Double": torch.float64, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
        "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    }.items()
}  # fmt: skip
_MOST_MODULES = 100_000
"""How many modules a model can have; one that is named twice is two."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def weights_of_archive(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers in a TorchScript archive, by their names in its state_dict.

    Raises:
        Exception: of several kinds, where it is damaged or holds anything but modules of tensors.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next(one for one in names if one.endswith("data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != _OUR_ORDER:
            raise ValueError("it was written by a machine of another order of bytes")
        declared: dict[str, list[str]] = {}
        for name in names:
            if name.startswith(f"{root}code/") and name.endswith(".py"):
                module = name.removeprefix(f"{root}code/").removesuffix(".py").replace("/", ".")
                declared |= _declared_in(module, archive.read(name).decode())
        held = _Reader(archive, root).load()
    if not isinstance(held, _Module):
        raise ValueError("it holds no module")
    return dict(_weights(held, declared, "", [_MOST_MODULES]))


_OUR_ORDER = sys.byteorder.encode()


def _declared_in(module: str, source: str) -> dict[str, list[str]]:
    """The names of each class's parameters and buffers, by the class's name in the pickle."""
    return {
        f"{module}.{one['name']}": [
            *ast.literal_eval(one["parameters"]),
            *ast.literal_eval(one["buffers"]),
        ]
        for one in _CLASS.finditer(source)
    }


class _Module:
    """Stands for an object of a class of the archive."""

    name = ""

    def __init__(self) -> None:
        self.attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"its class {shown(self.name)} has its own way of being read")
        self.attributes = state


def _weights(
    module: _Module, declared: Mapping[str, list[str]], prefix: str, left: list[int]
) -> Iterator[tuple[str, Tensor]]:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it has more than {_MOST_MODULES:,} modules")
    for name in declared.get(module.name, ()):
        tensor = module.attributes.get(name)
        if isinstance(tensor, Tensor):
            yield prefix + name, tensor
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _weights(value, declared, f"{prefix}{name}.", left)


class _Reader(pickle.Unpickler):
    """Knows tensors, lists and the archive's own classes, and no other names."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if module.startswith("__torch__"):
            return type("Module", (_Module,), {"name": f"{module}.{name}"})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch.jit._pickle":
            return _first
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in _STORAGES:
            return _STORAGES[module, name]
        raise pickle.UnpicklingError(f"it names {shown(f'{module}.{name}')}")

    def persistent_load(self, named: Any) -> Tensor:
        """The flat tensor that a record of bytes holds."""
        _, dtype, key, *_ = named
        if (key, dtype) not in self._flat:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0).to(dtype)
            self._flat[key, dtype] = flat
        return self._flat[key, dtype]


def _tensor(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return flat.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    """Stands for what only tells a list's or a mapping's type."""
    return value
