"""What is read during a forward pass: pooling attention rows and states, next to fast attention.

The model keeps its own attention kernel (SDPA). Its queries and keys are shown to an observer
(`transformers_attention`, `torch_attention`), which, beside it, computes the one query row that is
wanted: the CLS token's. Where a head of its own pools the patches by a learnt probe, there is one
row, the probe's. Full maps are computed only on request, one head of one layer at a time, and are
reduced before the layer returns. Everything set is put back when the context ends, also if the
forward raises.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones import encoder_parts, find_image_tower
from driftscope.backbones.base import ImageTower
from driftscope.backbones.torch_attention import Attended, attention_seen
from driftscope.backbones.transformers_attention import attention_replaced
from driftscope.errors import CaptureError, NonFiniteError
from driftscope.signals import attention

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
    `is_pooled_by_probe`, its row is the only one. `no_rows_because` says why there are none at all.
    """

    def __init__(self, tower: ImageTower, *, is_pooled_by_probe: bool) -> None:
        num_blocks = len(tower.blocks)
        self.num_prefix = tower.num_prefix
        self.is_pooled_by_probe = is_pooled_by_probe
        self.no_rows_because = tower.backbone.no_attention_because
        self._rollout_row = tower.backbone.rollout_row
        self._whole_probe_row: Tensor | None = None
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
        if self.no_rows_because:
            raise CaptureError(f"There are no attention rows: {self.no_rows_because}.")
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
        if self._whole_probe_row is not None:
            of_probe = self._whole_probe_row.mean(dim=1, keepdim=True)
            row = attention.rollout_row(of_probe @ self._rollout_product, self.num_prefix)
        else:
            row = self._rollout_row(self._rollout_product, self.num_prefix)
        if bool((row.sum(dim=-1) == 0).any()):
            raise CaptureError(
                "There is no attention rollout: for some image what pools it looks at no patch in "
                "any layer."
            )
        return row

    def clear(self) -> None:
        """Forgets the latest forward, so that nothing of it can pass for the next one's."""
        self._rows.clear()
        self._whole_probe_row = None
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
            one of them inside PEFT or a module of your own, or a `LibraryModel`.
        maps: also reduce every layer's full attention map to its patch-to-patch entropy and to the
            attention rollout. Costs one image × token² buffer and a product of that size a layer.
        differentiable: keep rows and CLS states in the autograd graph, for a loss on them.

    Yields:
        What the latest forward left; reading it raises CaptureError if a layer is missing.

    Raises:
        CaptureError: no readable image tower; an adapter that is present but not in effect; maps
            asked for with differentiable; gradient checkpointing with differentiable; attention
            asked for with differentiable of a model that shows none; the model is being captured
            already.
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
    if differentiable and tower.backbone.no_attention_because:
        raise CaptureError(
            "What is asked of the model's attention cannot be: "
            f"{tower.backbone.no_attention_because}."
        )
    probe = tower.backbone.probe_attention(tower.module)
    captured = Captured(tower, is_pooled_by_probe=probe is not None)
    observer = _Observer(tower, captured, maps, differentiable)
    hooks = [
        block.register_forward_hook(_keep_cls_state(tower, captured, index, differentiable))
        for index, block in enumerate(tower.blocks)
    ]
    if isinstance(probe, nn.MultiheadAttention):
        hooks += [
            probe.register_forward_pre_hook(_with_head_weights, with_kwargs=True),
            probe.register_forward_hook(_keep_probe_row(captured, differentiable)),
        ]
    try:
        with _attention_observed(observer, probe), uncompiled():
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
    """Raises CaptureError if PEFT adapters of the image encoder do not act in the forward pass.

    Such a model silently gives the pretrained signals. Merged adapters act; disabled ones, and
    active names that no layer knows, do not. Without peft imported there can be no adapter. Those
    of the text tower do not matter: no image goes through them.
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return
    layers = [one for one in _image_side(module) if isinstance(one, tuners.BaseTunerLayer)]
    if not layers:
        return
    if any(layer.disable_adapters for layer in layers):
        raise CaptureError(
            "The image encoder's adapters are present but disabled, so its signals would be the "
            "pretrained model's; enable them (leave disable_adapter()), or read the base itself."
        )
    if not any(_acts(layer) for layer in layers):
        active = sorted({name for layer in layers for name in layer.active_adapters})
        present = sorted({name for layer in layers for name in layer._get_available_adapters()})
        raise CaptureError(
            f"The image encoder's adapters {present} are present but inactive (active: {active}), "
            "so its signals would be the pretrained model's; call set_adapter with one of them."
        )
    for layer in layers:
        if layer.merged and not set(layer.active_adapters) <= set(layer.merged_adapters):
            raise CaptureError(
                f"Adapters {sorted(layer.merged_adapters)} are merged while "
                f"{sorted(layer.active_adapters)} are active, so the active ones have no effect; "
                "unmerge first, or make the merged ones active."
            )


def _image_side(module: nn.Module) -> Iterator[nn.Module]:
    """All modules that images go through."""
    try:
        parts = [*encoder_parts(module).values()]
    except CaptureError:  # open_clip's own, which is read as a copy without adapters
        parts = [getattr(module, "visual", module)]
    for part in parts:
        yield from part.modules()


def _acts(layer: Any) -> bool:
    """Whether a PEFT layer's forward differs from its base's: merged, or an active adapter."""
    active = set(layer.active_adapters)
    return bool(layer.merged or active & set(layer._get_available_adapters()))


# ------------------------------------------------------------------ what is kept of a forward


@dataclass
class _Observer:
    """Is shown the queries and keys of one tower's attention, and keeps what is asked for."""

    tower: ImageTower
    captured: Captured
    maps: bool
    differentiable: bool

    def see(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Those of a block."""
        with self._graph(query):
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

    def see_probe(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """Those of the attention whose query, a learnt probe, pools the tokens."""
        num_prefix = self.tower.backbone.probe_prefix
        with self._graph(query):
            logits = (key.float() * (query[:, :, :1].float() * scaling)).sum(dim=-1)
            self.captured._rows.keep(0, logits[..., num_prefix:].softmax(dim=-1))
            if self.maps:
                unseen = self.tower.num_prefix - num_prefix
                self.captured._whole_probe_row = functional.pad(logits.softmax(dim=-1), (unseen, 0))

    @contextmanager
    def _graph(self, query: Tensor) -> Iterator[None]:
        keep_graph = torch.is_grad_enabled() and self.differentiable
        with torch.set_grad_enabled(keep_graph), _autocast_off(query.device):
            yield


@contextmanager
def _attention_observed(observer: _Observer, probe: nn.Module | None) -> Iterator[None]:
    """Shows the observer every query and key, by whatever the tower computes attention."""
    tower = observer.tower
    if not tower.backbone.has_attention_of_its_own:
        with attention_replaced(tower, observer.see):
            yield
        return
    watched = {} if tower.backbone.no_attention_because else dict(enumerate(tower.blocks))
    seen = {block: Attended(partial(observer.see, layer)) for layer, block in watched.items()}
    if probe is not None:
        seen[probe] = Attended(observer.see_probe)
    with attention_seen(seen):
        yield


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
        captured._whole_probe_row = row.detach()

    return hook


def _autocast_off(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device_type=device.type, enabled=False)


def uncompiled() -> AbstractContextManager[Any]:
    """Runs compiled modules as they are written; nothing to do where nothing was compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
