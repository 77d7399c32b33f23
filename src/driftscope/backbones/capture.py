"""What is read during a forward pass: pooling attention rows and states, next to fast attention.

The model keeps its own attention kernel (SDPA). A function registered with transformers'
`AttentionInterface` stands in front of it, calls it unchanged and, beside it, computes the one
query row that is wanted: the CLS token's. Where a head of its own pools the patches by a learnt
probe, there is one row, the probe's, and that attention is asked for it. Full maps are computed
only on request, one head of one layer at a time, and are reduced before the layer returns.
Everything set is put back when the context ends, also if the forward raises.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import ImageTower
from driftscope.errors import CaptureError, NonFiniteError
from driftscope.signals import attention

ATTENTION_NAME = "driftscope_cls_row"

# What transformers ships, all of it the same function of query and key as eager attention. A row is
# computed from these, so it would be wrong beside anything else that a user has registered.
_SOFTMAX_ATTENTIONS = ("eager", "sdpa", "flash_attention", "flex_attention")

# How far a float32 softmax row may be from summing to 1.
_ROW_SUM_TOLERANCE = 1e-3


class _PerBlock:
    """One tensor a block of the latest forward, side by side in one allocation.

    Small results that outlive their layer, allocated one by one between the layers' large
    temporaries, would keep the allocator from reusing that space: with 24 layers and 577 tokens
    the process would grow by the temporaries of all layers.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._tensors: dict[int, Tensor] = {}
        self._memory: Tensor | None = None

    def keep(self, block: int, tensor: Tensor) -> None:
        """Keeps a block's result; the first block's goes into new memory."""
        if block == 0:
            # What a caller holds of the last forward must not be written over. Its other blocks
            # stay: gradient checkpointing runs single blocks again, from the last to the first.
            self._memory = None
        if tensor.requires_grad:  # A copy would do, but the tensor itself is in the graph anyway.
            self._tensors[block] = tensor
            return
        if self._memory is None or self._memory.shape[1:] != tensor.shape:
            self._memory = tensor.new_empty((self.num_blocks, *tensor.shape))
        self._tensors[block] = self._memory[block].copy_(tensor)

    def clear(self) -> None:
        self._tensors = {}
        self._memory = None

    def all(self, what: str) -> list[Tensor]:
        """Every block's tensor, from the first; CaptureError if one is missing."""
        if len(self._tensors) != self.num_blocks:
            raise CaptureError(
                f"Captured {len(self._tensors)} of {self.num_blocks} layers' {what}s: the model "
                "was not run, does not use transformers' attention interface, or maps were not "
                "asked for."
            )
        return [self._tensors[block] for block in range(self.num_blocks)]


class Captured:
    """What the latest forward of a captured model left behind; layers and blocks from the first.

    `num_prefix` tokens (CLS, registers) stand before the patches. Where a probe pools them,
    `is_pooled_by_probe`, its row is the only one.
    """

    def __init__(self, num_blocks: int, num_prefix: int, *, is_pooled_by_probe: bool) -> None:
        self.num_prefix = num_prefix
        self.is_pooled_by_probe = is_pooled_by_probe
        self._rows = _PerBlock(1 if is_pooled_by_probe else num_blocks)
        self._cls_states = _PerBlock(num_blocks)
        self._patch_entropies = _PerBlock(num_blocks)
        self._rollout_product: Tensor | None = None

    @property
    def rows(self) -> list[Float[Tensor, "image head patch"]]:
        """Each layer's CLS attention over the patches, or the probe's; float32, summing to 1.

        Raises:
            CaptureError: a layer gave no row, or rows with NaN or not summing to 1.
        """
        rows = self._rows.all("attention row")
        check_rows(rows)
        return rows

    @property
    def cls_states(self) -> list[Float[Tensor, "image dim"]]:
        """What stands for the image at the output of each block: the CLS token, or the family's.

        Raises:
            CaptureError: a block was not run.
        """
        return self._cls_states.all("CLS state")

    @property
    def patch_to_patch_entropy_bits(self) -> list[Float[Tensor, "image head"]]:
        """Each layer's patch-to-patch entropy, bits; with `maps=True` only.

        Raises:
            CaptureError: full maps were not asked for.
        """
        return self._patch_entropies.all("full attention map")

    @property
    def rollout(self) -> Float[Tensor, "image patch"]:
        """The CLS or probe row of the attention rollout, summing to 1; with `maps=True` only.

        Raises:
            CaptureError: full maps were not asked for.
        """
        self._patch_entropies.all("full attention map")
        if self._rollout_product is None:
            raise CaptureError("No attention rollout was captured; capture with maps=True.")
        if self.is_pooled_by_probe:
            of_probe = self.rows[0].mean(dim=1, keepdim=True)
            return (of_probe @ self._rollout_product)[:, 0]
        row = attention.rollout_row(self._rollout_product, self.num_prefix)
        if bool((row.sum(dim=-1) == 0).any()):
            raise CaptureError(
                "There is no attention rollout: for some image the CLS token looks at no patch in "
                "any layer."
            )
        return row

    def clear(self) -> None:
        """Forgets the latest forward, so that nothing of it can pass for the next one's."""
        self._rows.clear()
        self._cls_states.clear()
        self._patch_entropies.clear()
        self._rollout_product = None


