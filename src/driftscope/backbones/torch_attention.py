"""The queries and keys of attention that a library computes by torch itself.

timm calls `scaled_dot_product_attention`, open_clip `nn.MultiheadAttention`. Neither hands its rows
out. So the query and key of the first are taken as they go into it, turned and normed as they are;
of the second they are computed once more from its input, by its own weights. What the model
computes does not change by a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

See = Callable[[Tensor, Tensor, float], None]
"""Is given query and key, [image, head, token, dim] each, and the factor on their products."""


class Attended:
    """What one module's attention showed in its latest forward.

    Attributes:
        calls: how many attentions were computed in it.
        oddity: what keeps a softmax of query and key from being the whole of it; empty if nothing.
    """

    def __init__(self, see: See) -> None:
        self.see = see
        self.calls = 0
        self.oddity = ""


@contextmanager
def attention_seen(modules: Mapping[nn.Module, Attended]) -> Iterator[None]:
    """Hands on the query and key of every attention that is computed inside these modules."""
    mode = _Watching()
    with ExitStack() as hooks:
        for module, attended in modules.items():
            inner = [one for one in module.modules() if isinstance(one, nn.MultiheadAttention)]
            begin = module.register_forward_pre_hook(_begins(attended, mode, is_plain=not inner))
            end = module.register_forward_hook(_ends(mode), always_call=True)
            hooks.callback(begin.remove)
            hooks.callback(end.remove)
            for one in inner:
                seen = one.register_forward_pre_hook(_multihead(attended), with_kwargs=True)
                hooks.callback(seen.remove)
        yield


class _Watching(TorchFunctionMode):
    """Sees the calls of torch's attention while one of the modules runs."""

    def __init__(self) -> None:
        super().__init__()
        self.attended: Attended | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention and self.attended is not None:
            _note(self.attended, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _begins(
    attended: Attended, mode: _Watching, *, is_plain: bool
) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, _inputs: Any) -> None:
        attended.calls, attended.oddity = 0, ""
        if is_plain and mode.attended is None:
            mode.attended = attended
            mode.__enter__()  # type: ignore[no-untyped-call]

    return hook


def _ends(mode: _Watching) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if mode.attended is not None:
            mode.attended = None
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    return hook


def _note(
    attended: Attended,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    del value, dropout_p
    attended.calls += 1
    if attn_mask is not None or is_causal:
        attended.oddity = "adds a bias or a mask to its products of query and key"
    elif enable_gqa or query.ndim != 4:
        attended.oddity = "shares its keys among heads, or has none"
    else:
        attended.see(query, key, query.shape[-1] ** -0.5 if scale is None else scale)


def _multihead(attended: Attended) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(("query", "key", "value"), inputs, strict=False)) | named
        attended.calls += 1
        if given.get("attn_mask") is not None or given.get("key_padding_mask") is not None:
            attended.oddity = "attends under a mask"
        elif module.bias_k is not None or module.add_zero_attn:
            attended.oddity = "attends to keys that are no tokens"
        else:
            query, key = _projected(module, given["query"], given["key"])
            attended.see(query, key, query.shape[-1] ** -0.5)

    return hook


def _projected(module: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key of a MultiheadAttention, head by head."""
    width = module.embed_dim
    biases = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    if module.in_proj_weight is None:
        weights = module.q_proj_weight, module.k_proj_weight
    else:
        weights = module.in_proj_weight.chunk(3)[:2]
    parts = []
    for tokens, weight, bias in zip((query, key), weights, biases, strict=True):
        batched = tokens if module.batch_first else tokens.transpose(0, 1)
        projected = functional.linear(batched, weight, bias)
        heads = projected.view(*projected.shape[:2], module.num_heads, width // module.num_heads)
        parts.append(heads.transpose(1, 2))
    return parts[0], parts[1]
