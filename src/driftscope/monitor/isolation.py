"""A stretch of code inside a training that leaves no trace in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from driftscope.backbones.capture import uncompiled


@contextmanager
def isolated_from_training(device: torch.device) -> Iterator[None]:
    """Restores every random state (Python, NumPy, CPU, CUDA); no gradients; autocast off.

    The numbers read inside then do not depend on where in the training they are read. Submodules'
    modes and hooks are restored by those who change them (`models.evaluating`, `capture_cls`).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    is_cuda_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if is_cuda_used else ()
    try:
        with (
            torch.random.fork_rng(devices=list(devices)),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            uncompiled(),  # images of another shape would make the training's graphs anew
        ):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
