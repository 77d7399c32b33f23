"""How far the encoder's weights have moved: relative L2 change, intruder dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from driftscope.errors import CaptureError

BlockOf: TypeAlias = Callable[[str], int | None]
"""The block that a weight of this name is in, from 0; None outside blocks."""
_BLOCK_INDEX = re.compile(r"(?:^|\.)(?:layers?|blocks|resblocks|stages)\.(\d+)\.")


def numbered_block(name: str) -> int | None:
    """The outermost number behind `layer`, `layers`, `blocks`, `resblocks` or `stages` in a name.

    So transformers, timm and open_clip call their blocks. A backbone knows better.
    """
    match = _BLOCK_INDEX.search(name)
    return int(match.group(1)) if match else None


SIXTEEN_BITS = (torch.bfloat16, torch.float16)
"""The number types in half precision."""


@dataclass(frozen=True)
class WeightDrift:
    """Relative L2 change ‖ΔW‖ / ‖W₀‖, in [0, ∞): of all tensors, per block, outside blocks.

    `per_layer` goes from the first block up; `outside_layers` covers embeddings, norms and
    projection, and is 0 where there are none.
    """

    total: float
    per_layer: list[float]
    outside_layers: float


def weight_drift(
    pretrained_state: Mapping[str, Tensor],
    adapted_state: Mapping[str, Tensor],
    *,
    block_of: BlockOf = numbered_block,
) -> WeightDrift:
    """Relative L2 change of the weights, ‖W − W₀‖₂ / ‖W₀‖₂ over all entries, in [0, ∞).

    Pass the encoder's effective weights on both sides (adapters added in: LoRA as (α/r)·BA), then
    full fine-tuning and adapters are on one scale. Norms are accumulated in float64; integer
    buffers are ignored. 0 where nothing moved; infinite where a group was all zero and no longer
    is.

    Args:
        pretrained_state, adapted_state: tensors by name, the same names and shapes on both sides.
        block_of: which block a weight is in; a backbone has it.

    Raises:
        CaptureError: names or shapes differ, or there are no floating-point tensors.
    """
    names = [name for name, tensor in pretrained_state.items() if tensor.is_floating_point()]
    _check_same_tensors(pretrained_state, adapted_state, names)
    change: dict[int | None, float] = {}
    size: dict[int | None, float] = {}
    for name in names:
        group = block_of(name)
        after = adapted_state[name].detach().double()
        before = pretrained_state[name].detach().to(after)  # where the adapted weights are
        change[group] = change.get(group, 0.0) + float((after - before).square().sum())
        size[group] = size.get(group, 0.0) + float(before.square().sum())
    blocks = sorted(group for group in size if group is not None)
    return WeightDrift(
        total=_relative(sum(change.values()), sum(size.values())),
        per_layer=[_relative(change[block], size[block]) for block in blocks],
        outside_layers=_relative(change.get(None, 0.0), size.get(None, 0.0)),
    )


def is_at_most_rounded(
    pretrained_state: Mapping[str, Tensor], adapted_state: Mapping[str, Tensor]
) -> bool:
    """Whether every adapted tensor is the pretrained one, to the bit or in numbers of 16 bits.

    Tensors of another shape, such as positions of another grid, are not compared.
    """
    for name, after in adapted_state.items():
        before = pretrained_state.get(name)
        if before is None or before.shape != after.shape:
            continue
        before = before.detach().to(after.device)
        roundings = (before.to(kind) for kind in (before.dtype, *SIXTEEN_BITS))
        if not any(torch.equal(one.double(), after.detach().double()) for one in roundings):
            return False
    return True


def sixteen_bits_of(state: Mapping[str, Tensor]) -> frozenset[torch.dtype]:
    """The number types of 16 bits that hold every value of the tensors, whatever their own type."""
    tensors = [one.detach() for one in state.values() if one.is_floating_point()]
    return frozenset(
        kind
        for kind in SIXTEEN_BITS
        if all(torch.equal(one.to(kind).to(one.dtype), one) for one in tensors)
    )


def _relative(change_squared: float, size_squared: float) -> float:
    if change_squared == 0.0:
        return 0.0
    return float((change_squared / size_squared) ** 0.5) if size_squared else float("inf")


def _check_same_tensors(
    pretrained: Mapping[str, Tensor], adapted: Mapping[str, Tensor], names: list[str]
) -> None:
    if not names:
        raise CaptureError("Weight drift needs at least one floating-point tensor, got none.")
    adapted_names = {name for name, tensor in adapted.items() if tensor.is_floating_point()}
    unmatched = sorted(adapted_names.symmetric_difference(names))
    if unmatched:
        raise CaptureError(
            f"Weight drift compares the same tensors on both sides, but {len(unmatched)} have no "
            f"counterpart (the first: {unmatched[0]}); pass both encoders' effective weights."
        )
    for name in names:
        if pretrained[name].shape != adapted[name].shape:
            raise CaptureError(
                f"{name} has shape {tuple(pretrained[name].shape)} in the pretrained and "
                f"{tuple(adapted[name].shape)} in the adapted encoder; they are not one model."
            )


def intruder_dimensions_per_layer(
    pretrained_state: Mapping[str, Tensor],
    adapted_state: Mapping[str, Tensor],
    num_top: int = 10,
    epsilon: float = 0.5,
    *,
    block_of: BlockOf = numbered_block,
) -> list[int]:
    """Intruder dimensions of every block's weight matrices, summed per block, first block first.

    Kernels are no matrices: empty where the blocks hold nothing else. Takes the singular value
    decomposition of every matrix that changed: minutes for a fully fine-tuned ViT-B, seconds where
    only a few matrices were adapted. Arguments as for `weight_drift` and `intruder_dimensions`.

    Raises:
        CaptureError: names or shapes differ, or there are no floating-point tensors.
    """
    names = [name for name, tensor in pretrained_state.items() if tensor.is_floating_point()]
    _check_same_tensors(pretrained_state, adapted_state, names)
    blocks = {name: block for name in names if (block := block_of(name)) is not None}
    matrices = [name for name in blocks if pretrained_state[name].ndim == 2]
    counts = dict.fromkeys(blocks.values() if matrices else (), 0)
    for name in matrices:
        before, after = pretrained_state[name], adapted_state[name]
        changed = not torch.equal(before.double(), after.to(before.device).double())
        found = intruder_dimensions(before, after, num_top, epsilon) if changed else 0
        counts[blocks[name]] += found
    return [counts[block] for block in sorted(counts)]


def intruder_dimensions(
    pretrained: Float[Tensor, "out in"],
    adapted: Float[Tensor, "out in"],
    num_top: int = 10,
    epsilon: float = 0.5,
) -> int:
    """How many of an adapted matrix's leading singular directions the pretrained one lacks.

    Counts, among the `num_top` largest left singular vectors of the adapted matrix, those whose
    absolute cosine with every left singular vector of the pretrained matrix is below `epsilon`. In
    0…num_top; 0 where nothing changed. Source: Shuttleworth et al. 2024 (2410.21228).

    Raises:
        ValueError: the two are not matrices of one shape.
    """
    if pretrained.ndim != 2 or pretrained.shape != adapted.shape:
        raise ValueError(
            "Intruder dimensions compare two matrices of one shape, got "
            f"{tuple(pretrained.shape)} and {tuple(adapted.shape)}."
        )
    before = torch.linalg.svd(pretrained.detach().double(), full_matrices=False).U
    after = torch.linalg.svd(adapted.detach().double(), full_matrices=False).U[:, :num_top]
    nearest = (before.T @ after).abs().amax(dim=0)
    return int((nearest < epsilon).sum())