@contextmanager
def capture_cls(
    module: nn.Module, *, maps: bool = False, differentiable: bool = False
) -> Iterator[Captured]:
    """Captures CLS attention rows and CLS states of every forward run inside the context.

    The model's output does not change by a bit. Train or eval mode, autocast and gradients are the
    caller's; rows are computed in float32 whatever the model computes in. Models compiled with
    torch.compile run uncompiled inside the context (a graph compiled without the capture would
    skip it).

    Args:
        module: one with an image tower of `FAMILIES` inside, such as a CLIPModel, a ViTModel, or
            one of them inside PEFT or a module of your own.
        maps: also reduce every layer's full attention map to its patch-to-patch entropy and to the
            attention rollout. Costs one image × token² buffer and a product of that size a layer.
        differentiable: keep rows and CLS states in the autograd graph, for a loss on them.

    Yields:
        What the latest forward left; reading it raises CaptureError if a layer is missing.

    Raises:
        CaptureError: no readable image tower; an adapter that is present but not in effect; maps
            asked for with differentiable; gradient checkpointing with differentiable; the model is
            being captured already.
    """
    tower = find_image_tower(module)
    check_adapters_in_effect(module)
    if differentiable and maps:
        raise CaptureError("Full maps cannot be captured differentiably; ask for one of the two.")
    if differentiable and any(getattr(b, "gradient_checkpointing", False) for b in tower.blocks):
        raise CaptureError(
            "Attention rows cannot be captured differentiably under gradient checkpointing, which "
            "recomputes them outside the capture; switch checkpointing off."
        )
    probe = tower.backbone.probe_attention(tower.module)
    captured = Captured(len(tower.blocks), tower.num_prefix, is_pooled_by_probe=probe is not None)
    hooks = [
        block.register_forward_hook(_keep_cls_state(tower, captured, index, differentiable))
        for index, block in enumerate(tower.blocks)
    ]
    if probe is not None:
        hooks += [
            probe.register_forward_pre_hook(_with_head_weights, with_kwargs=True),
            probe.register_forward_hook(_keep_probe_row(captured, differentiable)),
        ]
    try:
        with (
            _attention_replaced(tower, _Observer(tower, captured, maps, differentiable)),
            uncompiled(),
        ):
            yield captured
    finally:
        for hook in hooks:
            hook.remove()


def check_rows(rows: Sequence[Float[Tensor, "image head patch"]]) -> None:
    """Raises CaptureError if a layer's attention rows hold NaN or do not sum to 1."""
    # One number a layer, fetched at once: a GPU is waited for once and not once a layer.
    misses = torch.stack([(layer.detach().sum(dim=-1) - 1.0).abs().max() for layer in rows])
    for layer, miss in enumerate(misses.tolist(), start=1):
        if not math.isfinite(miss):
            raise NonFiniteError(
                f"Layer {layer} gives attention rows with NaN or infinite values: the model has "
                "diverged or overflows its number format, and its signals would mean nothing."
            )
        if miss > _ROW_SUM_TOLERANCE:
            raise CaptureError(
                f"Layer {layer} gives attention rows that miss a sum of 1 by {miss:.3g}: its "
                "attention is not a softmax over tokens."
            )


