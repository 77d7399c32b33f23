"""Weights that a training keeps in parts, put together as torch does in the forward pass.

Weight norm keeps a length and a direction, spectral norm a matrix and two singular vectors, pruning
a matrix and a mask; each in the way of `torch.nn.utils`, or of `parametrizations` there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_IN_TURN = r"(?P<place>.*\.)parametrizations\.(?P<name>\w+)\."
_BESIDE = r"(?P<place>.*\.)(?P<name>\w+)_"


def put_together(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name, with a weight in the place of the parts that it is computed of.

    All else stays as it is, such as other parametrizations.
    """
    found = dict(tensors)
    for pattern, others, whole in _FORMS:
        for key in list(found):
            told = re.fullmatch(pattern, key)
            if told is None or key not in found:
                continue
            parts = [key, *(one.format(**told.groupdict()) for one in others)]
            held = [found[one] for one in parts if one in found]
            weight = whole(*held) if len(held) == len(parts) else None
            if weight is not None:
                found = {name: one for name, one in found.items() if name not in parts}
                found[told["place"] + told["name"]] = weight
    return found


def _of_weight_norm(length: Tensor, direction: Tensor) -> Tensor | None:
    """None where these are no length and direction."""
    if length.ndim == 0:
        scaled: Tensor = direction * (length / torch.linalg.vector_norm(direction))
        return scaled
    long = [dim for dim, size in enumerate(length.shape) if size != 1] or [0]
    if length.ndim != direction.ndim or len(long) > 1:
        return None
    if length.shape[long[0]] != direction.shape[long[0]]:
        return None
    weight: Tensor = torch._weight_norm(direction, length, long[0])
    return weight


def _of_spectral_norm(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    """None where these are no matrix and singular vectors of it."""
    flat = matrix.flatten(1) if matrix.ndim > 1 else matrix
    if flat.shape != (*left.shape, *right.shape):
        return None
    return matrix / torch.dot(left, flat.mv(right))


def _of_pruning(matrix: Tensor, mask: Tensor) -> Tensor | None:
    """None where this is no matrix and what is kept of it."""
    return matrix * mask if matrix.shape == mask.shape else None


_FORMS: tuple[tuple[str, tuple[str, ...], Callable[..., Tensor | None]], ...] = (
    (
        _IN_TURN + "original",
        ("{place}parametrizations.{name}.0._u", "{place}parametrizations.{name}.0._v"),
        _of_spectral_norm,
    ),
    (
        _IN_TURN + "original0",
        ("{place}parametrizations.{name}.original1",),
        _of_weight_norm,
    ),
    (_BESIDE + "orig", ("{place}{name}_u", "{place}{name}_v"), _of_spectral_norm),
    (_BESIDE + "orig", ("{place}{name}_mask",), _of_pruning),
    (_BESIDE + "g", ("{place}{name}_v",), _of_weight_norm),
)
"""How one part is called, how the others are, and what makes the weight of them."""
