"""The queries and keys of attention that a model of transformers computes.

A function registered with transformers' `AttentionInterface` stands in front of the model's own
attention, shows what goes into it and calls it unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from driftscope.backbones.base import ImageTower
from driftscope.errors import CaptureError

ATTENTION_NAME = "driftscope_cls_row"

# What transformers ships, all of it the same function of query and key as eager attention. A row is
# computed from these, so it would be wrong beside anything else that a user has registered.
_SOFTMAX_ATTENTIONS = ("eager", "sdpa", "flash_attention", "flex_attention")


@dataclass
class _InFront:
    """Stands in front of one tower's attention function."""

    tower: ImageTower
    see: Callable[[int, Tensor, Tensor, float], None]

    def __post_init__(self) -> None:
        # Whichever part of a block calls the attention function does so for that block.
        self._layer_of = {
            id(module): layer
            for layer, block in enumerate(self.tower.blocks)
            for module in block.modules()
        }
        self._base = _attention_function(self.tower)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        layer = self._layer_of.get(id(module))
        # A model that shares this tower's config object but is not captured passes through.
        if layer is not None:
            if attention_mask is not None:
                raise CaptureError(
                    "The image tower attends under a mask, which the captured rows would not "
                    "show; run it on whole images."
                )
            self.see(layer, query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
        return self._base(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


# Attention functions are registered by name for the whole process; which capture a call belongs to
# is decided by the config object the attention module was built with.
_IN_FRONT: dict[int, _InFront] = {}


def _dispatch(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return _IN_FRONT[id(module.config)](module, *args, **kwargs)


@contextmanager
def attention_replaced(
    tower: ImageTower, see: Callable[[int, Tensor, Tensor, float], None]
) -> Iterator[None]:
    """Shows layer, query, key and scaling of the tower's attention, and takes itself away again.

    Raises:
        CaptureError: the tower is shown already, or its attention is not known to be a softmax.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if id(tower.config) in _IN_FRONT:
        raise CaptureError(
            "This model, or one sharing its config object, is being captured already; leave that "
            "capture first."
        )
    in_front = _InFront(tower, see)
    AttentionInterface.register(ATTENTION_NAME, _dispatch)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    previous = tower.config._attn_implementation
    _IN_FRONT[id(tower.config)] = in_front
    try:
        # The config's own setter: set_attn_implementation on the model would touch other towers.
        tower.config._attn_implementation = ATTENTION_NAME
        yield
    finally:
        tower.config._attn_implementation = previous
        del _IN_FRONT[id(tower.config)]


def _attention_function(tower: ImageTower) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that the tower's attention runs on now."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    defined_in = (sys.modules.get(base.__module__) for base in type(tower.module).__mro__)
    own = (getattr(module, "eager_attention_forward", None) for module in defined_in)
    eager: Any = next((one for one in own if one is not None), None)
    if eager is None:
        raise CaptureError(
            f"{type(tower.module).__name__} does not use transformers' attention interface, so no "
            "attention row can be captured; use transformers 5 or newer."
        )
    name = tower.config._attn_implementation or "eager"
    if not name.startswith((*_SOFTMAX_ATTENTIONS, ATTENTION_NAME)):
        raise CaptureError(
            f"The attention function {name!r} is not known to be a softmax over scaled products of "
            "query and key, so its rows cannot be told; set attn_implementation to 'sdpa'."
        )
    function: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        name, eager
    )
    return function
