"""Tensors on disk: safetensors files with a digest, whole and undamaged or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from driftscope.files import special_kind, whole_file

_DIGEST = "digest"


class DamagedFileError(Exception):
    """A tensor file that is not what was written; the message says how."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and texts whole or not at all, durably; the former file stays on failure.

    Raises:
        OSError: it cannot be written, such as on a full disk, or its folder is not there.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as partial:
        try:
            save_file(contiguous, partial, {**metadata, _DIGEST: _digest(contiguous, metadata)})
        except SafetensorError as error:  # its way to report a full disk
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and texts that `write_tensors` wrote.

    Raises:
        DamagedFileError: the file cannot be read, or its content is not what was written.
    """
    if kind := special_kind(path):
        raise DamagedFileError(f"it is {kind} and not a file")  # a pipe would be waited for
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFileError(" ".join(str(error).split())) from None
    if metadata.pop(_DIGEST, None) != _digest(tensors, metadata):
        raise DamagedFileError("its digest is wrong")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(metadata):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
