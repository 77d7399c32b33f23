"""Dropout whose mask costs a quarter of the random numbers.

Adapters drop entries of every adapted layer's input, each layer its own. On a CPU drawing those
masks is a tenth of a LoRA step with torch's dropout, and half of that with this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16


class QuickDropout(nn.Dropout):
    """`nn.Dropout` with its probability rounded to 1/65,536, unbiased at that; on CPU, uncompiled.

    Four entries share one 64-bit random number, sixteen bits each.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drops entries in training mode and scales the others up; else gives them back."""
        dropped = round(self.p * _LEVELS)
        is_quick = input.device.type == "cpu" and 0 < dropped < _LEVELS
        # torch.compile cannot trace random_ and would cut the graph at every adapter
        if not self.training or not is_quick or torch.compiler.is_compiling():
            return super().forward(input)
        bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = bits.view(torch.int16)[: input.numel()].view(input.shape)  # −32,768 to 32,767
        kept = (levels >= dropped - _LEVELS // 2).to(input.dtype)
        return input * kept.mul_(_LEVELS / (_LEVELS - dropped))


def use_quick_dropout(module: nn.Module) -> None:
    """Puts `QuickDropout` in the place of every `nn.Dropout` inside a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, QuickDropout(child.p).train(child.training))
