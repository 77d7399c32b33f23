"""The weights in a checkpoint file, whatever trainer wrote it and whatever held the model."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from driftscope.errors import ModelError, one_line
from driftscope.sources.plausible import refuse_packed_weights

_ENTRIES = ("state_dict", "model_state_dict", "model")
"""Under which name trainers put the weights beside their own state."""
_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "clip.")
"""What DistributedDataParallel, torch.compile, FSDP and holders of a model put before names."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; nothing but tensors is read, so no code in it runs.

    Raises:
        ModelError: there is no such file, or it holds no tensors that can be read safely.
    """
    if not path.is_file():
        raise ModelError(f"There is no checkpoint file {path}.")
    refuse_packed_weights(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return without_prefixes(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch and safetensors raise several kinds for files that are not what they seem
    except Exception as error:
        raise ModelError(
            f"{path.name} cannot be read as tensors only "
            f"({why_unreadable(error)}); save its state dict as .safetensors and give that."
        ) from error
    if isinstance(content, dict):
        content = next((content[name] for name in _ENTRIES if name in content), content)
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ModelError(f"{path.name} holds no state dict of tensors; save one and give that.")
    return without_prefixes(content)


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file of weights; torch's own advice would be to run its code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other objects than tensors, or is no file of weights but a git-lfs pointer"
    return one_line(error) or type(error).__name__


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names that the model itself has for them."""
    names = {name: name for name in state}
    while names and (prefix := _shared_prefix(names.values())):
        names = {name: shown.removeprefix(prefix) for name, shown in names.items()}
    return {shown: state[name] for name, shown in names.items()}


def _shared_prefix(names: Iterable[str]) -> str | None:
    shown = list(names)
    return next((one for one in _PREFIXES if all(name.startswith(one) for name in shown)), None)