def check_adapters_in_effect(module: nn.Module) -> None:
    """Raises CaptureError if PEFT adapters are present but do not act in the forward pass.

    Such a model silently gives the pretrained signals. Merged adapters act; disabled ones, and
    active names that no layer knows, do not. Without peft imported there can be no adapter.
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return
    layers = [layer for layer in module.modules() if isinstance(layer, tuners.BaseTunerLayer)]
    if not layers:
        return
    if any(layer.disable_adapters for layer in layers):
        raise CaptureError(
            "The model's adapters are present but disabled, so its signals would be the "
            "pretrained model's; enable them (leave disable_adapter()), or read the base itself."
        )
    if not any(_acts(layer) for layer in layers):
        active = sorted({name for layer in layers for name in layer.active_adapters})
        present = sorted({name for layer in layers for name in layer._get_available_adapters()})
        raise CaptureError(
            f"The model's adapters {present} are present but inactive (active: {active}), so its "
            "signals would be the pretrained model's; call set_adapter with one of them."
        )
    for layer in layers:
        if layer.merged and not set(layer.active_adapters) <= set(layer.merged_adapters):
            raise CaptureError(
                f"Adapters {sorted(layer.merged_adapters)} are merged while "
                f"{sorted(layer.active_adapters)} are active, so the active ones have no effect; "
                "unmerge first, or make the merged ones active."
            )


def _acts(layer: Any) -> bool:
    """Whether a PEFT layer's forward differs from its base's: merged, or an active adapter."""
    active = set(layer.active_adapters)
    return bool(layer.merged or active & set(layer._get_available_adapters()))


# ------------------------------------------------------------------ the attention function


@dataclass
class _Observer:
    """Stands in front of one tower's attention function and keeps what is asked for."""

    tower: ImageTower
    captured: Captured
    maps: bool
    differentiable: bool

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
            self._observe(
                layer, query, key, query.shape[-1] ** -0.5 if scaling is None else scaling
            )
        return self._base(module, query, key, value, attention_mask, scaling=scaling, **kwargs)

    def _observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        keep_graph = torch.is_grad_enabled() and self.differentiable
        with torch.set_grad_enabled(keep_graph), _autocast_off(query.device):
            if not self.captured.is_pooled_by_probe:
                row = self.tower.backbone.pooled_row(query, key, scaling, self.tower.num_prefix)
                self.captured._rows.keep(layer, row)
            if self.maps:
                head_mean, entropies = attention.head_mean_and_patch_entropy(
                    query, key, scaling, self.tower.num_prefix
                )
                self.captured._patch_entropies.keep(layer, entropies)
                # A product left over from an earlier forward must not enter this one's.
                before = None if layer == 0 else self.captured._rollout_product
                self.captured._rollout_product = attention.rollout_step(before, head_mean)


def _keep_cls_state(
    tower: ImageTower, captured: Captured, index: int, differentiable: bool
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tokens: Tensor = output[0] if isinstance(output, tuple) else output
        cls_state = tower.backbone.block_state(tokens)
        captured._cls_states.keep(index, cls_state if differentiable else cls_state.detach())

    return hook


def _with_head_weights(
    _probe: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Asks an attention for its weights head by head, which leaves its output as it is."""
    # query, key, value, key_padding_mask come before need_weights
    return inputs[:4], {**keywords, "need_weights": True, "average_attn_weights": False}


def _keep_probe_row(
    captured: Captured, differentiable: bool
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_probe: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        row = output[1][:, :, 0].float()
        if output[1].dtype != torch.float32:  # half precision rounds the sum away from 1
            row = row / row.sum(dim=-1, keepdim=True)
        captured._rows.keep(0, row if differentiable else row.detach())

    return hook


# Attention functions are registered by name for the whole process; which capture a call belongs to
# is decided by the config object the attention module was built with.
_OBSERVERS: dict[int, _Observer] = {}


def _dispatch(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return _OBSERVERS[id(module.config)](module, *args, **kwargs)


@contextmanager
def _attention_replaced(tower: ImageTower, observer: _Observer) -> Iterator[None]:
    """Puts the observer in front of the tower's attention function, and takes it away again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if id(tower.config) in _OBSERVERS:
        raise CaptureError(
            "This model, or one sharing its config object, is being captured already; leave that "
            "capture first."
        )
    AttentionInterface.register(ATTENTION_NAME, _dispatch)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    previous = tower.config._attn_implementation
    _OBSERVERS[id(tower.config)] = observer
    try:
        # The config's own setter: set_attn_implementation on the model would touch other towers.
        tower.config._attn_implementation = ATTENTION_NAME
        yield
    finally:
        tower.config._attn_implementation = previous
        del _OBSERVERS[id(tower.config)]


def _attention_function(tower: ImageTower) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that the tower's attention runs on now."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    module = sys.modules[type(tower.module).__module__]
    eager: Any = getattr(module, "eager_attention_forward", None)
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


def _autocast_off(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device_type=device.type, enabled=False)


def uncompiled() -> AbstractContextManager[Any]:
    """Runs compiled modules as they are written; nothing to do where nothing was compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
