"""Reading a module that may be in training, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, outputs by name; all is put back as it was."""
    modes = [(child, child.training) for child in module.modules()]
    configs: list[Any] = [getattr(child, "config", None) for child in module.modules()]
    of_tuples = [one for one in configs if getattr(one, "return_dict", True) is False]
    for child, _ in modes:
        child.training = False  # eval() may do more: loralib's layers write to their weights
    for config in of_tuples:
        config.return_dict = True
    try:
        with torch.no_grad():
            yield
    finally:
        for child, mode in modes:
            child.training = mode
        for config in of_tuples:
            config.return_dict = False
