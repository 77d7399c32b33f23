"""What training has changed so far, in place on the model in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from driftscope.blending import along_rows
from driftscope.errors import ModelError

_FIXED_FACTORS = ("lora_A.", "vera_lambda_d.")
"""Factors of a product whose other factor starts at 0: the change is linear in that other one."""
_LINEAR_FACTORS = ("lora_B.", "vera_lambda_b.", "ia3_l.")


@dataclass(frozen=True, eq=False)
class TrainedDelta:
    """W − W₀ of what is trained, and the way back to any share of it.

    A low-rank adapter is scaled by its second factor alone, so that its change B·A is scaled, not
    squared. IA³'s scales go back to 1.

    Attributes:
        start: the weights W₀ by name, before any step of training.
    """

    start: Mapping[str, Tensor]

    @classmethod
    def of(cls, trained: Mapping[str, nn.Parameter], module: nn.Module) -> TrainedDelta:
        """The delta of a model that has not been trained yet.

        Args:
            trained: what is trained, by name.
            module: the encoder that is trained.

        Raises:
            ModelError: an adapter whose change cannot be scaled by scaling its weights.
        """
        of_adapters = {
            id(one)
            for layer in module.modules()
            if hasattr(layer, "base_layer")
            for name, one in layer.named_parameters()
            if not name.startswith("base_layer.")
        }
        for name, one in trained.items():
            is_known = any(factor in name for factor in _LINEAR_FACTORS + _FIXED_FACTORS)
            if id(one) in of_adapters and not is_known:
                raise ModelError(
                    f"the change that {name} makes is not linear in it, so no share of it can be "
                    "taken back; keep the budget with by: rate"
                )
        return cls(
            {
                name: one.detach().clone()
                for name, one in trained.items()
                if not any(fixed in name for fixed in _FIXED_FACTORS)
            }
        )

    def reached(self, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """A copy of where training has come to."""
        return {name: trained[name].detach().clone() for name in self.start}

    def set(
        self,
        trained: Mapping[str, nn.Parameter],
        reached: Mapping[str, Tensor],
        strength: float,
        of_rows: Mapping[str, Float[Tensor, " row"]] | None = None,
    ) -> None:
        """Makes the model W₀ + strength · (W − W₀); at 0 and 1 it is either to the bit.

        Args:
            trained: the weights, by name.
            reached: their values W.
            strength: of all of them.
            of_rows: of every row of some weights, instead.
        """
        with torch.no_grad():
            for name, before in self.start.items():
                now = reached[name].double()
                rows = (of_rows or {}).get(name)
                share = strength if rows is None else along_rows(rows.to(now), now)
                trained[name].copy_(torch.lerp(before.to(now), now, share))
